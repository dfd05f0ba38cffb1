"""What every benchmark is made of, whatever its published format."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rlhf_eval.records import Prompt


@dataclass(frozen=True, slots=True)
class Item:
    """Completions of one prompt, of which it is known how good they are.

    Attributes:
        id: unique within the benchmark.
        completions: at least two.
        labels: one per completion; 1 right (chosen), 0 wrong (rejected).
        subset: the finest named part of the benchmark that it belongs to.
        attributes: what a benchmark's metric needs beside, such as the models that answered.
    """

    id: str
    prompt: Prompt
    completions: tuple[str, ...]
    labels: tuple[float, ...]
    subset: str = "all"
    attributes: Mapping[str, str] = field(default_factory=dict)


Scores = Sequence[np.ndarray]
"""One array per item, shape (completions,), float64; NaN where the reward model had no valid score."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A benchmark's official number, and what stands behind it. All but `n` and `metrics` in percent.

    Attributes:
        accuracy: the official aggregate.
        low, high: its 95 % interval.
        n: number of items that the accuracy is made of.
        subsets: accuracy of each named part.
        metrics: further published numbers, by a name that says which and in what unit.
        right: per item, the credit that `accuracy` is made of; within [0, 1] but for RewardBench 2's Ties.
        weight: per item, its share of `accuracy`, which is Σ weight × right; 0 for items that do not count,
            such as tied votes.
    """

    accuracy: float
    low: float
    high: float
    n: int
    subsets: dict[str, float]
    metrics: dict[str, float]
    right: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True, slots=True)
class Version:
    """One published version of a benchmark's data, to recognise it by.

    Attributes:
        name: what it is called.
        rows: number of items by subset.
        sha256: `content_hash` of its items; None where the data could not be had to compute it.
    """

    name: str
    rows: Mapping[str, int]
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Benchmark:
    """How one benchmark is read and how its number is computed.

    Attributes:
        load: from parts of the data and their sources (`sources.read_rows` reads one) to items.
        summarise: from items and their scores to the official number.
        versions: the published versions; data that are none of them come with a warning.
        both_orders: whether a reward model that only compares scores a pair by the games it won in both
            orders (0 to 2) instead of by a probability.
    """

    load: Callable[[Mapping[str, str]], list[Item]]
    summarise: Callable[[Sequence[Item], Scores], Summary]
    versions: tuple[Version, ...] = ()
    both_orders: bool = False
