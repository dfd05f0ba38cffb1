"""Reward models compared where all their policies have come equally far from the initial one."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlhf_eval.analysis.experiment import RunRecord
from rlhf_eval.analysis.frontier import gain, initial
from rlhf_eval.analysis.intervals import LEVEL
from rlhf_eval.analysis.selection import common_kl, equal_kl, places

NO_COMMON_KL = "No KL is common to all finished runs that are no controls: name one with --kl."


@dataclass(frozen=True, slots=True)
class Gain:
    """Mean over seeds of what was gained over the initial policy, with its 95 % interval over seeds; None
    where no reward model has two seeds."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class EqualKLRow:
    """One reward model at the common KL; everything is None where none of its runs comes there.

    Attributes:
        rank: by gold gain, or by proxy gain where a reward model has no gold.
        seeds: how many runs come there, of `n_seeds`.
        gold: gain in gold reward, in the gold reward model's units.
        proxy: gain in the reward model's own reward, in standard deviations of the initial policy's rewards.
        gap: gold minus proxy gain, run by run. The two have different units: it compares reward models with
            each other, and is no amount of anything.
        length_tokens: mean over the runs.
    """

    reward_model: str
    control: bool
    rank: int | None
    seeds: int
    n_seeds: int
    gold: Gain | None
    proxy: Gain | None
    gap: Gain | None
    length_tokens: float | None


@dataclass(frozen=True, slots=True)
class EqualKL:
    """One policy base and algorithm at one KL.

    Attributes:
        kl: nats per completion; None where there is none that every run reaches.
        rows: best first; those that do not come there last.
        words: what a reader must know of the numbers, in sentences.
    """

    policy: str
    algorithm: str
    kl: float | None
    rows: tuple[EqualKLRow, ...]
    words: tuple[str, ...]


def at_equal_kl(runs: Sequence[RunRecord], kl: float | None = None) -> tuple[EqualKL, ...]:
    """Compare finished runs at one KL within each policy base and algorithm.

    Intervals are over seeds. As two or three seeds say next to nothing of the spread of one reward model's,
    the variance between seeds is pooled over reward models, and Student's t has its degrees of freedom. The
    noise of the held-out prompts, which all share, is not in them.

    Args:
        runs: as `load_runs` has them.
        kl: nats per completion; the largest that every run reaches, controls aside, where it is None.
    """
    settings: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for run in runs:
        if run.finished and not run.untrained:
            settings[run.policy, run.algorithm].append(run)
    return tuple(_compared(settings[key], kl) for key in sorted(settings))


def _compared(runs: Sequence[RunRecord], asked: float | None) -> EqualKL:
    kl = common_kl(run.curves for run in runs if not run.control) if asked is None else asked
    names = sorted({run.reward_model for run in runs})
    gains = [_gains([run for run in runs if run.reward_model == name], kl) for name in names]
    columns = {field: _pooled([own[field] for own in gains]) for field in ("gold", "proxy", "gap")}
    reached = [place for place, own in enumerate(gains) if own["kl"]]
    by = "gold" if all(columns["gold"][place] for place in reached) else "proxy"
    scores = {place: found.mean for place in reached if (found := columns[by][place]) is not None}
    rows = [
        EqualKLRow(
            reward_model=name,
            control=any(run.control for run in runs if run.reward_model == name),
            rank=1 + sum(other > scores[place] for other in scores.values()) if place in scores else None,
            seeds=len(own["kl"]),
            n_seeds=sum(run.reward_model == name for run in runs),
            gold=columns["gold"][place],
            proxy=columns["proxy"][place],
            gap=columns["gap"][place],
            length_tokens=float(np.mean(own["length_tokens"])) if own["length_tokens"] else None,
        )
        for place, (name, own) in enumerate(zip(names, gains, strict=True))
    ]
    rows.sort(key=lambda row: (row.rank is None, row.rank or 0, row.reward_model))
    words = (NO_COMMON_KL,) if kl is None else (*_in_words(rows, kl, by), *_jumps_in_words(runs, kl))
    return EqualKL(runs[0].policy, runs[0].algorithm, kl, tuple(rows), words)


def _gains(runs: Sequence[RunRecord], kl: float | None) -> dict[str, list[float]]:
    """What the runs of one reward model that come to the KL gained there, one number a run."""
    found: dict[str, list[float]] = {"kl": [], "gold": [], "proxy": [], "gap": [], "length_tokens": []}
    for run in runs:
        place, start = None if kl is None else equal_kl(run.curves, kl), initial(run)
        if place is None or start is None:
            continue
        gold = gain(place.gold_reward, start.gold_reward)
        proxy = gain(place.proxy_reward, start.proxy_reward)
        gap = None if gold is None or proxy is None else gold - proxy
        values = {"kl": kl, "gold": gold, "proxy": proxy, "gap": gap, "length_tokens": place.length_tokens}
        for field, value in values.items():
            if value is not None:
                found[field].append(value)
    return found


def _pooled(groups: Sequence[Sequence[float]]) -> list[Gain | None]:
    """The mean of each group with an interval from the variance within groups, pooled; None for an empty
    group."""
    from scipy.stats import t

    degrees = sum(len(group) - 1 for group in groups if group)
    squares = sum(float(((np.array(group) - np.mean(group)) ** 2).sum()) for group in groups if group)
    reach = float(t.ppf((1 + LEVEL) / 2, degrees) * np.sqrt(squares / degrees)) if degrees else None
    found: list[Gain | None] = []
    for group in groups:
        mean = float(np.mean(group)) if group else None
        half = None if reach is None or not group else reach / float(np.sqrt(len(group)))
        if mean is None:
            found.append(None)
        elif half is None:
            found.append(Gain(mean, None, None))
        else:
            found.append(Gain(mean, mean - half, mean + half))
    return found


def _in_words(rows: Sequence[EqualKLRow], kl: float, by: str) -> tuple[str, ...]:
    words = [f"Compared at a KL of {kl:.4g} nats per completion (√KL {kl**0.5:.3g})."]
    if by == "proxy" and any(row.seeds for row in rows):
        words.append(
            "Not every reward model has gold reward there, so the order is that of proxy reward: it says how "
            "far each reward model can be pushed, not how good its policies are."
        )
    if any(row.seeds for row in rows) and all(row.seeds < 2 for row in rows):
        words.append("Every reward model has one seed there, so there are no intervals.")
    if absent := [row.reward_model for row in rows if not row.seeds]:
        words.append(f"Never at this KL: {', '.join(absent)}.")
    words += [
        f"{row.reward_model} comes there in {row.seeds} of {row.n_seeds} seeds."
        for row in rows
        if 0 < row.seeds < row.n_seeds
    ]
    return tuple(words)


def _jumps_in_words(runs: Sequence[RunRecord], kl: float) -> list[str]:
    """Which runs are known there by a straight line from the initial policy alone."""
    jumped = set()
    for run in runs:
        trained = [place.kl for place in places(run.curves) if place != initial(run)]
        if trained and 0 < kl < min(trained):
            jumped.add(run.reward_model)
    if not jumped:
        return []
    names = ", ".join(sorted(jumped))
    return [f"Interpolated from the initial policy, as the first checkpoint lies beyond: {names}."]
