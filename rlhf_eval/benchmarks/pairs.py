"""Chosen/rejected pairs of one's own: right if chosen scores strictly higher."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from rlhf_eval.benchmarks.items import Benchmark, Item, Scores, Summary
from rlhf_eval.benchmarks.loading import rows_of, turns, unique
from rlhf_eval.benchmarks.statistics import accuracy_by_subset, prompts_of, weighted_accuracy
from rlhf_eval.records import Prompt


def load(data: Mapping[str, str]) -> list[Item]:
    """Rows with `id`, `prompt` (text or messages), `chosen`, `rejected` and optionally `subset`.

    Raises:
        DataError: a missing field or a repeated id, named by row.
    """
    return unique(_items(data))


def _items(data: Mapping[str, str]) -> Iterator[tuple[str, Item]]:
    for source in data.values():
        for where, row in rows_of(source, ("id", "prompt", "chosen", "rejected")):
            prompt = Prompt(str(row["id"]), turns(row["prompt"], where))
            texts = (row["chosen"], row["rejected"])
            yield where, Item(prompt.id, prompt, texts, (1.0, 0.0), row.get("subset") or "all")


def summarise(items: Sequence[Item], scores: Scores) -> Summary:
    """Share of pairs whose chosen answer scores strictly higher; every pair counts the same."""
    right = np.array([right_wins(item, score) for item, score in zip(items, scores, strict=True)])
    everything = ["all"] * len(items)
    accuracy, low, high, weight = weighted_accuracy(right, everything, {"all": 1.0}, prompts_of(items))
    subsets = accuracy_by_subset(right, [item.subset for item in items])
    return Summary(accuracy, low, high, len(items), subsets, {}, right, weight)


def right_wins(item: Item, scores: np.ndarray) -> float:
    """1 if the right one of two completions scores strictly higher, else 0; an invalid score prefers none."""
    right = item.labels.index(1.0)
    return float(scores[right] > scores[1 - right])


PAIRS = Benchmark(load, summarise)
