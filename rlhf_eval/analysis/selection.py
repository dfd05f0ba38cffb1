"""Which checkpoint of a run to look at, and which point of the grid a reward model is ranked at.

More training moves a policy farther from the initial one; proxy reward goes on rising where gold reward bends
(Gao et al. 2023). So policies are compared where training ended, where each did best on held-out prompts, and
where all have come equally far. Nothing here reads AlpacaEval or Arena-Hard: what chooses must not be what
measures.

A *curve* is a run's checkpoint rows of `metrics.jsonl` by step: `step`, `kl` (nats per completion),
`proxy_reward`, `gold_reward` (None where there is no gold reward model), `length_tokens`. Of best-of-N,
`step` is N. A row without a finite KL is left out.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from rlhf_eval.config.grid import Point, point_in_words

Curve = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Selected:
    """A place on a curve. `step` is fractional between two checkpoints; what is not known is None."""

    step: float
    kl: float
    proxy_reward: float | None
    gold_reward: float | None
    length_tokens: float | None


def places(curve: Curve) -> list[Selected]:
    """The checkpoints with a finite KL, in the order of the curve; a reward that is not finite is None."""
    return [
        Selected(
            step=row["step"],
            kl=row["kl"],
            proxy_reward=_finite(row.get("proxy_reward")),
            gold_reward=_finite(row.get("gold_reward")),
            length_tokens=_finite(row.get("length_tokens")),
        )
        for row in curve
        if _finite(row.get("kl")) is not None
    ]


def last(curve: Curve) -> Selected | None:
    """The last checkpoint; None where there is none."""
    found = places(curve)
    return found[-1] if found else None


def peak(curve: Curve) -> Selected | None:
    """The trained checkpoint (step > 0) with the highest held-out gold reward, or proxy reward where the run
    has no gold; of equal ones the first. None where there is none."""
    trained = [place for place in places(curve) if place.step > 0]
    measured = [(_reward(place, has_gold(curve)), place) for place in trained]
    rewarded = [(reward, place) for reward, place in measured if reward is not None]
    return max(rewarded, key=lambda pair: pair[0])[1] if rewarded else None


def equal_kl(curve: Curve, kl: float) -> Selected | None:
    """Where a run first is at a KL, walking along its training: at a checkpoint, or between the two that
    bracket it, everything linear in KL. None where the run never is there, or `kl` is not finite."""
    found = places(curve)
    for place, following in pairwise([*found, *found[-1:]]):
        if place.kl == kl:
            return place
        if min(place.kl, following.kl) < kl < max(place.kl, following.kl):
            return _between(place, following, kl)
    return None


def common_kl(curves: Iterable[Curve]) -> float | None:
    """The largest KL at which every curve is somewhere: `equal_kl` finds a place on each.

    A curve is at every KL between its smallest and its largest. So this is the smallest of the largest ones,
    if no curve lies wholly beyond it; None otherwise, and where a curve has no checkpoint or there is none.
    """
    reached = [[place.kl for place in places(curve)] for curve in curves]
    if not reached or not all(reached):
        return None
    common = min(max(kls) for kls in reached)
    return common if all(min(kls) <= common for kls in reached) else None


def has_gold(curve: Curve) -> bool:
    """Whether a gold reward model measured the run."""
    return any(_finite(row.get("gold_reward")) is not None for row in curve)


@dataclass(frozen=True, slots=True)
class GridChoice:
    """The point of the grid that a reward model is ranked at.

    Attributes:
        point: None if no run of the reward model has a peak.
        reward: mean over seeds of the held-out reward at the peak.
        gold: whether that is gold reward; else it is the proxy.
        missing: the points and seeds of the grid without a finished run. The choice is among fewer then.
    """

    point: Point | None
    reward: float | None
    gold: bool
    missing: tuple[tuple[Point, int], ...]


def choose(curves: Mapping[tuple[Point, int], Curve], points: Sequence[Point]) -> GridChoice:
    """Choose a reward model's point of the grid: the highest mean over seeds of held-out reward at each run's
    peak; gold reward if all of its runs have that, else proxy reward.

    Points with fewer seeds than others stand back, so that none wins by the luck of few; of equal ones the
    first in the grid is taken.

    Args:
        curves: of the reward model's finished runs, by point and seed.
        points: all points of the grid.
    """
    gold = all(map(has_gold, curves.values()))
    seeds = sorted({seed for _, seed in curves})
    peaks = {
        key: reward for key, curve in curves.items() if (reward := _reward(peak(curve), gold)) is not None
    }
    of_point = {point: [peaks[point, seed] for seed in seeds if (point, seed) in peaks] for point in points}
    counted = {
        point: (len(rewards), sum(rewards) / len(rewards)) for point, rewards in of_point.items() if rewards
    }
    best = max(counted, key=lambda point: counted[point]) if counted else None
    missing = tuple((point, seed) for point in points for seed in seeds if (point, seed) not in curves)
    return GridChoice(best, None if best is None else counted[best][1], gold, missing)


def choices_in_words(choices: Mapping[str, GridChoice]) -> tuple[str, ...]:
    """What a reader must know of the choices, by reward model; nothing where there are none."""
    notes = []
    chosen = [f"{name} {point_in_words(choice.point)}" for name, choice in choices.items() if choice.point]
    if chosen:
        reward = "gold" if all(choice.gold for choice in choices.values()) else "proxy"
        best = f"best held-out {reward} reward at the peak"
        notes.append(f"Ranked at the point of the grid with the {best}: {'; '.join(chosen)}.")
    for name, choice in choices.items():
        if choice.missing:
            missing = "; ".join(f"{point_in_words(point)} seed {seed}" for point, seed in choice.missing)
            notes.append(f"The grid of {name} is incomplete, no finished run at {missing}.")
    return tuple(notes)


def _between(one: Selected, other: Selected, kl: float) -> Selected:
    share = (kl - one.kl) / (other.kl - one.kl)

    def at(start: float | None, end: float | None) -> float | None:
        return None if start is None or end is None else (1 - share) * start + share * end

    return Selected(
        step=(1 - share) * one.step + share * other.step,
        kl=kl,
        proxy_reward=at(one.proxy_reward, other.proxy_reward),
        gold_reward=at(one.gold_reward, other.gold_reward),
        length_tokens=at(one.length_tokens, other.length_tokens),
    )


def _reward(place: Selected | None, gold: bool) -> float | None:
    if place is None:
        return None
    return place.gold_reward if gold else place.proxy_reward


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
