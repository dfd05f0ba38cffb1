"""From runs to estimates: the per-prompt outcomes of groups of runs as matrices, aligned by prompt."""

from collections.abc import Mapping, Sequence

import numpy as np

from rlhf_eval.analysis.experiment import RunRecord
from rlhf_eval.analysis.intervals import Estimates, estimate
from rlhf_eval.analysis.metrics import METRICS, Metric
from rlhf_eval.errors import ConfigError, DataError, did_you_mean

Group = Sequence[RunRecord]
"""Finished runs that differ in seed only; at least one."""


def metric_named(name: str) -> Metric:
    """A metric of METRICS.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in METRICS:
        raise ConfigError(f"There is no metric '{name}'.", did_you_mean(name, METRICS))
    return METRICS[name]


def estimates_of(groups: Sequence[Group], weights: Mapping[Metric, float]) -> Estimates:
    """Scores, in percent, of groups of runs of one setting: the weighted sum of metrics.

    Raises:
        DataError: a run lacks one of the metrics.
    """
    runs = [run for group in groups for run in group]
    values: dict[str, np.ndarray] = {}
    for metric, weight in weights.items():
        matrix = 100 * weight * value_matrix(metric, runs)
        values[metric.evaluation] = values.get(metric.evaluation, 0.0) + matrix
    return estimate(
        values,
        groups=np.repeat(np.arange(len(groups)), [len(group) for group in groups]),
        trained=np.array([not group[0].untrained for group in groups]),
    )


def value_matrix(metric: Metric, runs: Sequence[RunRecord]) -> np.ndarray:
    """A metric prompt by prompt, shape (prompts, runs), as `prompt_order` has them; NaN without a verdict.

    Raises:
        DataError: a run lacks the metric.
    """
    for run in runs:
        scores = run.per_prompt.get(metric.evaluation)
        if scores is None or np.isnan(getattr(scores, metric.prompt_field)).all():
            raise DataError(
                f"{run.path.name} has no {metric.name}.",
                "Choose another --metric, or delete the run's stages/score folder and run it again.",
            )
    row_of = {id: row for row, id in enumerate(prompt_order(metric.evaluation, runs))}
    values = np.full((len(row_of), len(runs)), np.nan)
    for column, run in enumerate(runs):
        scores = run.per_prompt[metric.evaluation]
        values[[row_of[id] for id in scores.prompt_ids], column] = getattr(scores, metric.prompt_field)
    return values


def prompt_order(evaluation: str, runs: Sequence[RunRecord]) -> list[str]:
    """The ids of all prompts on which a run has a verdict, sorted: the same order in every setting."""
    return sorted({id for run in runs for id in run.per_prompt[evaluation].prompt_ids})
