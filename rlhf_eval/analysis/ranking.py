"""Reward models ranked by the policies they produced, with the uncertainty of score and rank."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlhf_eval.analysis.coefficients import spearman
from rlhf_eval.analysis.experiment import RunRecord
from rlhf_eval.analysis.intervals import LEVEL, nested_bootstrap, percentile_interval
from rlhf_eval.analysis.metrics import METRICS, Metric
from rlhf_eval.analysis.selection import choices_in_words
from rlhf_eval.errors import ConfigError, DataError, did_you_mean


@dataclass(frozen=True, slots=True)
class RankRow:
    """One reward model. Scores and accuracies in percent; intervals hold 95 %.

    Attributes:
        score, low, high: mean over seeds of the metric, and its bootstrap interval.
        rank, rank_low, rank_high: 1 = best among candidates and controls together; equal scores share
            the best rank, while the rank interval holds every place they could take.
        benchmark, benchmark_low, benchmark_high: accuracy on the chosen benchmark; None if not measured.
        gold: mean gold utility of the policies' answers, in the gold reward model's unit, or None.
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
        notes: what a reader must know about the intervals and the choice of a point of the grid.
        draws: shape (bootstraps, rows): scores in percent, columns in the order of `rows`.
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

    def as_json(self) -> list[dict[str, Any]]:
        """The documented contract of `rlhf-eval rank --json`."""
        names = (
            "reward_model",
            "control",
            "n_seeds",
            "score",
            "low",
            "high",
            "rank",
            "rank_low",
            "rank_high",
            "benchmark",
        )
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
        bootstraps: replicates of the bootstrap over prompts and seeds (see `nested_bootstrap`).
            Length-controlled win rates are resampled as fitted: the fit itself is not repeated.
        seed: of the bootstrap.

    Raises:
        ConfigError: no such metric or benchmark.
        DataError: no finished run of a reward model, or one that lacks the metric.
    """
    if metric not in METRICS:
        raise ConfigError(f"There is no metric '{metric}'.", did_you_mean(metric, METRICS))
    chosen = METRICS[metric]
    finished = [run for run in runs if run.finished]
    names = sorted({run.reward_model for run in finished if not run.untrained})
    if not names:
        raise DataError(
            "No run of a reward model is finished, only the untrained policy.",
            "Wait for the others, or start their commands again: each continues where it stopped.",
        )
    benchmarks = tuple(dict.fromkeys(name for run in finished for name in run.benchmarks))
    if benchmark is not None and benchmark not in benchmarks:
        raise ConfigError(
            f"No run has a benchmark '{benchmark}'.",
            did_you_mean(benchmark, benchmarks) if benchmarks else "These runs measured none.",
        )
    benchmark = benchmark or next(iter(benchmarks), None)

    baselines = sorted({run.reward_model for run in finished if run.untrained})[:1]
    groups = [[run for run in finished if run.reward_model == name] for name in [*names, *baselines]]
    values = _value_matrix(chosen, [run for group in groups for run in group])
    membership = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    bootstrap = nested_bootstrap(100 * values, membership, bootstraps, seed)
    # First-order shares of a length-controlled fit, and the widening for few seeds, can leave the scale.
    every_draw = np.clip(bootstrap.draws, 0.0, 100.0)
    low, high = percentile_interval(every_draw)

    scores, draws = bootstrap.scores[: len(names)], every_draw[:, : len(names)]
    ranks = _ranks(scores[None], "min")[0]
    rank_low = np.quantile(_ranks(draws, "min"), (1 - LEVEL) / 2, axis=0, method="inverted_cdf")
    rank_high = np.quantile(_ranks(draws, "max"), (1 + LEVEL) / 2, axis=0, method="inverted_cdf")
    rows = [
        RankRow(
            reward_model=name,
            control=group[0].control,
            n_seeds=len(group),
            score=float(scores[i]),
            low=float(low[i]),
            high=float(high[i]),
            rank=int(ranks[i]),
            rank_low=int(rank_low[i]),
            rank_high=int(rank_high[i]),
            **_benchmark_fields(group, benchmark),
            gold=_gold(group),
            scores=_summary(group),
            benchmarks={b: value for b in benchmarks if (value := _accuracy(group, b)) is not None},
        )
        for i, (name, group) in enumerate(zip(names, groups, strict=False))
    ]
    choices = {run.reward_model: run.choice for run in finished if run.choice}
    order = sorted(range(len(rows)), key=lambda i: (-rows[i].score, rows[i].reward_model))
    untrained = None
    if baselines:
        untrained = Untrained(
            name=baselines[0],
            n_seeds=len(groups[-1]),
            score=float(bootstrap.scores[-1]),
            low=float(low[-1]),
            high=float(high[-1]),
            gold=_gold(groups[-1]),
            scores=_summary(groups[-1]),
        )
    return Ranking(
        metric=chosen,
        benchmark=benchmark,
        benchmarks=benchmarks,
        rows=tuple(rows[i] for i in order),
        untrained=untrained,
        n_prompts=len(values),
        spearman_gold=_spearman_gold(rows),
        skipped=tuple((run.path.name, run.state) for run in runs if not run.finished),
        notes=(*_notes(rows, len(values)), *choices_in_words(choices)),
        draws=draws[:, order],
    )


def _value_matrix(metric: Metric, runs: list[RunRecord]) -> np.ndarray:
    """Shape (prompts, runs), aligned by prompt id; NaN where a run has no verdict."""
    for run in runs:
        scores = run.per_prompt.get(metric.evaluation)
        if scores is None or np.isnan(getattr(scores, metric.prompt_field)).all():
            raise DataError(
                f"{run.path.name} has no {metric.name}.",
                "Choose another --metric, or delete the run's stages/score folder and run it again.",
            )
    every = dict.fromkeys(id for run in runs for id in run.per_prompt[metric.evaluation].prompt_ids)
    row_of = {id: row for row, id in enumerate(every)}
    values = np.full((len(row_of), len(runs)), np.nan)
    for column, run in enumerate(runs):
        scores = run.per_prompt[metric.evaluation]
        values[[row_of[id] for id in scores.prompt_ids], column] = getattr(scores, metric.prompt_field)
    return values


def _ranks(scores: np.ndarray, ties: str) -> np.ndarray:
    """Ranks within each row, 1 = highest score."""
    from scipy.stats import rankdata

    return rankdata(-scores, method=ties, axis=1)


def _mean(values: list[Any]) -> float | None:
    """Mean of the numbers there are; None if there are none."""
    numbers = [float(value) for value in values if value is not None and np.isfinite(value)]
    return sum(numbers) / len(numbers) if numbers else None


def _accuracy(group: list[RunRecord], benchmark: str) -> float | None:
    return _mean([run.benchmarks.get(benchmark, {}).get("accuracy") for run in group])


def _benchmark_fields(group: list[RunRecord], benchmark: str | None) -> dict[str, Any]:
    """Accuracy and interval; the seeds share one reward model and so one result."""
    results = [run.benchmarks.get(benchmark or "", {}) for run in group]

    def mean_of(key: str) -> float | None:
        return _mean([result.get(key) for result in results])

    n = mean_of("n")
    return {
        "benchmark": mean_of("accuracy"),
        "benchmark_low": mean_of("low"),
        "benchmark_high": mean_of("high"),
        "benchmark_n": None if n is None else round(n),
    }


def _gold(group: list[RunRecord]) -> float | None:
    return _mean([(run.scores.get("gold") or {}).get("mean") for run in group])


def _summary(group: list[RunRecord]) -> dict[str, float]:
    means = {
        m.name: _mean([run.scores.get(m.evaluation, {}).get(m.summary_field) for run in group])
        for m in METRICS.values()
    }
    return {name: mean for name, mean in means.items() if mean is not None}


def _spearman_gold(rows: list[RankRow]) -> float | None:
    pairs = [(row.score, row.gold) for row in rows if row.gold is not None]
    if len(pairs) < 3:
        return None
    estimate = float(spearman(*np.array(pairs).T))
    return None if np.isnan(estimate) else estimate


def _notes(rows: list[RankRow], n_prompts: int) -> tuple[str, ...]:
    single = [row.reward_model for row in rows if row.n_seeds == 1]
    seeds = "" if len(single) == len(rows) else " and the seeds"
    notes = [f"Intervals: 95 %, from a paired bootstrap over {n_prompts} prompts{seeds}."]
    if len(single) == len(rows):
        notes.append("One seed per reward model: the intervals cover prompts only, not training luck.")
    elif single:
        notes.append(
            f"One seed only for {', '.join(single)}: those intervals cover prompts only, not training luck."
        )
    few = min((row.n_seeds for row in rows if row.n_seeds > 1), default=None)
    if few is not None and few < 4:
        notes.append(
            f"{few} seeds say little about the spread between seeds: where training luck is large, "
            "the intervals are too narrow."
        )
    return tuple(notes)
