"""Intervals: Wilson's for a proportion, and a paired, nested bootstrap for scores of policies."""

from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
"""Coverage that every interval of the analysis aims at."""


def wilson(successes: float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval for a proportion (Wilson 1927), as shares in [0, 1].

    Args:
        successes: number of successes out of `n`; half counts (ties) are allowed.
    """
    from scipy.stats import norm

    z = norm.ppf((1 + level) / 2)
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def percentile_interval(draws: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """The central `level` of bootstrap draws, shape (draws, …), along the first axis."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


@dataclass(frozen=True, slots=True, eq=False)
class Bootstrap:
    """Scores of groups of runs (a group: one reward model's seeds) and their bootstrap draws.

    Attributes:
        scores: shape (groups,): mean over a group's runs of the mean over prompts.
        draws: shape (bootstraps, groups).
    """

    scores: np.ndarray
    draws: np.ndarray


def nested_bootstrap(
    values: np.ndarray, groups: np.ndarray, bootstraps: int = 2000, seed: int = 0
) -> Bootstrap:
    """Paired, nested bootstrap over prompts and over the seeds within each group.

    Prompts are drawn once per replicate for all runs (paired: all policies answered the same prompts,
    so hard prompts are hard for all and cancel from differences). Seeds are drawn within each group.
    Drawing S seeds with replacement gives the mean a variance that is too small by (S − 1)/S; the
    drawn deviations are widened by √(S/(S − 1)) (Davison and Hinkley 1997, §2.3; matters at S = 2).
    A group of one run is not resampled over seeds: its draws hold the noise of prompts only.
    With two or three seeds the spread between seeds is itself barely known, and no resampling within
    the group can mend that: where seeds differ more than prompts explain, intervals are too narrow.

    Args:
        values: shape (prompts, runs); NaN where a run has no verdict on a prompt (left out of its mean).
        groups: shape (runs,), integers 0 … G−1, every one present.
        bootstraps: number of replicates.
        seed: of the random numbers; the same seed gives the same draws.
    """
    n_prompts, n_runs = values.shape
    rng = np.random.default_rng(seed)
    prompt_weights = rng.multinomial(n_prompts, np.full(n_prompts, 1 / n_prompts), size=bootstraps).astype(
        float
    )
    present = ~np.isnan(values)
    filled = np.where(present, values, 0.0)
    run_means = filled.sum(axis=0) / present.sum(axis=0)
    # A replicate could miss every prompt of a run only if that run had next to none.
    drawn_means = (prompt_weights @ filled) / np.maximum(prompt_weights @ present, 1e-12)

    membership = np.equal.outer(groups, np.arange(groups.max() + 1)).astype(float)
    sizes = membership.sum(axis=0)
    seed_weights = np.empty((bootstraps, n_runs))
    for group, size in enumerate(sizes.astype(int)):
        counts = rng.multinomial(size, np.full(size, 1 / size), size=bootstraps)
        widening = np.sqrt(size / (size - 1)) if size > 1 else 0.0
        seed_weights[:, groups == group] = (1 + widening * (counts - 1)) / size
    return Bootstrap(
        scores=(run_means @ membership) / sizes,
        draws=(drawn_means * seed_weights) @ membership,
    )
