"""The interval of a benchmark's number: Wilson's for a plain share, else a bootstrap over prompts."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from rlhf_eval.benchmarks.items import Item
from rlhf_eval.errors import DataError

LEVEL = 0.95
DRAWS = 1000
CELLS = 4_000_000
"""Numbers held at once by the bootstrap."""


def weighted_accuracy(
    right: np.ndarray, subsets: Sequence[str], weights: Mapping[str, float], prompts: Sequence[Hashable]
) -> tuple[float, float, float, np.ndarray]:
    """Σ over subsets of weight × mean credit with its 95 % interval, in percent, and the weight of each item.

    One subset of whole credits and no repeated prompt gets Wilson's interval (Wilson 1927). All else gets the
    percentile bootstrap over prompts: items of one prompt are drawn together, whatever their subset, because
    a prompt that is hard is hard for all of them.

    Args:
        right: credit per item, shape (items,), in [0, 1].
        subsets: subset per item.
        weights: weight per subset, with sum 1; items of others do not count.
        prompts: per item, what tells prompts apart.

    Raises:
        DataError: no item counts.
    """
    names = [name for name in weights if name in set(subsets)]
    place = {name: number for number, name in enumerate(names)}
    counted = np.array([subset in place for subset in subsets], dtype=bool)
    if not counted.any():
        raise DataError("No item of the benchmark counts for its number.", "Give more of its data.")
    right = right[counted]
    subset_I = np.array([place[s] for s in subsets if s in place])
    cluster_I = numbered([p for p, c in zip(prompts, counted, strict=True) if c])
    weight_S = np.array([weights[name] for name in names])
    membership_IS = np.equal.outer(subset_I, np.arange(len(names))).astype(float)
    means_S = (right @ membership_IS) / membership_IS.sum(axis=0)
    estimate = float(weight_S @ means_S)
    if len(names) == 1 and cluster_I.max() + 1 == len(right) and np.isin(right, (0.0, 1.0)).all():
        low, high = _wilson(int(right.sum()), len(right))
    else:
        low, high = np.quantile(
            _draws(right, cluster_I, membership_IS) @ weight_S, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
        )
    weight_I = np.zeros(len(counted))
    weight_I[counted] = (weight_S / membership_IS.sum(axis=0))[subset_I]
    return 100 * estimate, 100 * float(min(low, estimate)), 100 * float(max(high, estimate)), weight_I


def accuracy_by_subset(right: np.ndarray, subsets: Sequence[str]) -> dict[str, float]:
    """Mean credit of each subset in percent, in order of first appearance."""
    labels = np.array(subsets)
    return {name: 100 * float(right[labels == name].mean()) for name in dict.fromkeys(subsets)}


def numbered(prompts: Sequence[Hashable]) -> np.ndarray:
    """Equal prompts by equal numbers from 0 on, in order of first appearance, shape (items,)."""
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(prompt, len(number)) for prompt in prompts])


def prompts_of(items: Sequence[Item]) -> list[Hashable]:
    """What tells prompts apart: their turns."""
    return [item.prompt.messages for item in items]


def _draws(right: np.ndarray, cluster_I: np.ndarray, membership_IS: np.ndarray) -> np.ndarray:
    """Bootstrap means of every subset, shape (draws, subsets); a subset that a draw missed keeps its mean."""
    clusters = int(cluster_I.max()) + 1
    subsets = membership_IS.shape[1]
    sums_CS, counts_CS = np.zeros((clusters, subsets)), np.zeros((clusters, subsets))
    np.add.at(sums_CS, cluster_I, membership_IS * right[:, None])
    np.add.at(counts_CS, cluster_I, membership_IS)
    means_S = sums_CS.sum(axis=0) / counts_CS.sum(axis=0)
    rng = np.random.default_rng(0)
    share = np.full(clusters, 1 / clusters)
    found = []
    step = max(1, CELLS // clusters)
    for start in range(0, DRAWS, step):
        times_BC = rng.multinomial(clusters, share, size=min(step, DRAWS - start)).astype(float)
        counts_BS = times_BC @ counts_CS
        found.append(np.where(counts_BS > 0, times_BC @ sums_CS / np.maximum(counts_BS, 1e-12), means_S))
    return np.concatenate(found)


def _wilson(successes: int, n: int) -> tuple[float, float]:
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)
