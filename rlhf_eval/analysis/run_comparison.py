"""Two runs beside each other: what differs in what they were made from, and in what came out."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlhf_eval.analysis.drift import Drift, configuration_drift, manifest_drift
from rlhf_eval.analysis.stage_comparison import (
    DIFFERENT,
    IDENTICAL,
    NOT_COMPARED,
    TAKEN,
    StageComparison,
    compare_stages,
    curves,
)
from rlhf_eval.config.compose import load
from rlhf_eval.files import read_json, read_object

SCORES = (
    ("alpaca_eval", "win_rate"),
    ("alpaca_eval", "length_controlled_win_rate"),
    ("arena_hard", "score"),
    ("arena_hard", "style_controlled_score"),
)


@dataclass(frozen=True)
class RunComparison:
    """Two runs beside each other.

    Attributes:
        recorded: whether both have a manifest; without one, only configurations are compared.
        drift: what they were not made from alike; the configuration first.
        stages: what came out, stage by stage.
        curves: of the last checkpoint that both have, name → the two values; empty without one.
        scores: percent, name → the two values.
    """

    first: Path
    second: Path
    recorded: bool
    drift: tuple[Drift, ...]
    stages: tuple[StageComparison, ...]
    curves: dict[str, tuple[float, float]]
    scores: dict[str, tuple[float, float]]

    @property
    def first_difference(self) -> str | None:
        """The first stage that is neither identical nor within its tolerance."""
        return next((stage.stage for stage in self.stages if stage.outcome == DIFFERENT), None)

    @property
    def first_change(self) -> str | None:
        """The first stage that did not give the same bytes."""
        return next((stage.stage for stage in self.stages if stage.files), None)

    @property
    def words(self) -> str:
        """The answer in a sentence or two."""
        compared = [stage for stage in self.stages if stage.outcome not in (NOT_COMPARED, TAKEN)]
        if not compared:
            return "No stage is finished in both runs: nothing was compared."
        names = ", ".join(stage.stage for stage in compared)
        if self.first_change is None:
            return f"Identical, byte for byte: {names}."
        unknown = ", ".join(
            stage.stage for stage in self.stages if stage.outcome == NOT_COMPARED and stage.files
        )
        same = "The same within tolerance" + (f", as far as compared (not {unknown})" if unknown else "")
        if self.first_difference:
            same = f"Different from stage {self.first_difference} on"
        return f"{same}; not the same bytes from stage {self.first_change} on. {self._cause()}"

    def _cause(self) -> str:
        if not self.drift and not self.recorded:
            return "What they ran with was not recorded of both."
        if not self.drift:
            return "Configuration, code, packages, machine, data and templates are recorded as the same."
        kinds = ", ".join(dict.fromkeys(one.kind for one in self.drift))
        return f"What they were made from differs in: {kinds}."

    def as_json(self) -> dict[str, Any]:
        return {
            "first": str(self.first),
            "second": str(self.second),
            "recorded": self.recorded,
            "identical": all(stage.outcome in (IDENTICAL, TAKEN) for stage in self.stages),
            "first_difference": self.first_difference,
            "first_change": self.first_change,
            "words": self.words,
            "drift": [asdict(one) for one in self.drift],
            "stages": [asdict(stage) for stage in self.stages],
            "curves": self.curves,
            "scores": self.scores,
        }


def compare_runs(first: Path, second: Path) -> RunComparison:
    """Compare two run directories.

    Raises:
        ConfigError, DataError: one is no run directory, or a file of it is damaged.
    """
    ours, theirs = (read_object(run / "manifest.json") for run in (first, second))
    configurations = configuration_drift(
        load(first / "config.yaml"), load(second / "config.yaml"), ours, theirs
    )
    return RunComparison(
        first=first,
        second=second,
        recorded=bool(ours and theirs),
        drift=(*configurations, *manifest_drift(ours, theirs)),
        stages=tuple(compare_stages(first, second)),
        curves=_last_checkpoint(first, second),
        scores=_scores(first, second),
    )


def _last_checkpoint(first: Path, second: Path) -> dict[str, tuple[float, float]]:
    rows = [{row["step"]: row for row in curves(run)["checkpoint"]} for run in (first, second)]
    common = sorted(rows[0].keys() & rows[1].keys())
    if not common:
        return {}
    ours, theirs = (found[common[-1]] for found in rows)
    pairs = {name: (ours[name], theirs[name]) for name in ours if name in theirs}
    return {name: pair for name, pair in pairs.items() if all(isinstance(x, int | float) for x in pair)}


def _scores(first: Path, second: Path) -> dict[str, tuple[float, float]]:
    files = [run / "stages/score/scores.json" for run in (first, second)]
    if not all(file.exists() for file in files):
        return {}
    ours, theirs = map(read_json, files)
    pairs = {
        f"{part}.{name}": (ours.get(part, {}).get(name), theirs.get(part, {}).get(name))
        for part, name in SCORES
    }
    return {name: pair for name, pair in pairs.items() if None not in pair}
