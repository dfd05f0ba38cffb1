"""Batches of similar lengths under a budget of tokens."""

from collections.abc import Iterator, Sequence


def batches_by_tokens(
    sequences: Sequence[tuple[int, ...]], batch_tokens: int
) -> Iterator[list[tuple[int, ...]]]:
    """Split into batches whose padded size is at most `batch_tokens`, longest first.

    The longest first, so that a batch too large for the memory fails at once and not after hours. A single
    sequence longer than the budget is a batch of its own.
    """
    batch: list[tuple[int, ...]] = []
    for sequence in sorted(sequences, key=len, reverse=True):
        if batch and len(batch[0]) * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(sequence)
    if batch:
        yield batch
