"""The figures that compare policies beyond their rank: head to head, and length and style against score."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlhf_eval.analysis.head_to_head import POLICIES, HeadToHead
from rlhf_eval.analysis.labels import NAMED, place_labels, point_labels
from rlhf_eval.analysis.style import (
    ACCENT,
    COLOURS,
    INK,
    PAPER,
    SOFT,
    legend,
    new_figure,
    shortened,
    styled,
    title,
    wrapped,
)
from rlhf_eval.analysis.tidy import CONTROLLED

NUMBERED = 16
"""With at most so many policies, the cells of the matrix hold their numbers."""


def draw_head_to_head(matrix: HeadToHead) -> Any:
    """The win-rate matrix: blue where the policy of the row wins more prompts, orange where it wins fewer."""
    from matplotlib.colors import LinearSegmentedColormap

    n = len(matrix.names)
    side = float(np.clip(0.42 * n, 2.6, 9.5))
    small = 8.5 if n <= 24 else 6.5
    names = [shortened(name, 30) for name in matrix.names]
    with styled():
        figure = new_figure(side + 2.9, side + 1.9)
        axes = figure.add_subplot()
        colours = LinearSegmentedColormap.from_list("wins", [COLOURS[1], "#f6f7f8", COLOURS[0]])
        image = axes.imshow(matrix.shares, cmap=colours, vmin=0, vmax=100)
        axes.set_xticks(range(n), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=small)
        axes.set_yticks(range(n), names, fontsize=small)
        axes.set_xticks(np.arange(n + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
        axes.grid(which="major", visible=False)
        axes.grid(which="minor", color=PAPER, linewidth=0.8)
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)
        if n <= NUMBERED:
            for i, j in np.argwhere(~np.isnan(matrix.shares)):
                share = matrix.shares[i, j]
                colour = PAPER if abs(share - 50) > 38 else INK
                axes.text(j, i, f"{share:.0f}", ha="center", va="center", fontsize=8, color=colour)
        bar = figure.colorbar(image, ax=axes, shrink=0.7, aspect=24, pad=0.02)
        bar.set_label("prompts on which the row is preferred (%)", fontsize=8.5)
        bar.outline.set_visible(False)
        more = f" (best {POLICIES} of {POLICIES + matrix.left_out})" if matrix.left_out else ""
        title(axes, f"Head to head{more}", pad=10)
    return figure


def draw_length(rows: Sequence[dict[str, Any]]) -> Any:
    """Per evaluation: length of the answers against score, and the score with length or style taken out
    against the plain one; on the dashed line taking it out changes nothing.

    Args:
        rows: from `tidy.length_rows`.
    """
    shown = [pair for pair in CONTROLLED if any(row["evaluation"] == pair[0].evaluation for row in rows)]
    with styled():
        figure = new_figure(9.6, 4.1 * len(shown))
        panels = np.reshape(figure.subplots(len(shown), 2), (len(shown), 2))
        drawn = []
        for (left, right), (plain, controlled) in zip(panels, shown, strict=True):
            own = [row for row in rows if row["evaluation"] == plain.evaluation]
            both = [row for row in own if row["controlled_score"] is not None]
            drawn.append((left, own, _points(left, own, "mean_characters", "score")))
            drawn.append((right, both, _points(right, both, "score", "controlled_score")))
            left.set_xlabel("mean length (characters)")
            left.set_ylabel(f"{plain.title} (%)")
            right.set_xlabel(f"{plain.title} (%)")
            right.set_ylabel(f"{wrapped(controlled.title, 34)} (%)")
            if not both:
                right.set_axis_off()
            else:
                ends = [
                    f([row[name] for row in both for name in ("score", "controlled_score")])
                    for f in (min, max)
                ]
                right.plot(ends, ends, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        numbers = ", numbered by rank" if len(drawn[0][1]) > NAMED else ""
        title(panels[0, 0], f"Length of answers and score{numbers}", pad=10)
        title(panels[0, 1], "What taking length or style out changes", pad=10)
        legend(figure, any(row["control"] for row in rows), False)
        for axes, _, _ in drawn:  # the lines from labels to points must not move what was laid out
            axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for axes, own, (x, y) in drawn:
            texts = point_labels([row["reward_model"] for row in own], [row["place"] for row in own])
            if texts:
                place_labels(axes, x[: len(texts)], y[: len(texts)], texts, _boxes(axes, x, y))
    return figure


def _points(axes: Any, rows: Sequence[dict[str, Any]], x: str, y: str) -> tuple[list[float], list[float]]:
    for row in rows:
        colour = SOFT if row["control"] else ACCENT
        face = PAPER if row["control"] else colour
        axes.plot(row[x], row[y], "o", markersize=6, color=colour, markerfacecolor=face, zorder=3)
    axes.margins(0.13)
    return [row[x] for row in rows], [row[y] for row in rows]


def _boxes(axes: Any, x: Sequence[float], y: Sequence[float]) -> np.ndarray:
    """Every point as a small box in data coordinates, shape (n, 4): what labels should not cover."""
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    half = np.array([(x1 - x0) / 100, (y1 - y0) / 100])
    points = np.column_stack([x, y])
    return np.hstack([points - half, points + half])
