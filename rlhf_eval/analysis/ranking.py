"""Reward models ranked by the policies they produced, with the uncertainty of score and rank."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from rlhf_eval.analysis.comparisons import (
    best_controls,
    compared_with,
    leads,
    probability_best,
    separable,
    tiers,
)
from rlhf_eval.analysis.experiment import RunRecord
from rlhf_eval.analysis.intervals import LEVEL, Estimates, percentile_interval, rank_interval
from rlhf_eval.analysis.metrics import Metric
from rlhf_eval.analysis.scores import Group, estimates_of, metric_named
from rlhf_eval.analysis.selection import choices_in_words
from rlhf_eval.analysis.summaries import (
    accuracy,
    benchmark_fields,
    gold,
    gradient_notes,
    scores_of,
    spearman_gold,
    training_fields,
)
from rlhf_eval.errors import ConfigError, DataError, did_you_mean


@dataclass(frozen=True, slots=True)
class RankRow:
    """One reward model. Scores and accuracies in percent; intervals hold 95 %.

    Attributes:
        score, low, high: mean over seeds of the metric, and its bootstrap interval.
        rank, rank_low, rank_high: 1 = best among candidates and controls together; equal scores share
            the best rank, while the rank interval holds every place they could take.
        probability_best: share of the draws in which it is first among the candidates; None for a control.
        tier: 1 = best; the members of a tier cannot be told apart from its top (Holm over all pairs).
        difference, difference_low, difference_high: its lead over the untrained policy, in points; None
            without one.
        better_than_untrained: whether that lead is proven (Holm over the reward models); None without one.
        control_difference, …: its lead over the best control (another one, for a control); None without one.
        benchmark, benchmark_low, benchmark_high: accuracy on the chosen benchmark; None if not measured.
        gold: mean gold utility of the policies' answers, in the gold reward model's unit, or None.
        training_steps, no_gradient_steps: summed over its runs; in the latter the rewards gave the policy
            nothing to learn from.
        warning: in words, if those are more than half of the steps of some run; None otherwise.
        scores: every metric of METRICS that the runs hold.
        benchmarks: accuracy on every benchmark.
    """

    reward_model: str
    control: bool
    n_seeds: int
    score: float
    low: float
    high: float
    rank: int
    rank_low: int
    rank_high: int
    benchmark: float | None
    benchmark_low: float | None
    benchmark_high: float | None
    benchmark_n: int | None
    gold: float | None
    probability_best: float | None
    tier: int
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    better_than_untrained: bool | None
    control_difference: float | None
    control_difference_low: float | None
    control_difference_high: float | None
    training_steps: int
    no_gradient_steps: int
    warning: str | None
    scores: dict[str, float]
    benchmarks: dict[str, float]


@dataclass(frozen=True, slots=True)
class Untrained:
    """The policy base without training: the reference line. Percent; `gold` as in RankRow."""

    name: str
    n_seeds: int
    score: float
    low: float
    high: float
    gold: float | None
    scores: dict[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Reward models from best to worst.

    Attributes:
        benchmark: name of the benchmark beside the score; None if no run has one.
        benchmarks: names of all benchmarks, the primary one first.
        spearman_gold: Spearman correlation of score and gold utility over the rows; None without gold
            or with fewer than three rows.
        skipped: unfinished runs and where each one is.
        notes: what a reader must know about the intervals, the choice of a point of the grid, and trainings
            that taught nothing.
        draws: shape (bootstraps, rows): scores in percent, columns in the order of `rows`.
        apart: shape (rows, rows), bool: which pairs can be told apart, Holm over all of them.
    """

    metric: Metric
    benchmark: str | None
    benchmarks: tuple[str, ...]
    rows: tuple[RankRow, ...]
    untrained: Untrained | None
    n_prompts: int
    spearman_gold: float | None
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    draws: np.ndarray = field(repr=False)
    apart: np.ndarray = field(repr=False)

    def as_json(self) -> list[dict[str, Any]]:
        """The documented contract of `rlhf-eval rank --json`."""
        names = [field.name for field in fields(RankRow) if field.name not in ("scores", "benchmarks")]
        return [{name: getattr(row, name) for name in names} for row in self.rows]

    def as_table(self) -> Any:
        """A rich Table for the terminal."""
        from rlhf_eval.analysis.tables import ranking_table

        return ranking_table(self)


def rank(
    runs: Sequence[RunRecord],
    metric: str = "alpaca_eval.win_rate",
    benchmark: str | None = None,
    bootstraps: int = 2000,
    seed: int = 0,
) -> Ranking:
    """Rank the reward models of an experiment.

    Args:
        runs: from `load_runs`; unfinished ones are listed as skipped.
        metric: a key of METRICS.
        benchmark: the benchmark to show beside the score; None takes the experiment's first.
        bootstraps: replicates of the bootstrap over prompts and seeds (see `Estimates.draws`).
            Length-controlled win rates are resampled as fitted: the fit itself is not repeated.
        seed: of the bootstrap.

    Raises:
        ConfigError: no such metric or benchmark.
        DataError: no finished run of a reward model, or one that lacks the metric.
    """
    chosen = metric_named(metric)
    groups = groups_of(runs)
    estimates = estimates_of(list(groups.values()), {chosen: 1.0})
    return ranking_of(chosen, groups, estimates, runs, benchmark, bootstraps, seed)


def groups_of(runs: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """Finished runs by reward model, sorted; the untrained policy comes last.

    Raises:
        DataError: no run of a reward model is finished.
    """
    finished = [run for run in runs if run.finished]
    names = sorted({run.reward_model for run in finished if not run.untrained})
    if not names:
        raise DataError(
            "No run of a reward model is finished, only the untrained policy.",
            "Wait for the others, or start their commands again: each continues where it stopped.",
        )
    names += sorted({run.reward_model for run in finished if run.untrained})[:1]
    groups: dict[str, list[RunRecord]] = {name: [] for name in names}
    for run in finished:
        groups.setdefault(run.reward_model, []).append(run)
    return {name: groups[name] for name in names}


def ranking_of(
    metric: Metric,
    groups: dict[str, list[RunRecord]],
    estimates: Estimates,
    runs: Sequence[RunRecord],
    benchmark: str | None = None,
    bootstraps: int = 2000,
    seed: int = 0,
) -> Ranking:
    """The ranking that estimates of the groups' scores make.

    Args:
        groups: from `groups_of`, in the order of the estimates.
        runs: all of them, the unfinished too.
        benchmark, bootstraps, seed: as in `rank`.

    Raises:
        ConfigError: no such benchmark.
    """
    everything = list(groups.values())
    untrained = next((i for i, group in enumerate(everything) if group[0].untrained), None)
    names = [name for name, group in groups.items() if not group[0].untrained]
    benchmarks, benchmark = _benchmarks(everything, benchmark)

    # Linear influence of a length-controlled fit, and normal luck, can leave the scale.
    draws = np.clip(estimates.draws(bootstraps, seed), 0.0, 100.0)
    low, high = percentile_interval(draws)
    scores = estimates.scores[: len(names)]
    ranks = _ranks(scores[None], "min")[0]
    rank_low, _ = rank_interval(_ranks(draws[:, : len(names)], "min"))
    _, rank_high = rank_interval(_ranks(draws[:, : len(names)], "max"))
    apart = separable(estimates, range(len(names)))
    tier = tiers(scores, apart)
    control = np.array([everything[i][0].control for i in range(len(names))])
    best = probability_best(draws[:, : len(names)], control)
    base_leads = leads("difference", estimates.scores, draws, [untrained] * len(names))
    control_leads = leads("control_difference", estimates.scores, draws, best_controls(scores, control))
    proven = [None] * len(names)
    if untrained is not None:
        p = compared_with(estimates, range(len(names)), untrained)
        proven = [
            bool(one <= 1 - LEVEL and s > estimates.scores[untrained])
            for one, s in zip(p, scores, strict=True)
        ]
    rows = [
        RankRow(
            reward_model=name,
            control=bool(control[i]),
            n_seeds=_seeds(everything[i]),
            score=float(scores[i]),
            low=float(low[i]),
            high=float(high[i]),
            rank=int(ranks[i]),
            rank_low=int(min(rank_low[i], ranks[i])),
            rank_high=int(max(rank_high[i], ranks[i])),
            probability_best=None if control[i] else float(best[i]),
            tier=int(tier[i]),
            **base_leads[i],
            better_than_untrained=proven[i],
            **control_leads[i],
            **benchmark_fields(everything[i], benchmark),
            gold=gold(everything[i]),
            **training_fields(everything[i]),
            scores=scores_of(everything[i]),
            benchmarks={b: value for b in benchmarks if (value := accuracy(everything[i], b)) is not None},
        )
        for i, name in enumerate(names)
    ]
    order = sorted(range(len(rows)), key=lambda i: (-rows[i].score, rows[i].reward_model))
    ranked = tuple(rows[i] for i in order)
    choices = {run.reward_model: run.choice for group in everything for run in group if run.choice}
    n_prompts = sum(len(part) for part in estimates.influence.values())
    return Ranking(
        metric=metric,
        benchmark=benchmark,
        benchmarks=benchmarks,
        rows=ranked,
        untrained=None
        if untrained is None
        else Untrained(
            name=everything[untrained][0].reward_model,
            n_seeds=_seeds(everything[untrained]),
            score=float(estimates.scores[untrained]),
            low=float(low[untrained]),
            high=float(high[untrained]),
            gold=gold(everything[untrained]),
            scores=scores_of(everything[untrained]),
        ),
        n_prompts=n_prompts,
        spearman_gold=spearman_gold(rows),
        skipped=tuple((run.path.name, run.state) for run in runs if not run.finished),
        notes=(*_notes(rows, estimates), *choices_in_words(choices), *gradient_notes(ranked)),
        draws=draws[:, order],
        apart=apart[np.ix_(order, order)],
    )


def _benchmarks(groups: list[list[RunRecord]], benchmark: str | None) -> tuple[tuple[str, ...], str | None]:
    benchmarks = tuple(dict.fromkeys(name for group in groups for run in group for name in run.benchmarks))
    if benchmark is not None and benchmark not in benchmarks:
        raise ConfigError(
            f"No run has a benchmark '{benchmark}'.",
            did_you_mean(benchmark, benchmarks) if benchmarks else "These runs measured none.",
        )
    return benchmarks, benchmark or next(iter(benchmarks), None)


def _ranks(scores: np.ndarray, ties: str) -> np.ndarray:
    """Ranks within each row, 1 = highest score."""
    from scipy.stats import rankdata

    return rankdata(-scores, method=ties, axis=1)


def _seeds(group: Group) -> int:
    """Seeds of a group, in the setting that has the fewest."""
    counts = Counter((run.policy, run.algorithm) for run in group)
    return min(counts.values())


def _notes(rows: list[RankRow], estimates: Estimates) -> tuple[str, ...]:
    """What a reader must know of the intervals."""
    n_prompts = sum(len(part) for part in estimates.influence.values())
    if not estimates.luck:
        return (
            f"Intervals: 95 %, from a paired bootstrap over {n_prompts} prompts.",
            "One seed per reward model: the intervals cover prompts only, not training luck.",
        )
    notes = [
        f"Intervals: 95 %, from a paired bootstrap over {n_prompts} prompts and the spread between seeds, "
        "pooled over reward models."
    ]
    if single := [row.reward_model for row in rows if row.n_seeds == 1]:
        names = ", ".join(single)
        notes.append(f"One seed only for {names}: the spread between the others' seeds is taken for it.")
    degrees = sum(luck.observed for luck in estimates.luck)
    if degrees < 4:
        notes.append(
            f"The spread between seeds has {degrees} degrees of freedom only: intervals are wide for it."
        )
    return tuple(notes)
