"""Statistics of items scored twice, as published and changed: the drop of accuracy, and whether it is larger
than that of a panel of reward models with open data.

Credits are those of `Summary.right`: per item in [0, 1]. Every item that takes part counts the same.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from rlhf_eval.benchmarks.statistics import CELLS, LEVEL, numbered

DRAWS = 4000


@dataclass(frozen=True, slots=True)
class Drop:
    """What a change of the texts did to one reward model.

    Attributes:
        n: number of items.
        original, variant: accuracy, in percent.
        drop: `original` − `variant`, in points; negative if the change helped.
        low, high: 95 % interval of `drop`, in points.
        fell, rose: number of prompts whose credit is lower, higher than before.
        p: exact two-sided p of McNemar's test.
    """

    n: int
    original: float
    variant: float
    drop: float
    low: float
    high: float
    fell: int
    rose: int
    p: float


@dataclass(frozen=True, slots=True)
class Excess:
    """How much further the audited reward model fell than the panel.

    Attributes:
        drop: of the audited reward model, in points.
        panel: the drop of every member, in points.
        panel_drop: their mean.
        difference: `drop` − `panel_drop`, in points.
        low, high: its 95 % interval.
        p: two-sided, of no difference.
    """

    drop: float
    panel: tuple[float, ...]
    panel_drop: float
    difference: float
    low: float
    high: float
    p: float


def paired_drop(original: np.ndarray, variant: np.ndarray, prompts: Sequence[Hashable]) -> Drop:
    """The drop of accuracy from the original items to their variants.

    Interval: Tango's score interval (Tango 1998, Statistics in Medicine 17:891–908) if credits are whole and
    no prompt is repeated; it has a width where nothing changed too (±z²/(n + z²)). Else the percentile
    bootstrap over prompts, which draws all items of a prompt together.
    p: McNemar's exact test, fell ~ Binomial(fell + rose, ½). Its trials are prompts: several items of one
    prompt are one trial, which fell if their credits sum to less than before. The same rule covers fractional
    credits, where it is the sign test: how far a credit moved does not enter.

    Args:
        original, variant: credits of the same items in the same order, shape (items,), at least one.
        prompts: per item, what tells prompts apart (`statistics.prompts_of` the original items).
    """
    change = original - variant
    sums_C, counts_C = _by_prompt(change, prompts)
    fell, rose = int((sums_C > 1e-9).sum()), int((sums_C < -1e-9).sum())
    n = len(change)
    if len(sums_C) == n and np.isin([original, variant], (0.0, 1.0)).all():
        low, high = tango(fell, rose, n)
    else:
        low, high = np.quantile(_draws(sums_C, counts_C), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Drop(
        n=n,
        original=100 * float(original.mean()),
        variant=100 * float(variant.mean()),
        drop=100 * float(change.mean()),
        low=100 * float(low),
        high=100 * float(high),
        fell=fell,
        rose=rose,
        p=mcnemar(fell, rose),
    )


def drop_against_panel(
    original: np.ndarray,
    variant: np.ndarray,
    panel: Sequence[tuple[np.ndarray, np.ndarray]],
    prompts: Sequence[Hashable],
) -> Excess:
    """The audited reward model's drop less the mean drop of the panel.

    Prompts are drawn (percentile bootstrap) for all reward models together, so what makes a variant hard for
    all cancels. The panel is taken as it is: the interval says nothing of other members. p inverts the
    interval: it is below .05 where that leaves out 0, and at least 2/(draws + 1).

    Args:
        original, variant: credits of the audited reward model, shape (items,), at least one.
        panel: the same two of every member, on the same items; at least one member.
        prompts: as in `paired_drop`.
    """
    change = original - variant
    changes_MI = np.array([before - after for before, after in panel])
    excess = change - changes_MI.mean(axis=0)
    draws = _draws(*_by_prompt(excess, prompts))
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    tail = min(int((draws <= 1e-12).sum()), int((draws >= -1e-12).sum()))
    return Excess(
        drop=100 * float(change.mean()),
        panel=tuple(100 * float(mean) for mean in changes_MI.mean(axis=1)),
        panel_drop=100 * float(changes_MI.mean()),
        difference=100 * float(excess.mean()),
        low=100 * float(low),
        high=100 * float(high),
        p=min(1.0, 2 * (tail + 1) / (DRAWS + 1)),
    )


def mcnemar(fell: int, rose: int) -> float:
    """Exact two-sided p that discordant items fall and rise equally often; 1 where there are none."""
    from scipy.stats import binomtest

    return float(binomtest(fell, fell + rose).pvalue) if fell + rose else 1.0


def tango(fell: int, rose: int, n: int) -> tuple[float, float]:
    """Tango's score interval of (fell − rose)/n for matched pairs, as shares.

    Its ends are the differences Δ that the score test does not refuse,
    (fell − rose − nΔ)² ≤ z²·n(2q + Δ(1 − Δ)), where q is the share of rises that is most likely given Δ.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    z = norm.ppf((1 + LEVEL) / 2)
    estimate = (fell - rose) / n

    def beyond(delta: float) -> float:
        b = (2 * n - fell + rose) * delta - fell - rose
        c = -rose * delta * (1 - delta)
        q = (np.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
        return (fell - rose - n * delta) ** 2 - z**2 * n * (2 * q + delta * (1 - delta))

    def limit(end: float) -> float:
        # At the estimate itself the test's variance may be 0, so the search begins a little beside it.
        beside = estimate + 1e-9 * (end - estimate)
        return end if estimate == end else brentq(beyond, end, beside)  # type: ignore[return-value]

    return limit(-1.0), limit(1.0)


def _by_prompt(values: np.ndarray, prompts: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the values of every prompt, shape (prompts,)."""
    cluster_I = numbered(prompts)
    return np.bincount(cluster_I, weights=values), np.bincount(cluster_I).astype(float)


def _draws(sums_C: np.ndarray, counts_C: np.ndarray) -> np.ndarray:
    """Bootstrap means over prompts, shape (draws,)."""
    rng = np.random.default_rng(0)
    prompts = len(sums_C)
    share = np.full(prompts, 1 / prompts)
    step = max(1, CELLS // prompts)
    sizes = [min(step, DRAWS - start) for start in range(0, DRAWS, step)]
    times = (rng.multinomial(prompts, share, size=size) for size in sizes)
    return np.concatenate([(times_BC @ sums_C) / (times_BC @ counts_C) for times_BC in times])
