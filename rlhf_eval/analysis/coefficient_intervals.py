"""95 % intervals of correlation coefficients over few points.

What they aim at: the coefficient between the two axes *as measured* in the population of reward models that
these were drawn from, measurement noise included. Each point is one reward model with its noise, so the
spread over points holds both already. A nested bootstrap (reward models, then their measurements) would add
the noise a second time: its percentiles cover 97 to 100 %. Percentiles over reward models alone cover 85 to
93 % for Pearson. `bench/coverage_correlation.py` prints what each way covers.
"""

from functools import lru_cache

import numpy as np

from rlhf_eval.analysis.intervals import LEVEL

FEWEST = 4
"""Below this number of points an interval is all of [−1, 1]."""
SIMULATED = 30
"""Spearman's variance is simulated up to this n and falls as 1/(n − 1) from there."""

_Z = np.linspace(-4.0, 4.0, 801)
_RHO = np.tanh(_Z)
"""Correlations of a bivariate normal among which the score intervals search."""


def pearson_interval(estimate: np.ndarray, without_each: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Fisher's z ± 1.96 √v, where v is the larger of 1/(n − 3) (Fisher 1921) and the jackknife variance of z.

    The first is right for normal data; the second grows with heavy tails and outliers, to which Pearson's r
    is exposed (Hinkley 1978, "Improving the jackknife with special reference to correlation estimation").

    Args:
        estimate: shape (…).
        without_each: r with one point left out, shape (…, points); NaN, if the rest are constant, gives
            an interval of [−1, 1].
        n: number of points, less one for every further mean that was taken out of them.
    """
    points = without_each.shape[-1]
    if n < FEWEST:
        return np.full(np.shape(estimate), -1.0), np.full(np.shape(estimate), 1.0)
    z, z_without = _fisher(estimate), _fisher(without_each)
    deviations = z_without - z_without.mean(axis=-1, keepdims=True)
    jackknife = (points - 1) / points * (deviations**2).sum(axis=-1)
    # It is the variance at n − 1 points (Efron and Stein 1981), and Fisher's falls as 1/(n − 3).
    jackknife = np.where(np.isnan(jackknife), np.inf, jackknife * (n - 4) / (n - 3))
    variance = np.maximum(jackknife, 1 / (n - 3))
    half = _quantile() * np.sqrt(variance)
    return np.tanh(z - half), np.tanh(z + half)


def spearman_interval(estimate: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Score interval of Spearman's ρ (see `_score_interval`).

    Mean over samples of n: 6/(π(n + 1)) · (asin r + (n − 2) asin(r/2)) (Moran 1948, Biometrika 35), of
    infinitely many: 6/π · asin(r/2). The variance has no closed form and is simulated.
    """
    mean = 6 / (np.pi * (n + 1)) * (np.arcsin(_RHO) + (n - 2) * np.arcsin(_RHO / 2))
    return _score_interval(estimate, n, mean, _spearman_variance(n), 6 / np.pi * np.arcsin(_RHO / 2))


def kendall_interval(estimate: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Score interval of Kendall's τ (see `_score_interval`).

    Mean 2/π · asin r; variance 2/(n(n − 1)) · [1 − (2/π asin r)² + 2(n − 2)(1/9 − (2/π asin(r/2))²)]
    (Esscher 1924; Kendall and Gibbons 1990, chapter 10).
    """
    tau = 2 / np.pi * np.arcsin(_RHO)
    variance = (1 - tau**2 + 2 * (n - 2) * (1 / 9 - (2 / np.pi * np.arcsin(_RHO / 2)) ** 2)) * 2
    return _score_interval(estimate, n, tau, variance / (n * (n - 1)), tau)


def _score_interval(
    estimate: np.ndarray, n: int, mean: np.ndarray, variance: np.ndarray, population: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """All population coefficients from which the estimate is less than 1.96 standard deviations away.

    The standard deviation is that at the population value, as in Wilson's interval of a proportion, under
    a normal model with correlation r; for ranks this only asks that some increasing transformation of each
    axis makes them jointly normal.

    Args:
        estimate: shape (…).
        mean, variance, population: of the estimate and its population value at each r of `_RHO`, shape (r,).
    """
    if n < FEWEST:
        return np.full(np.shape(estimate), -1.0), np.full(np.shape(estimate), 1.0)
    values, place = np.unique(np.round(estimate, 12), return_inverse=True)
    near = np.abs(values[:, None] - mean) <= _quantile() * np.sqrt(variance)
    low, high = np.where(near, population, 1.0).min(axis=1), np.where(near, population, -1.0).max(axis=1)
    low, high = np.where(near[:, 0], -1.0, low), np.where(near[:, -1], 1.0, high)
    low, high = np.minimum(low, values), np.maximum(high, values)
    return low[place].reshape(np.shape(estimate)), high[place].reshape(np.shape(estimate))


@lru_cache(maxsize=64)
def _spearman_variance(n: int) -> np.ndarray:
    """Variance of Spearman's ρ over normal samples of n at each r of `_RHO`, shape (r,), from 4,000 samples
    at each of 21 correlations and interpolation between them; always the same random numbers."""
    from scipy.stats import rankdata

    from rlhf_eval.analysis.coefficients import pearson

    size = min(n, SIMULATED)
    x, noise = np.random.default_rng(0).normal(size=(2, 4000, size))
    ranks = rankdata(x, axis=-1)
    z = np.linspace(0.0, _Z[-1], 21)
    variances = [
        pearson(ranks, rankdata(r * x + np.sqrt(1 - r**2) * noise, axis=-1)).var() for r in np.tanh(z)
    ]
    # What is interpolated is the variance over 1 − ρ², which changes slowly.
    relative = np.array(variances) / (1 - (6 / np.pi * np.arcsin(np.tanh(z) / 2)) ** 2)
    smooth = np.interp(np.abs(_Z), z, relative) * (1 - (6 / np.pi * np.arcsin(_RHO / 2)) ** 2)
    return smooth * (size - 1) / (n - 1)


def _fisher(r: np.ndarray) -> np.ndarray:
    return np.arctanh(np.clip(r, -1 + 1e-15, 1 - 1e-15))


def _quantile() -> float:
    from scipy.stats import norm

    return float(norm.ppf((1 + LEVEL) / 2))
