"""Intervals: Wilson's for a proportion; scores of policies with the noise of prompts and training luck."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlhf_eval.analysis.moderated import moderated

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


def rank_interval(ranks: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """The central `level` of drawn ranks, shape (draws, rows): the ranks whose mid-distribution function,
    P(rank < r) + P(rank = r) / 2, lies within it (mid-P, Lancaster 1961).

    Whole ranks in plain percentiles hold more than they promise, as every interval of a discrete quantity.
    """
    from scipy.stats import rankdata

    middle = (rankdata(ranks, axis=0) - 0.5) / len(ranks)
    low = np.where(middle >= (1 - level) / 2, ranks, np.inf).min(axis=0)
    high = np.where(middle <= (1 + level) / 2, ranks, -np.inf).max(axis=0)
    return low, high


@dataclass(frozen=True, slots=True, eq=False)
class Luck:
    """The noise that training luck, which differs by seed, puts on scores.

    Attributes:
        between: shape (groups,): variance of each group's score by what is seen between runs; zero for a
            group without training.
        chance: shape (groups,): the part of it that chance within the prompts makes, not training.
        degrees: shape (groups,), of freedom with which `between` is known.
        observed: degrees of freedom between the seeds of all groups together.
    """

    between: np.ndarray
    chance: np.ndarray
    degrees: np.ndarray
    observed: int

    @property
    def variance(self) -> np.ndarray:
        """Shape (groups,): variance of each group's score by training luck."""
        return np.maximum(self.between - self.chance, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """Scores of groups of runs (a group: one reward model's seeds) and where their noise comes from.

    Attributes:
        scores: shape (groups,): mean over a group's runs of the mean over prompts.
        influence: by evaluation, shape (prompts, groups): how far each prompt pulls a score from where it
            is. Its columns sum to zero; counting a prompt k times adds k − 1 times its row to the scores.
        luck: one entry for each setting (policy and algorithm) that entered; none where every group
            has one run, so that training luck is unknown.
    """

    scores: np.ndarray
    influence: Mapping[str, np.ndarray]
    luck: tuple[Luck, ...]

    def draws(self, bootstraps: int = 2000, seed: int = 0) -> np.ndarray:
        """What the scores could have been with other prompts and other seeds, shape (bootstraps, groups).

        Prompts are drawn with replacement, once per replicate for all groups: hard prompts are hard for all
        and cancel from differences. Training luck is normal, with a variance that is itself drawn from what
        its degrees of freedom leave open (scaled inverse χ²).

        Args:
            seed: of the random numbers; the same seed gives the same draws.
        """
        rng = np.random.default_rng(seed)
        drawn = np.tile(self.scores, (bootstraps, 1))
        for name in sorted(self.influence):
            rows = self.influence[name]
            counts = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=bootstraps)
            drawn += (counts - 1.0) @ rows
        for luck in self.luck:
            scale = np.sqrt(luck.degrees / rng.chisquare(luck.degrees, size=drawn.shape))
            drawn += scale * np.sqrt(luck.variance) * rng.standard_normal(drawn.shape)
        return drawn

    def difference_errors(self) -> tuple[np.ndarray, np.ndarray]:
        """Standard error of every difference of two scores and its degrees of freedom (Welch and
        Satterthwaite), each of shape (groups, groups).

        Of luck it is the variance between runs that the degrees belong to, chance included: what remains
        without chance is known less well than its size suggests. Two groups' variances of luck are taken for
        one estimate, since they largely share it.
        """
        variance = np.zeros((len(self.scores), len(self.scores)))
        squares = np.zeros_like(variance)
        for rows in self.influence.values():
            covariance = rows.T @ rows * (len(rows) / (len(rows) - 1) if len(rows) > 1 else 1.0)
            own = np.diag(covariance)
            part = np.maximum(own[:, None] + own - 2 * covariance, 0.0)
            variance += part
            squares += part**2 / max(len(rows) - 1, 1)
        for luck in self.luck:
            variance += luck.variance[:, None] + luck.variance
            known = luck.between / np.sqrt(luck.degrees)
            squares += (known[:, None] + known) ** 2
        degrees = np.divide(variance**2, squares, out=np.ones_like(variance), where=squares > 0)
        return np.sqrt(variance), degrees


def estimate(values: Mapping[str, np.ndarray], groups: np.ndarray, trained: np.ndarray) -> Estimates:
    """Scores of groups of runs with the noise of prompts and of training luck: a two-way design, in which
    every run of a setting answers the same prompts.

    The mean of S runs on P prompts varies by V_prompts + σ²_seed / S, where V_prompts, from the spread over
    prompts of the mean over runs, holds the residual too (Searle, Casella and McCulloch 1992, §4.7).
    σ²_seed is what the variance between a group's run means has beyond the residual's share in it. Two or
    three seeds alone say next to nothing of that variance, so it is moderated by all groups' (`moderated`); a
    group of one run has theirs. Resampling prompts and seeds one inside the other would count the residual
    twice (Owen 2007, "The pigeonhole bootstrap").

    Args:
        values: by evaluation, shape (prompts, runs); NaN where a run has no verdict on a prompt. The score
            is the sum over evaluations, to be weighted beforehand.
        groups: shape (runs,), integers 0 … G−1, every one present.
        trained: shape (groups,), bool; False where there is no training and so no luck.
    """
    membership = np.equal.outer(groups, np.arange(groups.max() + 1)).astype(float)
    sizes = membership.sum(axis=0)
    run_means, influence = np.zeros(len(groups)), {}
    residual = np.zeros(len(sizes))
    for name, matrix in values.items():
        present = ~np.isnan(matrix)
        means = np.where(present, matrix, 0.0).sum(axis=0) / present.sum(axis=0)
        pulls = np.where(present, matrix - means, 0.0) / present.sum(axis=0)
        run_means += means
        influence[name] = pulls @ membership / sizes
        # Shape (groups,): variance of a run's mean that is chance within a prompt, not a better policy.
        within = (pulls - (influence[name] @ membership.T)) ** 2
        residual += within.sum(axis=0) @ membership * (len(matrix) / max(len(matrix) - 1, 1))
    scores = run_means @ membership / sizes
    spread = ((run_means - scores[groups]) ** 2) @ membership
    repeated = trained & (sizes > 1)
    degrees = np.where(repeated, sizes - 1, 0.0)
    luck: tuple[Luck, ...] = ()
    if repeated.any():
        own = np.divide(spread, degrees, out=np.zeros_like(spread), where=repeated)
        variance, known = moderated(own, degrees)
        chance = np.where(
            repeated, residual / np.maximum(degrees, 1), residual[repeated].sum() / degrees.sum()
        )
        between, chance = (np.where(trained, part, 0.0) / sizes for part in (variance, chance))
        luck = (Luck(between, chance, known, int(degrees.sum())),)
    return Estimates(scores, influence, luck)


def weighted_sum(estimates: Sequence[Estimates], weights: Sequence[float]) -> Estimates:
    """The weighted sum of scores of the same groups in several settings, which share their prompts alone:
    these stay paired, luck adds up."""
    influence: dict[str, np.ndarray] = {}
    for one, weight in zip(estimates, weights, strict=True):
        for name, rows in one.influence.items():
            influence[name] = influence.get(name, 0.0) + weight * rows
    return Estimates(
        scores=np.sum([w * one.scores for one, w in zip(estimates, weights, strict=True)], axis=0),
        influence=influence,
        luck=tuple(
            Luck(weight**2 * luck.between, weight**2 * luck.chance, luck.degrees, luck.observed)
            for one, weight in zip(estimates, weights, strict=True)
            for luck in one.luck
        ),
    )
