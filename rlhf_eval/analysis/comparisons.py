"""Which of several scores can be told apart: tests of all differences, Holm's correction, and tiers."""

from collections.abc import Sequence

import numpy as np

from rlhf_eval.analysis.intervals import LEVEL, Estimates, percentile_interval


def p_values(estimates: Estimates) -> np.ndarray:
    """Two-sided p of every difference of two scores, shape (groups, groups): a t-test with the standard error
    and the degrees of freedom of `Estimates.difference_errors`. Equal scores without any noise have 1."""
    from scipy.special import stdtr

    error, degrees = estimates.difference_errors()
    distance = np.abs(estimates.scores[:, None] - estimates.scores)
    still = error < 1e-9
    t = distance / np.where(still, 1.0, error)
    return np.where(still, np.where(distance < 1e-9, 1.0, 0.0), 2 * stdtr(degrees, -t))


def holm(p: np.ndarray) -> np.ndarray:
    """Adjusted p-values, shape (tests,): rejecting those of at most α makes a false rejection anywhere in the
    family with probability at most α (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def separable(estimates: Estimates, members: Sequence[int]) -> np.ndarray:
    """Whether two of the members can be told apart, Holm over all pairs of them; shape (members, members)."""
    one, other = np.triu_indices(len(members), k=1)
    chosen = np.asarray(members, dtype=int)
    apart = np.zeros((len(members), len(members)), dtype=bool)
    apart[one, other] = holm(p_values(estimates)[chosen[one], chosen[other]]) <= 1 - LEVEL
    return apart | apart.T


def tiers(scores: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Tier of each score, 1 = best, shape (n,): going down, a new tier begins at the first score that can be
    told apart from the top of the tier above it.

    So none of a tier is shown to be worse than its top; neighbours in two tiers need not be separable.
    """
    order = np.argsort(-scores, kind="stable")
    found = np.empty(len(scores), dtype=int)
    tier, top = 1, order[:1]
    for place in order:
        if apart[top, place].any():
            tier, top = tier + 1, np.array([place])
        found[place] = tier
    return found


def compared_with(estimates: Estimates, members: Sequence[int], reference: int) -> np.ndarray:
    """p-values of the members against one reference, Holm over the members; shape (members,)."""
    return holm(p_values(estimates)[list(members), reference])


def probability_best(draws: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Share of draws in which each candidate is first of them, shape (rows,); those that are equal share."""
    candidates = np.where(control, -np.inf, draws)
    first = (candidates == candidates.max(axis=1, keepdims=True)) & ~control
    return (first / np.maximum(first.sum(axis=1, keepdims=True), 1)).mean(axis=0)


def best_controls(scores: np.ndarray, control: np.ndarray) -> list[int | None]:
    """For each row the control with the highest score that it isn't itself; None without one."""
    order = [int(i) for i in np.argsort(-scores, kind="stable") if control[i]]
    return [next((other for other in order if other != i), None) for i in range(len(scores))]


def leads(
    name: str, scores: np.ndarray, draws: np.ndarray, references: Sequence[int | None]
) -> list[dict[str, float | None]]:
    """Difference of each row to its reference, with its paired interval as `name`_low and `name`_high;
    None where there is no reference."""
    keys = (name, f"{name}_low", f"{name}_high")
    found: list[dict[str, float | None]] = []
    for i, reference in enumerate(references):
        if reference is None:
            found.append(dict.fromkeys(keys))
            continue
        low, high = percentile_interval(draws[:, i] - draws[:, reference])
        values = (scores[i] - scores[reference], low, high)
        found.append(dict(zip(keys, map(float, values), strict=True)))
    return found
