"""The power of an experiment: how surely it separates reward models, and detects a correlation.

A design has S seeds and P prompts of each of K reward models; every policy answers the same prompts. The
difference of two scores has the variance

    V = 2 σ²_seed / S + 2 (σ²_prompt + σ²_residual / S) / P

(Westfall, Kenny and Judd 2014, J. Exp. Psychol. Gen. 143(5), participants within conditions crossed with
stimuli; here the participants are seeds). The test is that of `comparisons.p_values`: t with Satterthwaite's
degrees of freedom, the spread between seeds pooled over reward models. Its power is that of the noncentral t.

Many comparisons are corrected by Holm. A difference is separated for certain once its p-value is at most
level / comparisons (Bonferroni), which is what is computed: Holm is never less powerful.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, isinf
from typing import Any

import numpy as np

from rlhf_eval.analysis.variance import Components

MIN_SEEDS = 2
"""One seed tells nothing of training luck, so no experiment with one can test a difference."""
MIN_REWARD_MODELS = 4
"""Fewer have no correlation to speak of."""
PARTS = 400
"""Into which the distribution of an estimated spread is cut; the power is exact to 0.001."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be shown.

    Attributes:
        difference: of two scores, in points of percent.
        reward_models: how many take part.
        every_pair: whether all K(K−1)/2 pairs are compared, or one with each of the K−1 others.
        power: the probability with which it is to be shown.
        level: of the family of all comparisons.
    """

    difference: float
    reward_models: int
    every_pair: bool = True
    power: float = 0.8
    level: float = 0.05

    @property
    def comparisons(self) -> int:
        """How many comparisons there are."""
        others = self.reward_models - 1
        return self.reward_models * others // 2 if self.every_pair else others


def power(components: Components, target: Target, seeds: float, prompts: float) -> float:
    """Probability that a true difference of `target.difference` is separated.

    Args:
        components: `seed` and `residual` known.
        seeds: of each reward model, at least 2; may be infinite.
        prompts: at least 2; may be infinite.
    """
    variance, degrees = _variance(components, target.reward_models, seeds, prompts)
    if variance == 0.0:
        return 1.0
    shift = target.difference / np.sqrt(variance)
    return float(_rejection(shift, degrees, target.level / target.comparisons))


def smallest_difference(components: Components, target: Target, seeds: float, prompts: float) -> float:
    """The smallest difference, in points of percent, that is separated with `target.power`."""

    def lacking(difference: float) -> float:
        return power(components, replace(target, difference=difference), seeds, prompts) - target.power

    variance, _ = _variance(components, target.reward_models, seeds, prompts)
    if variance == 0.0:
        return 0.0
    high = np.sqrt(variance)
    while lacking(high) < 0:
        high *= 2
    return _root(lacking, float(high))


def correlation_power(correlation: float, reward_models: int, level: float = 0.05) -> float:
    """Probability that the two-sided t-test of Pearson's correlation rejects zero, both columns normal.

    Exact: given the x column, t is noncentral with shift ρ / √(1 − ρ²) · √Sxx, and Sxx is χ² with n − 1
    degrees of freedom (Gatsonis and Sampson 1989, Psychol. Bull. 106(3)), over which the mean is taken.

    Args:
        correlation: of the measured values, below that of the true ones by the noise of both
            (Spearman 1904); in (−1, 1).
        reward_models: at least 3.
    """
    spread = _chi(reward_models - 1) * np.sqrt(reward_models - 1)
    shift = abs(correlation) / np.sqrt(1 - correlation**2) * spread
    return float(np.mean(_rejection(shift, reward_models - 2, level)))


def smallest_correlation(reward_models: int, wanted: float = 0.8, level: float = 0.05) -> float:
    """The smallest correlation that so many reward models detect with the power wanted."""

    def lacking(correlation: float) -> float:
        return correlation_power(correlation, reward_models, level) - wanted

    return _root(lacking, 1 - 1e-9)


def _root(function: Callable[[float], float], high: float) -> float:
    """Where a function between 0 and `high` is zero."""
    from scipy.optimize import brentq

    found: Any = brentq(function, 0.0, high, xtol=1e-6)
    return float(found)


def _rejection(shift: np.ndarray | float, degrees: float, level: float) -> np.ndarray:
    """P(|T| > critical value) of a noncentral t, shape of `shift`: T = (Z + shift) / s, averaged over s,
    which overflows nowhere."""
    from scipy.special import ndtr
    from scipy.stats import t

    limits = t.isf(level / 2, degrees) * _chi(degrees)
    shift = np.asarray(shift)[..., None]
    return (ndtr(shift - limits) + ndtr(-shift - limits)).mean(axis=-1)


def _chi(degrees: float) -> np.ndarray:
    """√(χ² / degrees) at the middles of equally likely parts, shape (parts,)."""
    from scipy.special import gammaincinv

    if isinf(degrees):
        return np.ones(1)
    middles = (np.arange(PARTS) + 0.5) / PARTS
    return np.sqrt(gammaincinv(degrees / 2, middles) * 2 / degrees)


def _variance(
    components: Components, reward_models: int, seeds: float, prompts: float
) -> tuple[float, float]:
    """Variance of a difference and its degrees of freedom (Satterthwaite 1946)."""
    assert components.seed is not None
    assert components.residual is not None
    luck = 2 * components.seed**2 / seeds
    chance = 2 * (components.prompt**2 + components.residual**2 / seeds) / prompts
    squares = luck**2 / (reward_models * (seeds - 1)) + chance**2 / (prompts - 1)
    return luck + chance, (luck + chance) ** 2 / squares if squares else inf
