"""Correction for attenuation: how strongly the axes would correlate if they were measured without noise."""

from dataclasses import dataclass

import numpy as np

TOO_LOW = 0.5
"""At or below this reliability noise makes up half of an axis's variance, and nothing is corrected."""


@dataclass(frozen=True, slots=True)
class Attenuation:
    """Pearson's r divided by √(reliability of x · reliability of y) (Spearman 1904, American Journal of
    Psychology 15), kept within [−1, 1].

    The interval's ends are divided by the same number (Hunter and Schmidt 2004, chapter 3): the reliabilities
    count as known. There is no such formula for rank correlations without assuming a distribution.

    Attributes:
        reliability_x, reliability_y: share of an axis's variance over reward models that is not noise; in
            [0, 1].
        estimate, low, high: NaN where a reliability is too low to correct.
        note: why nothing is corrected, in words; None otherwise.
    """

    reliability_x: float
    reliability_y: float
    estimate: float
    low: float
    high: float
    note: str | None


def correct(r: float, low: float, high: float, reliability_x: float, reliability_y: float) -> Attenuation:
    """Correct a Pearson correlation and its interval."""
    if min(reliability_x, reliability_y) <= TOO_LOW:
        axis = "first" if reliability_x <= reliability_y else "second"
        note = (
            f"Reliability of the {axis} axis is {min(reliability_x, reliability_y):.2f}: at least half of "
            "its variance over reward models is measurement noise, which is too much to correct for."
        )
        return Attenuation(reliability_x, reliability_y, np.nan, np.nan, np.nan, note)
    scaled = np.array([r, low, high]) / np.sqrt(reliability_x * reliability_y)
    estimate, low, high = np.clip(scaled, -1.0, 1.0).tolist()
    return Attenuation(reliability_x, reliability_y, estimate, low, high, None)


def reliability(values: np.ndarray, draws: np.ndarray) -> float:
    """1 − (noise variance / variance over reward models), kept within [0, 1].

    Noise that is common to all reward models, such as an easy set of prompts, moves no correlation and
    does not count: the noise variance is the mean over draws of the variance over reward models of the
    deviations from each one's mean draw.

    Args:
        values: shape (n,), not constant.
        draws: measurements of the same with their noise drawn anew, shape (draws, n).
    """
    noise = np.var(draws - draws.mean(axis=0), axis=1, ddof=1).mean()
    return float(np.clip(1 - noise / np.var(values, ddof=1), 0.0, 1.0))
