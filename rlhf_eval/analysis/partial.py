"""Partial correlation: what two columns share beyond what others explain."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlhf_eval.analysis.coefficients import pearson
from rlhf_eval.analysis.intervals import LEVEL


@dataclass(frozen=True, slots=True)
class PartialCorrelation:
    """Pearson's r of two columns after a linear fit on the given ones was taken out of both.

    Attributes:
        given: names of the columns taken out.
        n: points with all numbers.
        estimate, low, high, p: Fisher's z with n − k − 3 (Fisher 1924, Metron 3) and the t-test with
            n − k − 2 degrees of freedom, k columns taken out; NaN where undefined.
        warning: why it is undefined; None otherwise.
    """

    given: tuple[str, ...]
    n: int
    estimate: float
    low: float
    high: float
    p: float
    warning: str | None

    def as_json(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in values.items()} | {
            "given": list(self.given)
        }


def partial_correlation(x: np.ndarray, y: np.ndarray, given: Mapping[str, np.ndarray]) -> PartialCorrelation:
    """Partial correlation of x and y, shape (n,), given named columns of the same shape; points with a NaN
    are left out."""
    from scipy.stats import norm, t

    names = tuple(given)
    columns = np.column_stack([x, y, *given.values()]).astype(np.float64)
    columns = columns[np.isfinite(columns).all(axis=1)]
    n, k = len(columns), len(names)
    if n <= k + 3:
        warning = f"{n} reward models have all of it; a partial correlation given {k} needs {k + 4} or more."
        return PartialCorrelation(names, n, np.nan, np.nan, np.nan, np.nan, warning)
    spread = np.ptp(columns, axis=0)
    scaled = (columns - columns.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    design = np.column_stack([np.ones(n), scaled[:, 2:]])
    rest = scaled[:, :2] - design @ np.linalg.lstsq(design, scaled[:, :2], rcond=None)[0]
    # What is left of a column that the given ones explain wholly is rounding error.
    rest = np.where(np.abs(rest).max(axis=0) > 1e-9, rest, 0.0)
    r = float(pearson(rest[:, 0], rest[:, 1]))
    if np.isnan(r):
        warning = "The columns taken out explain one of the axes wholly, or it is constant."
        return PartialCorrelation(names, n, np.nan, np.nan, np.nan, np.nan, warning)
    z, half = np.arctanh(np.clip(r, -1 + 1e-15, 1 - 1e-15)), norm.ppf((1 + LEVEL) / 2) / np.sqrt(n - k - 3)
    degrees = n - k - 2
    statistic = abs(r) * np.sqrt(degrees / max(1 - r**2, 1e-300))
    low, high, p = np.tanh(z - half), np.tanh(z + half), 2 * t.sf(statistic, degrees)
    return PartialCorrelation(names, n, r, float(low), float(high), float(p), None)
