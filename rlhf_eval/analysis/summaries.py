"""What a group of runs, one reward model's seeds, has beside the score that it is ranked by."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlhf_eval.analysis.coefficients import spearman
from rlhf_eval.analysis.experiment import RunRecord
from rlhf_eval.analysis.metrics import METRICS
from rlhf_eval.learning import gradient_warning


def _mean(values: list[Any]) -> float | None:
    """Mean of the numbers there are; None if there are none."""
    numbers = [float(value) for value in values if value is not None and np.isfinite(value)]
    return sum(numbers) / len(numbers) if numbers else None


def accuracy(group: list[RunRecord], benchmark: str) -> float | None:
    return _mean([run.benchmarks.get(benchmark, {}).get("accuracy") for run in group])


def benchmark_fields(group: list[RunRecord], benchmark: str | None) -> dict[str, Any]:
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


def gold(group: list[RunRecord]) -> float | None:
    return _mean([(run.scores.get("gold") or {}).get("mean") for run in group])


def scores_of(group: list[RunRecord]) -> dict[str, float]:
    means = {
        m.name: _mean([run.scores.get(m.evaluation, {}).get(m.summary_field) for run in group])
        for m in METRICS.values()
    }
    return {name: mean for name, mean in means.items() if mean is not None}


def training_fields(group: list[RunRecord]) -> dict[str, Any]:
    """Training steps and those without gradient, of all runs; and a warning of the runs that have one."""
    trained = [run for run in group if run.training_steps]
    warned = [run for run in trained if run.warning]
    without, steps = _gradient_steps(trained)
    warning = gradient_warning(*_gradient_steps(warned))
    if warning and len(trained) > 1:
        warning += f", {len(warned)} of {len(trained)} runs"
    return {"training_steps": steps, "no_gradient_steps": without, "warning": warning}


def _gradient_steps(runs: list[RunRecord]) -> tuple[int, int]:
    return sum(run.no_gradient_steps for run in runs), sum(run.training_steps for run in runs)


def gradient_notes(rows: Sequence[Any]) -> list[str]:
    """A note that names the reward models with a warning; nothing where there are none."""
    warned = "; ".join(f"{row.reward_model} ({row.warning})" for row in rows if row.warning)
    return [f"In most training steps the rewards taught the policy nothing: {warned}."] if warned else []


def spearman_gold(rows: Sequence[Any]) -> float | None:
    pairs = [(row.score, row.gold) for row in rows if row.gold is not None]
    if len(pairs) < 3:
        return None
    estimate = float(spearman(*np.array(pairs).T))
    return None if np.isnan(estimate) else estimate
