"""The gap between a public benchmark and a private one, against that of reward models with open data.

The two sets may differ in difficulty, for every reward model alike; so a gap by itself says little. One that
is wider than the panel's says that something about the public set favours this reward model: that it was
known, or that it is easier for this one in particular.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlhf_eval.benchmarks.statistics import LEVEL, numbered

DRAWS = 4000


@dataclass(frozen=True)
class Credits:
    """A benchmark as several reward models did on it.

    Attributes:
        name: of the benchmark.
        right: credits by reward model, shape (items,) each.
        weight: weight of each item in the benchmark's number, shape (items,), with sum 1.
        prompts: per item, what tells prompts apart.
    """

    name: str
    right: Mapping[str, np.ndarray]
    weight: np.ndarray
    prompts: Sequence[Hashable]


@dataclass(frozen=True)
class Gap:
    """Accuracy on a public benchmark less that on a private one, in points, with a 95 % interval.

    Attributes:
        panel_gap: mean of the panel's gaps; None without a panel, as in the rest.
        difference: gap less the panel's, with its interval.
        p: two-sided bootstrap p of no difference.
    """

    public: str
    private: str
    public_accuracy: float
    private_accuracy: float
    gap: float
    low: float
    high: float
    panel_gap: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p: float | None = None


def public_private_gap(public: Credits, private: Credits, audited: str, panel: Sequence[str]) -> Gap:
    """The gap of one reward model, and how much wider it is than the panel's.

    Prompts are drawn with replacement from either set, with all their items, for all reward models together.
    """
    rng = np.random.default_rng(0)
    public_BM, private_BM = (_means(part, (audited, *panel), rng) for part in (public, private))
    gap_BM = public_BM - private_BM
    low, high = _interval(gap_BM[1:, 0])
    own = (
        public.name,
        private.name,
        float(public_BM[0, 0]),
        float(private_BM[0, 0]),
        float(gap_BM[0, 0]),
        low,
        high,
    )
    if not panel:
        return Gap(*own)
    difference_B = gap_BM[:, 0] - gap_BM[:, 1:].mean(axis=1)
    tail = min(int((difference_B[1:] <= 0).sum()), int((difference_B[1:] >= 0).sum()))
    return Gap(
        *own,
        float(gap_BM[0, 1:].mean()),
        float(difference_B[0]),
        *_interval(difference_B[1:]),
        min(1.0, 2 * (tail + 1) / (DRAWS + 1)),
    )


def _means(part: Credits, models: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """Accuracy of every model in percent, as it is and in every draw, shape (1 + draws, models)."""
    cluster_I = numbered(part.prompts)
    clusters = int(cluster_I.max()) + 1
    right_IM = np.column_stack([part.right[name] for name in models])
    sums_CM = np.zeros((clusters, len(models)))
    np.add.at(sums_CM, cluster_I, part.weight[:, None] * right_IM)
    weights_C = np.bincount(cluster_I, weights=part.weight, minlength=clusters)
    times_BC = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=DRAWS)
    drawn = (times_BC @ sums_CM) / np.maximum(times_BC @ weights_C, 1e-12)[:, None]
    return 100 * np.vstack([sums_CM.sum(axis=0) / weights_C.sum(), drawn])


def _interval(draws: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
