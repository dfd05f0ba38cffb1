"""The power of an experiment: how surely it separates reward models, and detects a correlation.

A design has S seeds and P prompts of each of K reward models; every policy answers the same prompts. The
difference of two scores has the variance

    V = 2 σ²_seed / S + 2 (σ²_prompt + σ²_residual / S) / P

(Westfall, Kenny and Judd 2014, J. Exp. Psychol. Gen. 143(5), participants within conditions crossed with
stimuli; here the participants are seeds). The test is that of `comparisons.p_values`: t with Satterthwaite's
degrees of freedom (1946), the spread between seeds taken to be one for all reward models and pooled. Its
power is averaged over what the two parts of V are estimated as: each a scaled χ², the first less the
residual's share and cut at zero.

Many comparisons are corrected by Holm. A difference is separated for certain once its p-value is at most
level / comparisons (Bonferroni), which is what is computed: Holm is never less powerful.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isinf
from typing import Any

import numpy as np

from rlhf_eval.analysis.variance import Components

MIN_SEEDS = 2
"""One seed tells nothing of training luck, so no experiment with one can test a difference."""
MIN_REWARD_MODELS = 4
"""Fewer have no correlation to speak of."""


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
    from scipy.special import ndtr, stdtrit

    assert components.seed is not None
    assert components.residual is not None
    within = components.residual**2 / prompts
    chance = 2 * (components.prompt**2 / prompts + within / seeds)
    deviation = np.sqrt(2 * components.seed**2 / seeds + chance)
    if deviation == 0.0:
        return 1.0
    degrees = target.reward_models * (seeds - 1), prompts - 1
    between = ((components.seed**2 + within) * _relative_variance(degrees[0], 100))[:, None]
    estimated = chance * _relative_variance(degrees[1], 10)
    total = 2 / seeds * np.maximum(between - within, 0.0) + estimated
    squares = (2 / seeds * between) ** 2 / degrees[0] + estimated**2 / degrees[1]
    joint = np.divide(total**2, squares, out=np.full_like(total, 1e9), where=squares > 0)
    limits = -stdtrit(joint, target.level / target.comparisons / 2) * np.sqrt(total)
    above = ndtr((target.difference - limits) / deviation)
    below = ndtr((-target.difference - limits) / deviation)
    return float((above + below).mean())


def smallest_difference(components: Components, target: Target, seeds: float, prompts: float) -> float:
    """The smallest difference, in points of percent, that is separated with `target.power`."""

    def lacking(difference: float) -> float:
        return power(components, replace(target, difference=difference), seeds, prompts) - target.power

    if lacking(0.0) >= 0:
        return 0.0
    high = 1.0
    while lacking(high) < 0:
        high *= 2
    return _root(lacking, high)


def correlation_power(correlation: float, reward_models: int, level: float = 0.05) -> float:
    """Probability that the two-sided t-test of Pearson's correlation rejects zero, both columns normal.

    Exact: given the x column, t is noncentral with shift ρ / √(1 − ρ²) · √Sxx, and Sxx is χ² with n − 1
    degrees of freedom (Gatsonis and Sampson 1989, Psychol. Bull. 106(3)), over which the mean is taken.

    Args:
        correlation: of the measured values, below that of the true ones by the noise of both
            (Spearman 1904); in (−1, 1).
        reward_models: at least 3.
    """
    from scipy.special import ndtr
    from scipy.stats import t

    degrees = reward_models - 2
    spread = np.sqrt((reward_models - 1) * _relative_variance(reward_models - 1, 200))
    shift = abs(correlation) / np.sqrt(1 - correlation**2) * spread[:, None]
    # T = (Z + shift) / s, averaged over s: the noncentral t as scipy has it overflows for large shifts.
    limits = t.isf(level / 2, degrees) * np.sqrt(_relative_variance(degrees, 200))
    return float((ndtr(shift - limits) + ndtr(-shift - limits)).mean())


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


def _relative_variance(degrees: float, parts: int) -> np.ndarray:
    """χ² / degrees at the middles of equally likely parts, shape (parts,)."""
    from scipy.special import gammaincinv

    if isinf(degrees):
        return np.ones(1)
    return gammaincinv(degrees / 2, (np.arange(parts) + 0.5) / parts) * 2 / degrees
