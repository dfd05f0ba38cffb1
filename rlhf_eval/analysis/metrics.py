"""The downstream scores that reward models can be ranked by."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """A downstream score: where it stands in a run's files and how it is called in figures."""

    name: str
    title: str
    evaluation: str
    summary_field: str
    """Key in `scores.json`; percent."""
    prompt_field: str
    """Attribute of `PromptScores`; its mean × 100 is the score."""


METRICS = {
    metric.name: metric
    for metric in (
        Metric("alpaca_eval.win_rate", "AlpacaEval win rate", "alpaca_eval", "win_rate", "value"),
        Metric(
            "alpaca_eval.length_controlled_win_rate",
            "AlpacaEval length-controlled win rate",
            "alpaca_eval",
            "length_controlled_win_rate",
            "length_controlled",
        ),
        Metric("arena_hard.score", "Arena-Hard score", "arena_hard", "score", "value"),
        Metric(
            "arena_hard.style_controlled_score",
            "Arena-Hard style-controlled score",
            "arena_hard",
            "style_controlled_score",
            "length_controlled",
        ),
    )
}
