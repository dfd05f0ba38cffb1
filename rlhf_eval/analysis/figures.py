"""The figures: which there are, the ranking, and benchmark against downstream score."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_eval.analysis.comparison_figures import draw_head_to_head, draw_length
from rlhf_eval.analysis.correlation import Correlation, correlations
from rlhf_eval.analysis.curve_figures import draw_curves, draw_frontiers
from rlhf_eval.analysis.experiment import RunRecord
from rlhf_eval.analysis.frontier import frontiers
from rlhf_eval.analysis.head_to_head import head_to_head
from rlhf_eval.analysis.labels import NAMED, NUMBERED, place_labels, point_labels
from rlhf_eval.analysis.ranking import Ranking, RankRow
from rlhf_eval.analysis.style import (
    ACCENT,
    INK,
    PAPER,
    SOFT,
    legend,
    new_figure,
    save,
    styled,
    title,
    wrapped,
)
from rlhf_eval.analysis.tables import span
from rlhf_eval.analysis.tidy import (
    correlation_rows,
    curve_rows,
    frontier_rows,
    head_to_head_rows,
    length_rows,
    ranking_rows,
)

RANKED = 40
"""Rows of the ranking figure; the CSV beside it has all."""


def write_figures(runs: Sequence[RunRecord], ranking: Ranking, folder: Path) -> list[Path]:
    """Write each figure as PNG, SVG and PDF, with its numbers as CSV.

    `ranking` always; `correlation` if a benchmark was measured; `curves` and `frontiers` if checkpoints were;
    `head_to_head` if there are two policies; `length` if the lengths of answers are recorded.

    Returns:
        the files written.
    """
    paths = save(draw_ranking(ranking), folder, "ranking", ranking_rows(ranking))
    if ranking.benchmark is not None:
        paths += save(draw_correlation(ranking), folder, "correlation", correlation_rows(ranking))
    curves = curve_rows(runs)
    if curves:
        found = frontiers(runs)
        paths += save(draw_curves(curves, ranking), folder, "curves", curves)
        paths += save(draw_frontiers(found, ranking), folder, "frontiers", frontier_rows(found))
    matrix = head_to_head(runs, ranking)
    if len(matrix.names) > 1:
        paths += save(draw_head_to_head(matrix), folder, "head_to_head", head_to_head_rows(matrix))
    lengths = length_rows(runs, ranking)
    if lengths:
        paths += save(draw_length(lengths), folder, "length", lengths)
    return paths


def draw_correlation(ranking: Ranking) -> Any:
    """Benchmark accuracy (x) against downstream score (y): does the benchmark tell which is better?"""
    rows = [row for row in ranking.rows if row.benchmark is not None]
    with styled():
        figure = new_figure(7.4, 5.6)
        axes = figure.add_subplot()
        for row in rows:
            _point(axes, row)
        if ranking.untrained:
            _reference_line(axes, ranking, axes.axhline)
        axes.set_xlabel(f"accuracy on {wrapped(ranking.benchmark or '', 50)} (%)")
        axes.set_ylabel(f"{ranking.metric.title} of the trained policy (%)")
        _pad(axes, 0.09, 0.09)
        found = correlations(ranking)
        lines = [_sentence(one) for one in found]
        if any(one.n >= 3 for one in found):
            lines.append("Brackets: 95 % intervals.")
        if len(rows) > NAMED:
            first = f", of the first {NUMBERED}" if len(rows) > NUMBERED else ""
            lines.append(f"Numbers: place in the ranking{first}.")
        axes.text(0, 1.015, "\n".join(lines), transform=axes.transAxes, fontsize=8.2, color=SOFT, va="bottom")
        title(axes, "Benchmark accuracy against downstream score", pad=10 + 11.5 * len(lines))
        legend(figure, any(row.control for row in rows), ranking.untrained is not None)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        places = [place for place, row in enumerate(ranking.rows, 1) if row.benchmark is not None]
        texts = point_labels([row.reward_model for row in rows], list(places))
        named = rows[: len(texts)]
        place_labels(
            axes,
            [row.benchmark or 0.0 for row in named],
            [row.score for row in named],
            texts,
            _obstacles(axes, rows, ranking),
        )
    return figure


def draw_ranking(ranking: Ranking) -> Any:
    """Score with interval of each reward model, best on top; the interval of its rank beside it."""
    rows = ranking.rows[:RANKED]
    more = f" (best {RANKED} of {len(ranking.rows)})" if len(ranking.rows) > RANKED else ""
    with styled():
        figure = new_figure(7.4, 1.6 + 0.36 * len(rows))
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            colour = SOFT if row.control else ACCENT
            axes.plot(
                [row.low, row.high], [place, place], color=colour, linewidth=2.2, solid_capstyle="round"
            )
            axes.plot(
                row.score,
                place,
                "o",
                markersize=7,
                color=colour,
                markerfacecolor=PAPER if row.control else colour,
            )
            axes.text(
                1.02,
                place,
                span(row.rank_low, row.rank_high),
                transform=axes.get_yaxis_transform(),
                va="center",
                color=SOFT if row.control else INK,
            )
        axes.text(
            1.02, -0.85, "rank", transform=axes.get_yaxis_transform(), va="center", fontsize=8.5, color=SOFT
        )
        axes.set_yticks(range(len(rows)), [wrapped(row.reward_model, 30) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"{ranking.metric.title} (%), 95 % interval")
        if ranking.untrained:
            _reference_line(axes, ranking, axes.axvline)
        _pad(axes, 0.05, 0)
        title(axes, f"Downstream score of each reward model{more}", pad=18)
        legend(figure, any(row.control for row in rows), ranking.untrained is not None)
    return figure


def _point(axes: Any, row: RankRow) -> None:
    x, low, high = row.benchmark, row.benchmark_low, row.benchmark_high
    colour = SOFT if row.control else ACCENT
    axes.plot([row.benchmark] * 2, [row.low, row.high], color=colour, linewidth=1.1, alpha=0.75, zorder=2)
    if low is not None and high is not None:
        axes.plot([low, high], [row.score] * 2, color=colour, linewidth=1.1, alpha=0.75, zorder=2)
    axes.plot(
        x,
        row.score,
        "o",
        markersize=7,
        color=colour,
        markerfacecolor=PAPER if row.control else colour,
        zorder=3,
    )


def _reference_line(axes: Any, ranking: Ranking, draw: Any) -> None:
    assert ranking.untrained is not None
    draw(ranking.untrained.score, color=INK, linewidth=1, linestyle=(0, (4, 3)), alpha=0.7, zorder=1)


def _pad(axes: Any, x: float, y: float) -> None:
    """Room around the data, so that labels fit; percent end at 0 and 100 plus a little."""
    low, high = axes.get_xlim()
    span_x = max(high - low, 10)
    axes.set_xlim(max(low - x * span_x, -4), min(high + x * span_x, 104))
    if y:
        low, high = axes.get_ylim()
        span_y = max(high - low, 10)
        axes.set_ylim(max(low - y * span_y, -4), min(high + y * span_y, 104))


def _obstacles(axes: Any, rows: Sequence[RankRow], ranking: Ranking) -> np.ndarray:
    """Error bars and the reference line as thin boxes in data coordinates, shape (n, 4)."""
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    thin_x, thin_y = (x1 - x0) / 250, (y1 - y0) / 200
    boxes = [[x0, y0, x0, y0]]
    for row in rows:
        x = row.benchmark or 0.0
        boxes.append([x - thin_x, row.low, x + thin_x, row.high])
        boxes.append(
            [_or(row.benchmark_low, x), row.score - thin_y, _or(row.benchmark_high, x), row.score + thin_y]
        )
    if ranking.untrained:
        boxes.append([x0, ranking.untrained.score - thin_y, x1, ranking.untrained.score + thin_y])
    return np.array(boxes)


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _sentence(found: Correlation) -> str:
    if found.n < 3:
        return found.warning or ""
    parts = (("Pearson", found.pearson), ("Spearman", found.spearman), ("Kendall", found.kendall))
    return f"{found.label} (n = {found.n}):  " + "   ".join(f"{name} {c}" for name, c in parts)
