"""Correlation of two columns over reward models: how sure it is, and what it hangs on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlhf_eval.analysis.attenuation import Attenuation, correct, reliability
from rlhf_eval.analysis.coefficient_intervals import kendall_interval, pearson_interval, spearman_interval
from rlhf_eval.analysis.coefficients import COEFFICIENTS, WITHOUT_EACH
from rlhf_eval.analysis.intervals import LEVEL
from rlhf_eval.analysis.permutation import permutation_p

MANY = 200
"""Points above which leaving one out of a group is not worth centring the group again."""
FEW = 10
"""Below this number of reward models the warning in words appears."""


@dataclass(frozen=True, slots=True)
class Coefficient:
    """A correlation coefficient; NaN if it is undefined (fewer than three points, or a constant axis).

    Attributes:
        low, high: 95 % interval for the population of such reward models, measured with such noise
            (see `coefficient_intervals`).
        p: two-sided, of the permutation test.
        leave_one_out_low, leave_one_out_high: range of the coefficient over the removal of each point; NaN
            with fewer than four points.
        most_influential: the point whose removal moves the coefficient most, or makes it undefined.
    """

    estimate: float
    low: float = np.nan
    high: float = np.nan
    p: float = np.nan
    leave_one_out_low: float = np.nan
    leave_one_out_high: float = np.nan
    most_influential: str | None = None

    def __str__(self) -> str:
        """`0.40 [−0.10, 0.55]`."""
        if np.isnan(self.estimate):
            return "undefined"
        interval = "" if np.isnan(self.low) else f" [{self.low:.2f}, {self.high:.2f}]"
        return f"{self.estimate:.2f}{interval}".replace("-", "−")

    def as_json(self) -> dict[str, Any]:
        """The fields; null where undefined."""
        return {name: _null(getattr(self, name)) for name in self.__dataclass_fields__}


UNDEFINED = Coefficient(np.nan), Coefficient(np.nan), Coefficient(np.nan)


@dataclass(frozen=True, slots=True)
class Correlation:
    """Pearson's r, Spearman's ρ and Kendall's τ-b over `n` points.

    Attributes:
        label: which reward models these are.
        warning: why the numbers conclude little, in words; None if nothing is known against them.
        left_out: points without a number on one of the axes.
        attenuation: Pearson's r corrected for measurement noise; None where the noise is unknown.
    """

    label: str
    n: int
    pearson: Coefficient
    spearman: Coefficient
    kendall: Coefficient
    warning: str | None
    left_out: int = 0
    attenuation: Attenuation | None = None

    def as_json(self) -> dict[str, Any]:
        """The documented contract of `rlhf-eval correlate --json`."""
        found: dict[str, Any] = {"label": self.label, "n": self.n}
        found |= {name: getattr(self, name).as_json() for name in COEFFICIENTS}
        found |= {"warning": self.warning, "left_out": self.left_out}
        a = self.attenuation
        corrected = {name: _null(getattr(a, name)) for name in a.__dataclass_fields__} if a else None
        return found | {"corrected_for_attenuation": corrected}


def correlate(
    x: np.ndarray,
    y: np.ndarray,
    x_draws: np.ndarray | None = None,
    y_draws: np.ndarray | None = None,
    label: str = "all",
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> Correlation:
    """Pearson, Spearman and Kendall of two columns.

    Args:
        x, y: shape (n,); points with a NaN are left out and counted.
        x_draws, y_draws: measurements of the same with their noise drawn anew, shape (draws, n); where both
            are given, Pearson's r is corrected for attenuation.
        label: which reward models these are.
        names: of the points; numbers from 1 if not given.
        seed: of the permutation test.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    there = np.isfinite(x) & np.isfinite(y)
    every = names or [str(i + 1) for i in range(len(x))]
    names = [name for name, is_there in zip(every, there, strict=True) if is_there]
    left_out = int((~there).sum())
    x, y = x[there], y[there]
    found = _coefficients(x, y, names, len(x), None, seed)
    r = found[0]
    attenuation = None
    if x_draws is not None and y_draws is not None and not np.isnan(r.estimate):
        reliabilities = reliability(x, x_draws[:, there]), reliability(y, y_draws[:, there])
        attenuation = correct(r.estimate, r.low, r.high, *reliabilities)
    return Correlation(label, len(x), *found, _warning(r, len(x)), left_out, attenuation)


def correlate_within(
    x: np.ndarray,
    y: np.ndarray,
    groups: Sequence[str],
    label: str = "within groups",
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> Correlation:
    """Pooled correlation within groups: of the deviations from each group's means.

    Groups with one member have none. Every group's mean but one takes a point from the n of intervals;
    the permutation test exchanges members of a group only. It is undefined with fewer than two such groups,
    and the warning says so.

    Args:
        x, y: shape (n,).
        groups: of each point.
    """
    x, y, of_point = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64), np.asarray(groups)
    there = np.isfinite(x) & np.isfinite(y) & (of_point != "")
    values, counts = np.unique(of_point[there], return_counts=True)
    several = values[counts >= 2]
    kept = np.flatnonzero(there & np.isin(of_point, several))
    every = names or [str(i + 1) for i in range(len(x))]
    if len(several) < 2:
        warning = "Fewer than two groups have two members or more: nothing can be said of within and across."
        return Correlation(label, len(kept), *UNDEFINED, warning, len(every) - len(kept))
    own = np.unique(of_point[kept], return_inverse=True)[1]
    n = len(kept) - len(several) + 1
    x, y = _deviations(x[kept], own), _deviations(y[kept], own)
    found = _coefficients(x, y, [every[i] for i in kept.tolist()], n, own, seed)
    return Correlation(label, len(kept), *found, _warning(found[0], n), len(every) - len(kept))


def correlate_across(
    x: np.ndarray, y: np.ndarray, groups: Sequence[str], label: str = "across groups", seed: int = 0
) -> Correlation:
    """Correlation of the groups' means; a group is one point, whatever its size."""
    x, y, of_point = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64), np.asarray(groups)
    there = np.isfinite(x) & np.isfinite(y) & (of_point != "")
    names = sorted(set(of_point[there].tolist()))
    means = np.array([[axis[there & (of_point == name)].mean() for name in names] for axis in (x, y)])
    return correlate(*means.reshape(2, -1), label=label, names=names, seed=seed)


def _coefficients(
    x: np.ndarray, y: np.ndarray, names: Sequence[str], n: int, groups: np.ndarray | None, seed: int
) -> tuple[Coefficient, Coefficient, Coefficient]:
    """Pearson, Spearman and Kendall over the points; `n` counts them as the intervals do."""
    if n < 3 or np.isnan(COEFFICIENTS["pearson"](x, y)):
        return UNDEFINED
    p = permutation_p(x, y, groups, seed)

    def coefficient(name: str) -> Coefficient:
        function = COEFFICIENTS[name]
        estimate = function(x, y)
        without = _without_each(name, x, y, groups)
        if name == "pearson":
            low, high = pearson_interval(estimate, without, n)
        else:
            low, high = {"spearman": spearman_interval, "kendall": kendall_interval}[name](estimate, n)
        influential = None
        range_low = range_high = np.nan
        if n > 3:
            change = np.where(np.isnan(without), np.inf, np.abs(without - estimate))
            influential = names[int(change.argmax())]
            if np.isfinite(without).any():
                range_low, range_high = np.nanmin(without), np.nanmax(without)
        return Coefficient(
            float(estimate),
            float(low),
            float(high),
            p[name],
            float(range_low),
            float(range_high),
            influential,
        )

    return coefficient("pearson"), coefficient("spearman"), coefficient("kendall")


def _without_each(name: str, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """The coefficient without each point, shape (points,); within groups, means are taken anew, but not of
    more than `MANY` points, of which one hardly moves them."""
    if groups is None or len(x) > MANY:
        return WITHOUT_EACH[name](x, y)
    values = []
    for i in range(len(x)):
        rest = np.delete(np.arange(len(x)), i)
        rest = rest[(groups[rest] != groups[i]) | ((groups[rest] == groups[i]).sum() > 1)]
        deviations = [_deviations(axis[rest], groups[rest]) for axis in (x, y)]
        values.append(COEFFICIENTS[name](*deviations))
    return np.array(values, dtype=np.float64)


def _deviations(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Differences to the mean of each one's group, rounded so that equal ones stay equal."""
    own = np.unique(groups, return_inverse=True)[1]
    size = np.abs(values).max() or 1.0
    return np.round((values - (np.bincount(own, values) / np.bincount(own))[own]) / size, 12) * size


def _warning(r: Coefficient, n: int) -> str | None:
    """What a reader must know before a conclusion; `r` is Pearson's."""
    sentences = []
    if n < 3:
        return f"{n} reward model{'s' * (n != 1)}: no correlation can be computed from fewer than three."
    if np.isnan(r.estimate):
        return "One of the axes is constant: no correlation is defined."
    if n < FEW:
        sentences.append(
            f"Only {n} reward models: even without noise, Pearson's r between unrelated quantities "
            f"would reach ±{_critical(n):.2f} one time in twenty."
        )
    if r.most_influential is not None and _hangs_on_one(r, n):
        span = f"{r.leave_one_out_low:.2f} to {r.leave_one_out_high:.2f}".replace("-", "−")
        span = "an undefined value" if np.isnan(r.leave_one_out_low) else span
        sentences.append(
            f"The conclusion hangs on one point: removing single reward models takes Pearson's r to {span}, "
            f"and {r.most_influential} moves it most."
        )
    return " ".join(sentences) or None


def _hangs_on_one(r: Coefficient, n: int) -> bool:
    """Whether removing one point can change the sign of r, or take it back to what chance would give."""
    ends = np.array([r.leave_one_out_low, r.leave_one_out_high])
    if np.isnan(ends).any() or ends[0] * ends[1] <= 0:
        return True
    return bool(abs(r.estimate) > _critical(n) and np.abs(ends).min() <= _critical(n - 1))


def _critical(n: int) -> float:
    """|r| that uncorrelated normal data exceed with probability 5 % (t-test of Pearson's r)."""
    from scipy.stats import t

    quantile = t.ppf((1 + LEVEL) / 2, n - 2)
    return float(quantile / np.sqrt(n - 2 + quantile**2))


def _null(value: Any) -> Any:
    return None if isinstance(value, float) and np.isnan(value) else value
