"""Frontiers: gold and proxy reward of a reward model's policies over their distance from the initial one, and
where going farther begins to cost gold reward (the overoptimisation point)."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlhf_eval.analysis.experiment import RunRecord
from rlhf_eval.analysis.intervals import percentile_interval
from rlhf_eval.analysis.reward_fit import Fit, Form, Points, draws, fit, together, turns
from rlhf_eval.analysis.selection import Selected, places

FAR = 10.0
"""Times the largest distance trained. A turn beyond that is none: the fit says that reward rises as far as
anyone would go."""
GRID = 50
"""Places at which a fitted curve is given."""


@dataclass(frozen=True, slots=True)
class FrontierPoint:
    """One checkpoint of one run. Gains are over the initial policy as the same run measured it; None where
    the reward is not known.

    Attributes:
        step: of best of n, n.
        distance: √KL, in √nats per completion; 0 for a sampled KL below zero.
    """

    seed: int
    step: float
    kl: float
    distance: float
    proxy_gain: float | None
    gold_gain: float | None


@dataclass(frozen=True, slots=True)
class RewardFit:
    """One reward, gold or proxy, fitted over the distance.

    Attributes:
        initial: reward of the initial policy, mean over the seeds: what to add to gains.
        fit: to the points of all seeds together.
        alpha_low, alpha_high, beta_low, beta_high: 95 % intervals (see `draws`).
        by_seed: each seed fitted alone.
        nearest, farthest: the smallest and the largest distance among the points.
        other_r_squared: how well the other of the two formulas explains the points; for information.
        curve: (distance, gain) along the fit, from 0 to the largest distance trained.
    """

    initial: float
    fit: Fit
    alpha_low: float
    alpha_high: float
    beta_low: float
    beta_high: float
    by_seed: dict[int, Fit]
    nearest: float
    farthest: float
    other_r_squared: float | None
    curve: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Overoptimisation:
    """Where the fitted gold reward turns.

    Attributes:
        distance: d* in √nats; 0 where gold reward falls from the start.
        low, high: 95 % interval; None where it has no end within `FAR` times the largest distance trained.
        kl: d*², in nats.
        gold_gain: of the fit there.
        extrapolated: it lies beyond the largest distance trained, or before the first measured.
        probability: share of the draws in which there is a turn at all.
    """

    distance: float
    low: float | None
    high: float | None
    kl: float
    gold_gain: float
    extrapolated: bool
    probability: float


@dataclass(frozen=True, slots=True)
class Frontier:
    """One reward model under one algorithm.

    Attributes:
        seeds: of the runs that have checkpoints.
        gold, proxy: None where they cannot be fitted; `words` says why.
        overoptimisation: None where gold reward is not seen to turn.
        words: what a reader must know of the numbers, in sentences.
    """

    reward_model: str
    control: bool
    policy: str
    algorithm: str
    form: Form
    seeds: tuple[int, ...]
    points: tuple[FrontierPoint, ...]
    gold: RewardFit | None
    proxy: RewardFit | None
    overoptimisation: Overoptimisation | None
    words: tuple[str, ...]


def frontiers(runs: Sequence[RunRecord], bootstraps: int = 2000) -> tuple[Frontier, ...]:
    """The frontier of each reward model under each policy base and algorithm, in the order of their names;
    of finished runs, the untrained policy aside.

    Args:
        runs: as `load_runs` has them, each reward model at one point of the grid.
    """
    groups: dict[tuple[str, str, str], list[RunRecord]] = defaultdict(list)
    for run in runs:
        if run.finished and not run.untrained:
            groups[run.policy, run.algorithm, run.reward_model].append(run)
    return tuple(_frontier(groups[key], bootstraps) for key in sorted(groups))


def initial(run: RunRecord) -> Selected | None:
    """The initial policy as the run measured it: step 0, or the only one of one sample; None where
    `metrics.jsonl` lacks it."""
    first = 1 if run.config.algorithm.kind == "best_of_n" else 0
    return next((place for place in places(run.curves) if place.step == first), None)


def gain(reward: float | None, start: float | None) -> float | None:
    """How far a reward is above that of the initial policy; None where one is not known."""
    return None if reward is None or start is None else reward - start


def _frontier(runs: Sequence[RunRecord], bootstraps: int) -> Frontier:
    form: Form = "best_of_n" if runs[0].config.algorithm.kind == "best_of_n" else "rl"
    starts = {run.seed: start for run in runs if (start := initial(run)) is not None}
    points = tuple(point for run in runs if run.seed in starts for point in _points(run, starts[run.seed]))
    words = [
        f"Seed {run.seed} is left out: its metrics.jsonl has no checkpoint of the initial policy."
        for run in runs
        if run.seed not in starts
    ]
    golden = any(point.gold_gain is not None for point in points)
    fitted: dict[str, tuple[RewardFit, np.ndarray] | None] = {"gold": None, "proxy": None}
    for reward in ("gold", "proxy") if golden else ("proxy",):
        rewards = [getattr(start, f"{reward}_reward") for start in starts.values()]
        usable, left_out = _usable(form, points, reward)
        words += left_out
        if usable:
            mean = float(np.mean([value for value in rewards if value is not None]))
            fitted[reward] = _fitted(form, mean, usable, bootstraps)
    if not golden:
        words.append("No gold reward was measured, so where overoptimisation begins is not known.")
    gold, proxy = fitted["gold"], fitted["proxy"]
    turn = None if gold is None else _turn(*gold)
    if gold is not None:
        words += [*_turn_in_words(gold[0], turn), *_luck_in_words(form, gold[0])]
    return Frontier(
        reward_model=runs[0].reward_model,
        control=runs[0].control,
        policy=runs[0].policy,
        algorithm=runs[0].algorithm,
        form=form,
        seeds=tuple(sorted(starts)),
        points=points,
        gold=gold and gold[0],
        proxy=proxy and proxy[0],
        overoptimisation=turn,
        words=tuple(words),
    )


def _points(run: RunRecord, start: Selected) -> list[FrontierPoint]:
    return [
        FrontierPoint(
            seed=run.seed,
            step=place.step,
            kl=place.kl,
            distance=float(np.sqrt(max(place.kl, 0.0))),
            proxy_gain=gain(place.proxy_reward, start.proxy_reward),
            gold_gain=gain(place.gold_reward, start.gold_reward),
        )
        for place in places(run.curves)
    ]


def _usable(
    form: Form, points: Sequence[FrontierPoint], reward: str
) -> tuple[dict[int, tuple[Points, Fit]], list[str]]:
    """The points with a distance and a gain of the seeds that can be fitted, each with its fit, and what is
    said of the others."""
    usable, few = {}, []
    for seed in sorted({point.seed for point in points}):
        pairs = [
            (point.distance, value)
            for point in points
            if point.seed == seed and point.distance > 0
            if (value := getattr(point, f"{reward}_gain")) is not None
        ]
        columns = np.array(pairs).reshape(-1, 2).T
        found = fit(form, (columns[0], columns[1]))
        if found is None:
            few.append(seed)
        else:
            usable[seed] = (columns[0], columns[1]), found
    reason = "fewer than three checkpoints with a KL above zero, or all at one KL"
    if not usable:
        return usable, [f"{reward.capitalize()} reward is not fitted: {reason}."]
    return usable, [f"Seed {seed} is not in the fit of {reward} reward: {reason}." for seed in few]


def _fitted(
    form: Form, start: float, usable: dict[int, tuple[Points, Fit]], bootstraps: int
) -> tuple[RewardFit, np.ndarray]:
    """The fit of all seeds, and the draws of α and β, shape (bootstraps, 2)."""
    seeds = [points for points, _ in usable.values()]
    both = together(seeds)
    common, other = fit(form, both), fit("rl" if form == "best_of_n" else "best_of_n", both)
    assert common is not None
    drawn = draws(form, seeds, bootstraps)
    (alpha_low, beta_low), (alpha_high, beta_high) = percentile_interval(drawn)
    grid = np.linspace(0.0, both[0].max(), GRID)
    found = RewardFit(
        initial=start,
        fit=common,
        alpha_low=float(alpha_low),
        alpha_high=float(alpha_high),
        beta_low=float(beta_low),
        beta_high=float(beta_high),
        by_seed={seed: own for seed, (_, own) in usable.items()},
        nearest=float(both[0].min()),
        farthest=float(both[0].max()),
        other_r_squared=other and other.r_squared,
        curve=tuple(zip(grid.tolist(), common.at(grid).tolist(), strict=True)),
    )
    return found, drawn


def _turn(gold: RewardFit, drawn: np.ndarray) -> Overoptimisation | None:
    distance, end = gold.fit.turn, FAR * gold.farthest
    if distance > end:
        return None
    places = turns(gold.fit.form, drawn)
    # Whole draws, not between two: some are infinite.
    low, high = np.quantile(places, [0.025, 0.975], method="closest_observation")
    return Overoptimisation(
        distance=distance,
        low=float(low) if low <= end else None,
        high=float(high) if high <= end else None,
        kl=distance**2,
        gold_gain=float(gold.fit.at(np.array([distance]))[0]),
        extrapolated=not gold.nearest <= distance <= gold.farthest,
        probability=float((places <= end).mean()),
    )


def _turn_in_words(gold: RewardFit, turn: Overoptimisation | None) -> list[str]:
    near, far = f"√KL {gold.nearest:.3g}", f"√KL {gold.farthest:.3g}"
    if turn is None and gold.curve[-1][1] <= 0:
        return ["No overoptimisation point: fitted gold reward does not rise above the initial policy's."]
    if turn is None:
        return [f"No overoptimisation seen: fitted gold reward rises to the end of what was trained ({far})."]
    sentences = []
    if turn.distance < gold.nearest:
        sentences.append(
            f"Fitted gold reward falls over all that was trained ({near} to {far}): where it would "
            "have turned lies before the first checkpoint."
        )
    elif turn.extrapolated:
        sentences.append(
            f"The overoptimisation point (√KL {turn.distance:.3g}) lies beyond what was trained ({far}): it "
            "is extrapolated."
        )
    if turn.high is None:
        share = f"{100 * turn.probability:.0f} %"
        sentences.append(f"Whether gold reward turns is not settled: it does in {share} of the draws.")
    return sentences


def _luck_in_words(form: Form, gold: RewardFit) -> list[str]:
    if len(gold.by_seed) > 1:
        return []
    if form == "best_of_n":
        return [
            "One seed: intervals hold the scatter of its points around the fit alone, and are too short, as "
            "all n share their samples."
        ]
    return [
        "One seed: intervals hold the scatter of one seed's checkpoints around the fit, not training luck."
    ]
