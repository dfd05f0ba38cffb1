"""How much a benchmark told: correlation of benchmark accuracy with downstream score over reward models."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rlhf_eval.analysis.coefficients import kendall, pearson, spearman
from rlhf_eval.analysis.intervals import LEVEL
from rlhf_eval.analysis.ranking import Ranking

FEW = 10
"""Below this number of reward models the warning in words appears."""


@dataclass(frozen=True, slots=True)
class Coefficient:
    """A correlation coefficient; NaN if it is undefined (fewer than three points, or a constant axis).

    Attributes:
        low, high: 95 % interval; NaN if the noise of the axes is unknown.
    """

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        """`0.40 [−0.10, 0.55]`."""
        if np.isnan(self.estimate):
            return "undefined"
        interval = "" if np.isnan(self.low) else f" [{self.low:.2f}, {self.high:.2f}]"
        return f"{self.estimate:.2f}{interval}".replace("-", "−")


@dataclass(frozen=True, slots=True)
class Correlation:
    """Pearson's r, Spearman's ρ and Kendall's τ-b over `n` points.

    Attributes:
        label: which reward models these are.
        warning: why the numbers conclude little, in words; None if there are enough points.
    """

    label: str
    n: int
    pearson: Coefficient
    spearman: Coefficient
    kendall: Coefficient
    warning: str | None


def correlate(
    x: np.ndarray,
    y: np.ndarray,
    x_draws: np.ndarray | None = None,
    y_draws: np.ndarray | None = None,
    label: str = "all",
) -> Correlation:
    """Pearson, Spearman and Kendall of two columns, shape (n,), with intervals where draws are given.

    The interval holds the central 95 % of the coefficient over joint draws of both axes, shapes
    (draws, n). It covers the *measurement* noise of these very points. It does not say what other
    reward models would show: for that n is the limit, and the warning says so. Noise added to noisy
    measurements pulls the draws towards zero (attenuation), so the interval is widened where needed
    to hold the estimate.
    """
    n = len(x)

    def coefficient(function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Coefficient:
        if n < 3:
            return Coefficient(np.nan, np.nan, np.nan)
        estimate = float(function(x, y))
        low = high = np.nan
        if x_draws is not None and y_draws is not None and not np.isnan(estimate):
            drawn = function(x_draws, y_draws)
            low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Coefficient(estimate, float(np.fmin(low, estimate)), float(np.fmax(high, estimate)))

    return Correlation(
        label, n, coefficient(pearson), coefficient(spearman), coefficient(kendall), _warning(n)
    )


def correlations(ranking: Ranking, seed: int = 0) -> list[Correlation]:
    """Benchmark accuracy against downstream score: over all reward models, and without the controls.

    Both axes carry their noise: the score its bootstrap draws over prompts and seeds, the accuracy a
    draw from the posterior of a binomial share under Jeffreys' prior, Beta(k + ½, n − k + ½), which
    has no zero width at 0 % or 100 %. Accuracies are drawn independently although the reward models
    saw the same pairs, which makes intervals rather too wide. Reward models without the benchmark
    are left out, and n counts the rest. Empty if the runs have no benchmark at all.
    """
    measured = [i for i, row in enumerate(ranking.rows) if row.benchmark is not None]
    if not measured:
        return []
    rows = [ranking.rows[i] for i in measured]
    x, y = np.array([row.benchmark for row in rows]), np.array([row.score for row in rows])
    y_draws = ranking.draws[:, measured]
    pairs = np.array([row.benchmark_n or 0 for row in rows])
    right = pairs * np.clip(x, 0, 100) / 100  # RewardBench 2's Ties can carry a perfect score beyond 100
    x_draws = 100 * np.random.default_rng(seed).beta(right + 0.5, pairs - right + 0.5, size=y_draws.shape)
    x_draws = np.where(pairs > 0, x_draws, x)
    candidate = np.array([not row.control for row in rows])
    subsets = [("candidates", candidate)]
    if not candidate.all():
        subsets.append(("candidates and controls", np.full(len(rows), True)))
    return [correlate(x[s], y[s], x_draws[:, s], y_draws[:, s], label) for label, s in subsets]


def _warning(n: int) -> str | None:
    if n < 3:
        return (
            f"{n} reward model{'s' if n != 1 else ''}: no correlation can be computed from fewer than three."
        )
    if n < FEW:
        return (
            f"Only {n} reward models: even without noise, Pearson's r between unrelated quantities "
            f"would reach ±{_critical(n):.2f} one time in twenty."
        )
    return None


def _critical(n: int) -> float:
    """|r| that uncorrelated normal data exceed with probability 5 % (t-test of Pearson's r)."""
    from scipy.stats import t

    quantile = t.ppf((1 + LEVEL) / 2, n - 2)
    return float(quantile / np.sqrt(n - 2 + quantile**2))
