"""How much a benchmark told: correlation of benchmark accuracy with downstream score over reward models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlhf_eval.analysis.column_correlation import (
    Coefficient,
    Correlation,
    correlate,
    correlate_across,
    correlate_within,
)
from rlhf_eval.analysis.experiment import RunRecord
from rlhf_eval.analysis.partial import PartialCorrelation, partial_correlation
from rlhf_eval.analysis.ranking import Ranking
from rlhf_eval.errors import ConfigError, DataError, did_you_mean

__all__ = ["Coefficient", "Correlation", "correlate", "correlations", "experiment_correlation"]

WEAK = 1.5
"""A reward model is weak if its accuracy is this many robust standard deviations (1.4826 · the median
absolute deviation) below the median. Accuracy alone says so, never the outcome."""


@dataclass(frozen=True, slots=True)
class ExperimentCorrelation:
    """Benchmark accuracy against downstream score, over several choices of reward models.

    Attributes:
        benchmarks: the benchmark, or those whose mean is the accuracy.
        metric: name of the downstream score.
        subsets: candidates first.
        partial: over candidates, given what is known of rewards on the policy's own samples; None if nothing
            is.
        notes: what a reader must know about the axes.
    """

    benchmarks: tuple[str, ...]
    metric: str
    subsets: tuple[Correlation, ...]
    partial: PartialCorrelation | None
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The first subset's correlation, then the rest."""
        return self.subsets[0].as_json() | {
            "benchmarks": list(self.benchmarks),
            "metric": self.metric,
            "subsets": [found.as_json() for found in self.subsets],
            "partial": self.partial.as_json() if self.partial else None,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True, eq=False)
class _Points:
    """Reward models with both numbers: `x` accuracy, `y` score, percent, shape (n,); draws (draws, n)."""

    names: list[str]
    control: np.ndarray
    x: np.ndarray
    y: np.ndarray
    x_draws: np.ndarray
    y_draws: np.ndarray

    def correlate(self, chosen: np.ndarray, label: str, seed: int) -> Correlation:
        names = [name for name, take in zip(self.names, chosen, strict=True) if take]
        draws = self.x_draws[:, chosen], self.y_draws[:, chosen]
        return correlate(self.x[chosen], self.y[chosen], *draws, label, names, seed)


def correlations(ranking: Ranking, seed: int = 0) -> list[Correlation]:
    """The ranking's benchmark against its score: over the candidates, and with the controls.

    Reward models without the benchmark are left out, and n counts the rest. Empty if the runs have no
    benchmark at all.
    """
    if ranking.benchmark is None:
        return []
    pairs = {row.reward_model: {ranking.benchmark: row.benchmark_n or 0} for row in ranking.rows}
    points = _points(ranking, (ranking.benchmark,), pairs, seed)
    return _with_and_without_controls(points, seed) if points.names else []


def experiment_correlation(
    runs: Sequence[RunRecord], ranking: Ranking, benchmarks: Sequence[str] = (), seed: int = 0
) -> ExperimentCorrelation:
    """A benchmark, or the mean of several, against the ranking's score.

    Subsets: candidates; with the controls; without weak reward models, which shows what a restricted range
    does; within and across lineages, by the base model on each card; the last two of candidates only.
    The partial correlation is given the variance of rewards within prompts under the policy as training
    begins (Razin et al. 2025, arXiv:2503.15477: a reward model teaches by it, accurate or not) and the
    on-policy accuracy, where the first checkpoint of a run records them as `reward_variance` and
    `on_policy_accuracy`.

    Args:
        runs: those that were ranked.
        ranking: from `rank`.
        benchmarks: the ranking's own if empty.

    Raises:
        ConfigError: no such benchmark.
        DataError: the runs measured none, or no reward model has all of them.
    """
    if not ranking.benchmarks:
        raise DataError(
            "These runs measured no benchmark.",
            "Give the runs a benchmark (`rlhf-eval ls --configs benchmark`), or correlate a --table.",
        )
    for name in benchmarks:
        if name not in ranking.benchmarks:
            raise ConfigError(f"No run has a benchmark '{name}'.", did_you_mean(name, ranking.benchmarks))
    chosen = tuple(dict.fromkeys(benchmarks)) or (str(ranking.benchmark),)
    finished = [run for run in runs if run.finished and not run.untrained]
    of = {run.reward_model: run for run in finished}
    pairs = {
        name: {b: int(found.get("n") or 0) for b, found in run.benchmarks.items()} for name, run in of.items()
    }
    points = _points(ranking, chosen, pairs, seed)
    if not points.names:
        raise DataError(
            f"No reward model has {' and '.join(chosen)}.", "Name fewer benchmarks with --benchmark."
        )
    candidate = ~points.control
    subsets = _with_and_without_controls(points, seed)
    weak = candidate & _weak(points.x, candidate)
    if weak.any():
        label = f"candidates without weak ones (accuracy below median − {WEAK} robust SD)"
        subsets.append(points.correlate(candidate & ~weak, label, seed))
    x, y = points.x[candidate], points.y[candidate]
    names = [name for name, control in zip(points.names, points.control, strict=True) if not control]
    lineage = [of[name].config.reward_model.card.base_model or "" for name in names]
    subsets.append(correlate_within(x, y, lineage, "within lineage (centred by base model)", names, seed))
    subsets.append(correlate_across(x, y, lineage, "across lineages (means by base model)", seed))
    given = _on_policy(finished, names)
    partial = partial_correlation(x, y, given) if given else None
    notes = _notes(ranking, given)
    return ExperimentCorrelation(chosen, ranking.metric.name, tuple(subsets), partial, notes)


def _points(
    ranking: Ranking, benchmarks: Sequence[str], pairs: Mapping[str, Mapping[str, int]], seed: int
) -> _Points:
    """Reward models with every benchmark, whose mean is x.

    The score's noise is its bootstrap draws over prompts and seeds, the accuracy's a draw from the posterior
    of a binomial share under Jeffreys' prior, Beta(k + ½, n − k + ½), whose width is not zero at 0 % or
    100 %.

    Args:
        pairs: number of pairs of a benchmark, by reward model and benchmark; 0 if not known (no noise).
    """
    chosen = [i for i, row in enumerate(ranking.rows) if all(name in row.benchmarks for name in benchmarks)]
    rows = [ranking.rows[i] for i in chosen]
    shape = (len(rows), len(benchmarks))
    accuracy = np.array([[row.benchmarks[b] for b in benchmarks] for row in rows]).reshape(shape)
    n = np.array([[pairs.get(row.reward_model, {}).get(b, 0) for b in benchmarks] for row in rows])
    n = n.reshape(shape)
    right = n * np.clip(accuracy, 0, 100) / 100  # RewardBench 2's Ties can carry a perfect score beyond 100
    rng = np.random.default_rng(seed)
    drawn = 100 * rng.beta(right + 0.5, n - right + 0.5, size=(len(ranking.draws), *shape))
    return _Points(
        names=[row.reward_model for row in rows],
        control=np.array([row.control for row in rows], dtype=bool),
        x=accuracy.mean(axis=1),
        y=np.array([row.score for row in rows]),
        x_draws=np.where(n > 0, drawn, accuracy).mean(axis=2),
        y_draws=ranking.draws[:, chosen],
    )


def _with_and_without_controls(points: _Points, seed: int) -> list[Correlation]:
    found = [points.correlate(~points.control, "candidates", seed)]
    if points.control.any():
        everything = np.full(len(points.names), True)
        found.append(points.correlate(everything, "candidates and controls", seed))
    return found


def _weak(accuracy: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Which reward models are weak, as WEAK says, by the candidates' median and spread; shape (n,)."""
    if not candidate.any():
        return np.zeros(len(accuracy), dtype=bool)
    median = np.median(accuracy[candidate])
    spread = 1.4826 * np.median(np.abs(accuracy[candidate] - median))
    return (accuracy < median - WEAK * spread) & (spread > 0)


def _on_policy(runs: Sequence[RunRecord], names: Sequence[str]) -> dict[str, np.ndarray]:
    """What the first checkpoints record, mean over seeds, by quantity; those that no run has are absent."""
    found = {}
    for quantity in ("reward_variance", "on_policy_accuracy"):
        values: dict[str, list[float]] = {name: [] for name in names}
        for run in runs:
            value = run.curves[0].get(quantity) if run.curves else None
            if value is not None and run.reward_model in values:
                values[run.reward_model].append(float(value))
        if any(values.values()):
            found[quantity] = np.array([np.mean(v) if v else np.nan for v in values.values()])
    return found


def _notes(ranking: Ranking, given: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    notes = []
    if all(row.n_seeds == 1 for row in ranking.rows):
        notes.append(
            "One seed per reward model: training luck is not in the score's reliability, so that the "
            "correction for attenuation is too small."
        )
    if not given:
        notes.append(
            "No run records the variance of rewards on the policy's samples: no partial correlation."
        )
    elif "on_policy_accuracy" not in given:
        notes.append("On-policy accuracy is not recorded: the partial correlation is given the rest.")
    return tuple(notes)
