"""The figures: benchmark against downstream score, the ranking, and the curves over training."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_eval.analysis.correlation import Correlation, correlations
from rlhf_eval.analysis.experiment import RunRecord
from rlhf_eval.analysis.labels import place_labels
from rlhf_eval.analysis.ranking import Ranking, RankRow
from rlhf_eval.analysis.style import (
    ACCENT,
    COLOURS,
    DASHES,
    INK,
    PAPER,
    SOFT,
    new_figure,
    save,
    styled,
    wrapped,
)
from rlhf_eval.analysis.tables import span
from rlhf_eval.analysis.tidy import correlation_rows, curve_rows, ranking_rows


def write_figures(runs: Sequence[RunRecord], ranking: Ranking, folder: Path) -> list[Path]:
    """Write each figure as PNG and SVG, with the numbers it shows as CSV.

    `ranking` always; `correlation` if a benchmark was measured; `curves` if checkpoints were.

    Returns:
        the files written.
    """
    paths = save(draw_ranking(ranking), folder, "ranking", ranking_rows(ranking))
    if ranking.benchmark is not None:
        paths += save(draw_correlation(ranking), folder, "correlation", correlation_rows(ranking))
    rows = curve_rows(runs)
    if rows:
        paths += save(draw_curves(rows), folder, "curves", rows)
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
            lines.append("Brackets: 95 % interval from the noise of both measurements.")
        axes.text(0, 1.015, "\n".join(lines), transform=axes.transAxes, fontsize=8.2, color=SOFT, va="bottom")
        _title(axes, "Benchmark accuracy against downstream score", pad=10 + 11.5 * len(lines))
        _legend(figure, rows, ranking.untrained is not None)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        place_labels(
            axes,
            [row.benchmark or 0.0 for row in rows],
            [row.score for row in rows],
            [wrapped(row.reward_model) for row in rows],
            _obstacles(axes, rows, ranking),
        )
    return figure


def draw_ranking(ranking: Ranking) -> Any:
    """Score with interval of each reward model, best on top; the interval of its rank beside it."""
    rows = ranking.rows
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
        _title(axes, "Downstream score of each reward model", pad=18)
        _legend(figure, rows, ranking.untrained is not None)
    return figure


def draw_curves(rows: Sequence[dict[str, Any]]) -> Any:
    """Proxy and gold reward over √KL (the distance of Gao et al. 2023), thin per seed, bold the mean."""
    panels = [("proxy_reward", "proxy reward (standard deviations)")]
    if any(row["gold_reward"] is not None for row in rows):
        panels.append(("gold_reward", "gold reward"))
    names = sorted({(row["control"], row["reward_model"]) for row in rows})
    looks = _looks(names)
    with styled():
        figure = new_figure(4.4 * len(panels) + 1.6, 4.2)
        for axes, (field, label) in zip(
            np.atleast_1d(figure.subplots(1, len(panels), sharex=True)), panels, strict=True
        ):
            for control, name in names:
                own = [row for row in rows if row["reward_model"] == name and row[field] is not None]
                if not own:
                    continue
                for seed in sorted({row["seed"] for row in own}):
                    line = np.array([(row["sqrt_kl"], row[field]) for row in own if row["seed"] == seed])
                    axes.plot(*line.T, linewidth=0.7, alpha=0.45, **looks[name])
                mean = _mean_curve(own, field)
                axes.plot(
                    *mean.T, linewidth=2, label=wrapped(name), zorder=2 if control else 3, **looks[name]
                )
                axes.plot(
                    *mean[-1],
                    "o",
                    markersize=5.5,
                    color=looks[name]["color"],
                    markerfacecolor=PAPER if control else None,
                )
            axes.set_ylabel(label)
            axes.set_xlabel("√KL to the initial policy (√nats per completion)")
        _title(figure.axes[0], "Reward over distance from the initial policy", pad=10)
        handles, texts = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside right center", fontsize=8.5)
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


def _title(axes: Any, text: str, pad: float) -> None:
    axes.set_title(text, loc="left", fontsize=11.5, weight="bold", pad=pad)


def _legend(figure: Any, rows: Sequence[RankRow], reference: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], marker="o", linestyle="", color=ACCENT, label="reward model")]
    if any(row.control for row in rows):
        handles.append(
            Line2D([], [], marker="o", linestyle="", color=SOFT, markerfacecolor=PAPER, label="control")
        )
    if reference:
        handles.append(
            Line2D([], [], color=INK, linewidth=1, linestyle=(0, (4, 3)), label="untrained policy")
        )
    figure.legend(handles=handles, ncols=3, fontsize=8.5, loc="outside lower center")


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


def _looks(names: Sequence[tuple[bool, str]]) -> dict[str, dict[str, Any]]:
    """Colour for candidates, grey for controls; dashes once colours repeat."""
    candidates = [name for control, name in names if not control]
    controls = [name for control, name in names if control]
    looks = {
        name: {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i // len(COLOURS) % len(DASHES)]}
        for i, name in enumerate(candidates)
    }
    return looks | {
        name: {"color": SOFT, "linestyle": DASHES[1 + i % (len(DASHES) - 1)]}
        for i, name in enumerate(controls)
    }


def _mean_curve(rows: Sequence[dict[str, Any]], field: str) -> np.ndarray:
    """Mean over seeds of √KL and reward at each checkpoint that every seed has, shape (checkpoints, 2)."""
    by_step = defaultdict(list)
    for row in rows:
        by_step[row["step"]].append((row["sqrt_kl"], row[field]))
    most = max(map(len, by_step.values()))
    return np.array(
        [np.mean(by_step[step], axis=0) for step in sorted(by_step) if len(by_step[step]) == most]
    )
