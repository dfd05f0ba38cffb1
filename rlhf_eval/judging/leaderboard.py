"""Where a score stands among AlpacaEval's published ones: context, and only for the same judge.

The published leaderboards are files of the `alpaca-eval` package, one for each annotator and baseline.
"""

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rlhf_eval.config.schema import AlpacaEvalConfig, JudgeConfig
from rlhf_eval.judging import annotators
from rlhf_eval.judging.annotators import package_file

FOLDERS = {"gpt4_1106_preview": "data_AlpacaEval_2", "text_davinci_003": "data_AlpacaEval"}
"""Baseline → the package's folder of leaderboards against it."""
COLUMNS = {"length_controlled_win_rate": "length_controlled_winrate", "win_rate": "win_rate"}
"""Our name of a score → the package's."""
NEIGHBOURS = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """A published model and its score in percent."""

    model: str
    score: float


@dataclass(frozen=True, slots=True)
class Position:
    """A score's place among the published ones.

    Attributes:
        metric: which score was compared: "length_controlled_win_rate" or "win_rate".
        rank: one more than the number of published models with a higher score.
        of: how many models there are, this one included.
        above: the next better models, nearest last, at most two.
        below: the next worse models, nearest first, at most two.
    """

    metric: str
    rank: int
    of: int
    above: list[Entry]
    below: list[Entry]

    def as_json(self) -> dict[str, Any]:
        """All fields, for JSON."""
        return asdict(self)


def position(
    scores: Mapping[str, float | None], annotator: str | None, baseline: str | None, model: str | None = None
) -> Position | None:
    """The place of a model, by the length-controlled win rate where both sides have it, else the win rate.

    Args:
        scores: in percent, by the names of `COLUMNS`. Give a length-controlled win rate only where it was
            fitted as the published ones were, with the regulariser.
        annotator: the published annotator that made the preferences, on its own model.
        model: name of the model; its own published row is no neighbour of it.

    Returns:
        None if the package has no leaderboard of this annotator against this baseline.

    Raises:
        ConfigError: the package is not installed.
    """
    rows = _published(annotator, baseline)
    for metric, column in COLUMNS.items():
        score = scores.get(metric)
        if score is None or not any(row.get(column) for row in rows):
            continue
        others = [Entry(row[""], float(row[column])) for row in rows if row.get(column) and row[""] != model]
        above = sorted((e for e in others if e.score > score), key=lambda e: e.score, reverse=True)
        below = sorted((e for e in others if e.score <= score), key=lambda e: e.score, reverse=True)
        return Position(metric, len(above) + 1, len(others) + 1, above[-NEIGHBOURS:], below[:NEIGHBOURS])
    return None


def published_annotator(config: AlpacaEvalConfig, judge: JudgeConfig) -> str | None:
    """The annotator whose published numbers a run's may stand among; None if the judge is another one.

    Raises:
        ConfigError: the package is not installed, or the annotator cannot be used.
    """
    annotator = annotators.load(config.annotator)
    same = judge.model == annotator.model and config.limit is None
    return annotator.name if same else None


def _published(annotator: str | None, baseline: str | None) -> list[dict[str, str]]:
    """The rows of a leaderboard; none where there is no such leaderboard."""
    folder = FOLDERS.get(baseline or "")
    if folder is None:
        return []
    files = {path.name: path for path in package_file("leaderboards", folder).glob("*.csv")}
    file = files.get(f"{annotator}_leaderboard.csv")
    return list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8")))) if file else []
