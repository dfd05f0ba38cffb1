"""Batches under a budget of tokens."""

from hypothesis import given
from hypothesis import strategies as st

from rlhf_eval.rewards.batching import batches_by_tokens

SEQUENCES = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=30).map(tuple), max_size=40)


@given(sequences=SEQUENCES, budget=st.integers(1, 100))
def test_every_sequence_once_within_the_budget_longest_first(sequences: list[tuple], budget: int) -> None:
    batches = list(batches_by_tokens(sequences, budget))
    flat = [sequence for batch in batches for sequence in batch]
    assert sorted(flat) == sorted(sequences)
    assert [len(sequence) for sequence in flat] == sorted(map(len, sequences), reverse=True)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(map(len, batch)) <= budget


@given(sequences=SEQUENCES, budget=st.integers(1, 100))
def test_no_batch_could_have_taken_the_next_sequence(sequences: list[tuple], budget: int) -> None:
    batches = list(batches_by_tokens(sequences, budget))
    for batch in batches[:-1]:
        assert (len(batch) + 1) * len(batch[0]) > budget
