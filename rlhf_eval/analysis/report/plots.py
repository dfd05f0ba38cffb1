"""The data that the page's script draws: plain values, labels made harmless, no more points than a reader can
read."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from rlhf_eval.analysis.coefficients import pearson, spearman
from rlhf_eval.analysis.frontier import Frontier
from rlhf_eval.analysis.head_to_head import HeadToHead
from rlhf_eval.analysis.hostile import plot_label
from rlhf_eval.analysis.metrics import METRICS
from rlhf_eval.analysis.ranking import Ranking, RankRow
from rlhf_eval.analysis.tables import span
from rlhf_eval.analysis.tidy import CONTROLLED, mean_curve

RANKED = 60
"""Bars of the ranking plot."""
POINTS = 400
"""Points of a scatter plot."""
CURVES = 24
"""Reward models of the plot of training; `CURVES_AT_FIRST` of them are drawn until a reader asks for more."""
CURVES_AT_FIRST = 8
MEAN, GOLD = "mean of all benchmarks", "gold utility"


def ranking_plot(ranking: Ranking) -> dict[str, Any]:
    """Score and interval of the best `RANKED` reward models, and the untrained policy's line."""
    return {
        "title": plot_label(ranking.metric.title, 60),
        "rows": [
            {
                "label": plot_label(row.reward_model),
                "control": row.control,
                "ranks": span(row.rank_low, row.rank_high),
            }
            | {"score": row.score, "low": row.low, "high": row.high}
            for row in ranking.rows[:RANKED]
        ],
        "untrained": ranking.untrained.score if ranking.untrained else None,
    }


def correlation_plot(ranking: Ranking, cells: Sequence[tuple[str, Ranking]] = ()) -> dict[str, Any]:
    """Every benchmark and their mean (x) against every downstream score (y), with the coefficients of each
    pair.

    Args:
        cells: rankings by single metrics and settings, by title: their scores come with intervals.
    """
    x_axes = [(name, _accuracies(ranking, name)) for name in ranking.benchmarks]
    if len(x_axes) > 1:
        x_axes.append((MEAN, [_mean_accuracy(row, ranking) for row in ranking.rows]))
    y_axes = [(ranking.metric.title, _scores(ranking, ranking))]
    y_axes += [(title, _scores(ranking, cell)) for title, cell in cells]
    known = {title for title, _ in y_axes}
    for metric in METRICS.values():
        values = [row.scores.get(metric.name) for row in ranking.rows]
        if metric.title not in known and any(value is not None for value in values):
            y_axes.append((metric.title, [None if value is None else [value] for value in values]))
    if any(row.gold is not None for row in ranking.rows):
        y_axes.append((GOLD, [None if row.gold is None else [row.gold] for row in ranking.rows]))
    candidate = np.array([not row.control for row in ranking.rows])
    return {
        "labels": [plot_label(row.reward_model) for row in ranking.rows[:POINTS]],
        "controls": [row.control for row in ranking.rows[:POINTS]],
        "x": [_axis(name, values) for name, values in x_axes],
        "y": [_axis(name, values) for name, values in y_axes],
        "coefficients": [[_coefficients(x, y, candidate) for _, y in y_axes] for _, x in x_axes],
    }


def training_plot(found: Sequence[Frontier], ranking: Ranking) -> dict[str, Any]:
    """Proxy and gold reward gained over √KL of the best candidates and the controls: means over seeds, fits,
    and where fitted gold reward turns within what was trained."""
    several = len({(one.policy, one.algorithm) for one in found}) > 1
    candidates = [row for row in ranking.rows if not row.control]
    controls = [row for row in ranking.rows if row.control]
    chosen = [*candidates[: CURVES - min(len(controls), CURVES // 3)], *controls[: CURVES // 3]]
    lines = []
    for place, row in enumerate(chosen):
        shown = place < CURVES_AT_FIRST if not row.control else len(chosen) <= CURVES_AT_FIRST + 4
        for one in [one for one in found if one.reward_model == row.reward_model]:
            setting = f" · {one.policy} · {one.algorithm}" if several else ""
            label = plot_label(f"{row.reward_model}{setting}", 60 if several else 26)
            lines.append({"label": label, "control": row.control, "shown": shown} | _line(one))
    return {
        "lines": lines,
        "gold": any(line["gold"] for line in lines),
        "left_out": len(ranking.rows) - len(chosen),
    }


def _line(one: Frontier) -> dict[str, Any]:
    points = [asdict(point) for point in one.points]
    line: dict[str, Any] = {}
    for reward, fitted in (("proxy", one.proxy), ("gold", one.gold)):
        known = [point for point in points if point[f"{reward}_gain"] is not None]
        line[reward] = mean_curve(known, f"{reward}_gain", "distance").tolist()
        line[f"{reward}_fit"] = [list(place) for place in fitted.curve] if fitted else []
    turn = one.overoptimisation
    return line | {"turn": [turn.distance, turn.gold_gain] if turn and not turn.extrapolated else None}


def matrix_plot(matrix: HeadToHead) -> dict[str, Any]:
    """The win-rate matrix, row against column."""
    return {
        "labels": [plot_label(name, 22) for name in matrix.names],
        "shares": [
            [None if np.isnan(share) else round(share, 1) for share in row] for row in matrix.shares.tolist()
        ],
    }


def length_plot(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """By evaluation: length against score, and the plain against the controlled score.

    Args:
        rows: from `tidy.length_rows`.
    """
    return [
        {
            "title": plain.title,
            "controlled_title": controlled.title,
            "rows": [
                {"label": plot_label(row["reward_model"]), "control": row["control"]}
                | {name: row[name] for name in ("mean_characters", "score", "controlled_score")}
                for row in rows
                if row["evaluation"] == plain.evaluation
            ][:POINTS],
        }
        for plain, controlled in CONTROLLED
        if any(row["evaluation"] == plain.evaluation for row in rows)
    ]


def _axis(name: str, values: list[list[float] | None]) -> dict[str, Any]:
    return {"title": plot_label(name, 60), "unit": "" if name == GOLD else " (%)", "values": values[:POINTS]}


def _accuracies(ranking: Ranking, benchmark: str) -> list[list[float] | None]:
    """[accuracy, low, high] by reward model; the interval of the ranking's own benchmark only."""
    found: list[list[float] | None] = []
    for row in ranking.rows:
        value = row.benchmarks.get(benchmark)
        interval = [row.benchmark_low, row.benchmark_high] if benchmark == ranking.benchmark else []
        ends = [end for end in interval if end is not None]
        found.append(None if value is None else [value, *(ends if len(ends) == 2 else [])])
    return found


def _mean_accuracy(row: RankRow, ranking: Ranking) -> list[float] | None:
    """Over all benchmarks; None where one is not measured, because means over other sets do not compare."""
    values = [row.benchmarks.get(name) for name in ranking.benchmarks]
    known = [value for value in values if value is not None]
    return [float(np.mean(known))] if len(known) == len(values) else None


def _scores(ranking: Ranking, cell: Ranking) -> list[list[float] | None]:
    """[score, low, high] of a cell's ranking in the order of the whole one."""
    of = {row.reward_model: [row.score, row.low, row.high] for row in cell.rows}
    return [of.get(row.reward_model) for row in ranking.rows]


def _coefficients(
    x: list[list[float] | None], y: list[list[float] | None], candidate: np.ndarray
) -> dict[str, float | None]:
    """Pearson and Spearman over the candidates that have both."""
    pairs = np.array(
        [(a[0], b[0]) for a, b, c in zip(x, y, candidate, strict=True) if c and a and b]
    ).reshape(-1, 2)
    found: dict[str, float | None] = {"n": len(pairs), "pearson": None, "spearman": None}
    if len(pairs) >= 3:
        for name, function in (("pearson", pearson), ("spearman", spearman)):
            value = float(function(*pairs.T))
            found[name] = None if np.isnan(value) else value
    return found
