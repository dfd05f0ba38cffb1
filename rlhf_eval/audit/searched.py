"""What a search of the training data means for a benchmark: its accuracy without what was found."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from rlhf_eval.audit.overlap import Overlap, find_overlap
from rlhf_eval.benchmarks.evaluate import Loaded, Measured
from rlhf_eval.benchmarks.private import canaries
from rlhf_eval.progress import Progress

SHOWN = 200
"""Matched passages in the result."""


def overlap_rows(
    benchmarks: Sequence[Loaded],
    measured: Mapping[str, Measured],
    sources: Sequence[str],
    n: int,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Search `sources` for every benchmark, and compute its number again without what was found.

    Of a private set the passages are left out: ids and places tell enough.
    """
    found = find_overlap(
        {benchmark.config.name: benchmark.items for benchmark in benchmarks},
        sources,
        progress,
        n,
        {b.config.name: canaries(b.config) for b in benchmarks if b.config.private},
    )
    return [
        _row(benchmark, measured[benchmark.config.name], found[benchmark.config.name], sources)
        for benchmark in benchmarks
    ]


def _row(benchmark: Loaded, measured: Measured, found: Overlap, sources: Sequence[str]) -> dict[str, Any]:
    matches = [asdict(match) for match in found.matches]
    if benchmark.config.private:
        matches = [match | {"text": "(private)"} for match in matches]
    notes = []
    if found.common:
        notes.append(f"{found.common} n-grams stand in many items and were left out as common phrases.")
    if len(matches) > SHOWN:
        notes.append(f"{len(matches)} matches were kept; the first {SHOWN} are shown.")
    return {
        "benchmark": benchmark.config.name,
        "sources": list(sources),
        "documents": found.documents,
        "words": found.words,
        "methods": [_method(name, ids, measured) for name, ids in found.flagged.items()],
        "flagged": {name: sorted(ids) for name, ids in found.flagged.items()},
        "canaries": found.canaries,
        "matches": matches[:SHOWN],
        "notes": notes,
    }


def _method(name: str, flagged: set[str], measured: Measured) -> dict[str, Any]:
    """One line of the table: how many items, and the number without them."""
    items = measured.benchmark.items
    weight = measured.summary.weight
    left = [place for place, item in enumerate(items) if item.id not in flagged]
    found = np.array([item.id in flagged for item in items])
    row = {
        "method": name,
        "flagged": len(flagged),
        "share": 100 * len(flagged) / len(items),
        "accuracy": measured.summary.accuracy,
        "n_without": len(left),
        "accuracy_without": None,
        "low": None,
        "high": None,
        "accuracy_of_flagged": None,
    }
    if weight[left].sum() > 0:
        rest = measured.benchmark.kind.summarise(
            [items[place] for place in left], [measured.scores[place] for place in left]
        )
        row |= {"accuracy_without": rest.accuracy, "low": rest.low, "high": rest.high}
    if weight[found].sum() > 0:
        right = float(weight[found] @ measured.summary.right[found] / weight[found].sum())
        row |= {"accuracy_of_flagged": 100 * right}
    return row
