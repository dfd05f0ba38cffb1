"""Permutation tests of correlation: how often the columns, put together at random, agree as much."""

from collections.abc import Iterator
from itertools import permutations
from typing import Any

import numpy as np

from rlhf_eval.analysis.coefficients import centred, kendall

EXACT = 8
"""Up to this n all n! orders are tried."""
RANDOM = 9_999
"""Random orders above it."""
LARGE = 60
"""Above this n Kendall's p is the normal approximation: permuting n²/2 pairs takes long and adds nothing."""
BLOCK = 4_000_000
"""Numbers in one array at most."""


def permutation_p(
    x: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None, seed: int = 0
) -> dict[str, float]:
    """Two-sided p by coefficient: the share of orders of y whose coefficient is at least as far from zero.

    Of random orders p = (b + 1)/(m + 1), which is never zero (Phipson and Smyth 2010). Ties are no obstacle.

    Args:
        x, y: shape (n,), finite and not constant.
        groups: shape (n,); orders are then drawn at random within the groups only.
        seed: of the random orders.
    """
    from scipy.stats import kendalltau, rankdata

    n = len(x)
    exact = groups is None and n <= EXACT
    pairs = {"pearson": (centred(x), centred(y)), "spearman": (centred(rankdata(x)), centred(rankdata(y)))}
    reached = dict.fromkeys((*pairs, "kendall"), 0)
    tried = 0
    for orders in _all_orders(n) if exact else _random_orders(n, groups, seed):
        tried += len(orders)
        for name, (one, other) in pairs.items():
            # No order changes means and variances, so that the sum of products decides.
            drawn, observed = other[orders] @ one, one @ other
            reached[name] += int((np.abs(drawn) >= abs(observed) - 1e-9).sum())
        if n <= LARGE:
            drawn = kendall(np.broadcast_to(x, orders.shape), y[orders])
            reached["kendall"] += int((np.abs(drawn) >= np.abs(kendall(x, y)) - 1e-9).sum())
    found = {name: count / tried if exact else (count + 1) / (tried + 1) for name, count in reached.items()}
    if n > LARGE:
        normal: Any = kendalltau(x, y, method="asymptotic")
        found["kendall"] = float(normal.pvalue)
    return found


def _all_orders(n: int) -> Iterator[np.ndarray]:
    yield np.array(list(permutations(range(n))))


def _random_orders(n: int, groups: np.ndarray | None, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = max(1, BLOCK // (n * n // 2 if n <= LARGE else n))
    where = np.zeros(n) if groups is None else groups
    home = np.argsort(where, kind="stable")
    for start in range(0, RANDOM, rows):
        chance = rng.random((min(rows, RANDOM - start), n))
        # Sorted by chance, then by group: each group's places, in random order.
        by_chance = np.argsort(chance, axis=1)
        by_group = np.argsort(where[by_chance], axis=1, kind="stable")
        orders = np.empty_like(by_chance)
        orders[:, home] = np.take_along_axis(by_chance, by_group, axis=1)
        yield orders
