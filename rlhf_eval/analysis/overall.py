"""The answer over several metrics, policies and algorithms: an aggregate with stated weights, and whether the
ranking holds in each of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_eval.analysis.coefficients import kendall
from rlhf_eval.analysis.experiment import differences, load_by_setting
from rlhf_eval.analysis.intervals import percentile_interval, weighted_sum
from rlhf_eval.analysis.metrics import Metric
from rlhf_eval.analysis.ranking import Ranking, groups_of, ranking_of
from rlhf_eval.analysis.run_record import RunRecord
from rlhf_eval.analysis.scores import estimates_of, metric_named
from rlhf_eval.config.grid import TRAINING, held_equal
from rlhf_eval.errors import DataError

OWN = (*TRAINING, "policy.", "reward_model.")
"""Beginnings of the fields of a configuration in which settings may differ."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Runs of one experiment with one policy base and one algorithm. `name` says which, in words."""

    name: str
    runs: tuple[RunRecord, ...]

    @property
    def best_of_n(self) -> bool:
        return self.runs[0].config.algorithm.kind == "best_of_n"

    @property
    def policy(self) -> str:
        return self.runs[0].policy


@dataclass(frozen=True, slots=True)
class Cell:
    """One setting and metric with its own ranking, over all reward models that the setting has."""

    setting: str
    metric: Metric
    ranking: Ranking

    @property
    def name(self) -> str:
        return f"{self.setting}, {self.metric.title}"


@dataclass(frozen=True, slots=True)
class Lead:
    """The lead of training against a reward model over choosing the best of N samples with it, in points."""

    setting: str
    reward_model: str
    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class Overall:
    """What all cells say together.

    Attributes:
        settings: those that were ranked.
        ranking: of the aggregate, over the reward models that every setting has. With one cell, its own.
        cells: settings × metrics.
        weights: what each metric counts in a setting's score, summing to 1; settings count alike.
        agreement: Kendall's τ-b between the cells' scores of the candidates they share, shape (cells, cells);
            NaN where they share fewer than three.
        best_of_n: leads over best-of-N, where the settings have both for a policy base.
        left_out: reward models that some setting lacks.
    """

    settings: tuple[Setting, ...]
    ranking: Ranking
    cells: tuple[Cell, ...]
    weights: Mapping[str, float]
    agreement: np.ndarray = field(repr=False)
    best_of_n: tuple[Lead, ...]
    left_out: tuple[str, ...]

    @property
    def runs(self) -> tuple[RunRecord, ...]:
        """Every run once, the untrained policy too, which stands in several settings of one experiment."""
        return tuple({run.path: run for setting in self.settings for run in setting.runs}.values())

    def as_json(self) -> list[dict[str, Any]]:
        """The rows of the aggregate; where there are several cells, with score and rank in each."""
        rows = self.ranking.as_json()
        if len(self.cells) > 1:
            for row in rows:
                row["cells"] = [
                    {"setting": cell.setting, "metric": cell.metric.name}
                    | {name: getattr(own, name) for name in ("score", "low", "high", "rank")}
                    for cell in self.cells
                    for own in cell.ranking.rows
                    if own.reward_model == row["reward_model"]
                ]
        return rows


def load_settings(folders: Sequence[Path]) -> tuple[Setting, ...]:
    """The experiments in these folders, taken apart by policy base and algorithm.

    Raises:
        DataError: as `load_runs`; or two experiments differ in judge, prompts or anything but policy base
            and algorithm, or mean different reward models by one name.
    """
    places = [Path(folder).resolve() for folder in folders]
    if twice := [
        str(folder) for folder, place in zip(folders, places, strict=True) if places.count(place) > 1
    ]:
        raise DataError(f"{twice[0]} is named twice.", "Name every experiment once.")
    loaded = [(Path(folder), runs) for folder in folders for runs in load_by_setting(folder)]
    names = [f"{runs[0].policy} · {_trained(runs)[0].algorithm}" for _, runs in loaded]
    if len(set(names)) < len(names):
        names = [f"{folder.name}: {name}" for (folder, _), name in zip(loaded, names, strict=True)]
    first_of: dict[str, RunRecord] = {}
    for _, runs in loaded:
        _refuse_differences(_trained(loaded[0][1])[0], _trained(runs)[0], OWN)
        # Runs of one setting are comparable already: one of each reward model stands for the others.
        for name, run in {run.reward_model: run for run in _trained(runs)}.items():
            known = first_of.setdefault(name, run)
            _refuse_differences(known, run, tuple(own for own in OWN if own != "reward_model."))
    return tuple(Setting(name, tuple(runs)) for name, (_, runs) in zip(names, loaded, strict=True))


def overall(
    settings: Sequence[Setting],
    weights: Mapping[str, float],
    benchmark: str | None = None,
    bootstraps: int = 2000,
) -> Overall:
    """Rank reward models by a weighted mean of metrics, averaged over settings.

    Prompts are paired across settings; each setting has training luck of its own, shared by a run's metrics.

    Args:
        weights: by metric name, positive; only their ratios matter.

    Raises:
        ConfigError: no such metric or benchmark.
        DataError: a run lacks a metric, or no reward model is in every setting.
    """
    total = sum(weights.values())
    metrics = {metric_named(name): weight / total for name, weight in weights.items()}
    grouped = [groups_of(setting.runs) for setting in settings]
    cells = tuple(
        Cell(setting.name, metric, _cell(setting, groups, metric, benchmark, bootstraps))
        for setting, groups in zip(settings, grouped, strict=True)
        for metric in metrics
    )
    common = [name for name in grouped[0] if all(name in groups for groups in grouped)]
    if not any(not grouped[0][name][0].untrained for name in common):
        raise DataError(
            f"No reward model is finished in all of {', '.join(setting.name for setting in settings)}.",
            "Name experiments that have reward models in common.",
        )
    estimates = [estimates_of([groups[name] for name in common], metrics) for groups in grouped]
    together = {name: [run for groups in grouped for run in groups[name]] for name in common}
    left_out = sorted({name for groups in grouped for name in groups} - set(common))
    if len(cells) == 1:
        ranking = cells[0].ranking
    else:
        ranking = ranking_of(
            _aggregate(metrics, settings),
            together,
            weighted_sum(estimates, [1 / len(settings)] * len(settings)),
            [run for setting in settings for run in setting.runs],
            benchmark,
            bootstraps,
        )
        ranking = replace(ranking, notes=(*ranking.notes, *_notes(metrics, settings, left_out)))
    return Overall(
        settings=tuple(settings),
        ranking=ranking,
        cells=cells,
        weights={metric.name: weight for metric, weight in metrics.items()},
        agreement=_agreement(cells),
        best_of_n=tuple(_leads_over_best_of_n(settings, grouped, metrics, bootstraps)),
        left_out=tuple(left_out),
    )


def _cell(
    setting: Setting,
    groups: dict[str, list[RunRecord]],
    metric: Metric,
    benchmark: str | None,
    bootstraps: int,
) -> Ranking:
    estimates = estimates_of(list(groups.values()), {metric: 1.0})
    return ranking_of(metric, groups, estimates, setting.runs, benchmark, bootstraps)


def _aggregate(metrics: Mapping[Metric, float], settings: Sequence[Setting]) -> Metric:
    """A metric that names what was averaged."""
    only = next(iter(metrics)) if len(metrics) == 1 else None
    title = only.title if only else "weighted mean of " + " and ".join(metric.title for metric in metrics)
    places = f", mean over {len(settings)} settings" if len(settings) > 1 else ""
    # Its evaluation is that of the first metric: where a page shows answers, it shows these.
    first = only or next(iter(metrics))
    return Metric("overall", title + places, first.evaluation, "", "")


def _notes(
    metrics: Mapping[Metric, float], settings: Sequence[Setting], left_out: Sequence[str]
) -> list[str]:
    counted = ", ".join(f"{weight:.0%} {metric.title}" for metric, weight in metrics.items())
    notes = [f"The aggregate counts {counted}" + (", settings alike." if len(settings) > 1 else ".")]
    if left_out:
        notes.append(f"Not in every setting and so not in the aggregate: {', '.join(left_out)}.")
    return notes


def _agreement(cells: Sequence[Cell]) -> np.ndarray:
    candidates = [
        {row.reward_model: row.score for row in cell.ranking.rows if not row.control} for cell in cells
    ]
    matrix = np.full((len(cells), len(cells)), np.nan)
    for i, one in enumerate(candidates):
        for j, other in enumerate(candidates):
            shared = sorted(one.keys() & other.keys())
            if len(shared) >= 3:
                scores = np.array([[one[name], other[name]] for name in shared])
                matrix[i, j] = float(kendall(*scores.T))
    return matrix


def _leads_over_best_of_n(
    settings: Sequence[Setting],
    grouped: Sequence[dict[str, list[RunRecord]]],
    metrics: Mapping[Metric, float],
    bootstraps: int,
) -> list[Lead]:
    leads = []
    pairs = [
        (one, other)
        for one, setting in enumerate(settings)
        for other, chosen in enumerate(settings)
        if chosen.best_of_n and not setting.best_of_n and setting.policy == chosen.policy
    ]
    for one, other in pairs:
        names = [
            name for name, group in grouped[one].items() if name in grouped[other] and not group[0].untrained
        ]
        if not names:
            continue
        both = [estimates_of([grouped[i][name] for name in names], metrics) for i in (one, other)]
        difference = weighted_sum(both, [1.0, -1.0])
        low, high = percentile_interval(difference.draws(bootstraps))
        leads += [
            Lead(settings[one].name, name, float(difference.scores[i]), float(low[i]), float(high[i]))
            for i, name in enumerate(names)
        ]
    return leads


def _trained(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """The finished runs of reward models; of the untrained policy where there is no other."""
    finished = [run for run in runs if run.finished]
    return [run for run in finished if not run.untrained] or finished


def _refuse_differences(one: RunRecord, other: RunRecord, skip: tuple[str, ...]) -> None:
    if one is other:
        return
    if found := differences(held_equal(one.config), held_equal(other.config), skip):
        raise DataError(
            f"{one.path} and {other.path} cannot be averaged; they differ in {found}.",
            "Rank these experiments apart: settings may differ in policy base and algorithm alone.",
        )
