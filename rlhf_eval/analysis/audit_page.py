"""The page and the figures of an audit, drawn from its `audit.json`; no script, no network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhf_eval.analysis.style import ACCENT, INK, SOFT, inline_svg, new_figure, save, styled, wrapped
from rlhf_eval.analysis.tables import page_templates
from rlhf_eval.files import read_json, write_text

ROW_INCHES = 0.42


def write_audit_page(folder: Path) -> Path:
    """Write `audit.html`, and every figure as PNG, SVG and CSV, beside `folder/audit.json`.

    Raises:
        DataError: there is no such file, or it is damaged.
    """
    from markupsafe import Markup

    audit = read_json(folder / "audit.json")
    figures: dict[str, Any] = {}
    for kind in ("ablation", "perturbation"):  # those of an audit that was another one
        for old in (folder / "figures").glob(f"{kind}_*"):
            old.unlink()
    for entry in audit["ablation"]:
        figures[entry["figure"]] = draw_ablation(entry)
        save(figures[entry["figure"]], folder / "figures", entry["figure"], _observations(entry["arms"]))
    for entry in audit["perturbation"]:
        figures[entry["figure"]] = draw_drops(entry["rewrites"])
        save(figures[entry["figure"]], folder / "figures", entry["figure"], _observations(entry["rewrites"]))
    environment = page_templates()
    environment.filters["p_value"] = lambda p: "–" if p is None else "< 0.0001" if p < 1e-4 else f"{p:.4f}"
    macros = environment.get_template("audit_changes.html.j2").module
    page = environment.get_template("audit.html.j2").render(
        audit=audit,
        changes=macros.changes,  # type: ignore[attr-defined]
        # Marked safe: drawn by matplotlib, which escapes the names it writes.
        figures={
            name: Markup(inline_svg(figure, f"f{place}", name))
            for place, (name, figure) in enumerate(figures.items())
        },
    )
    write_text(folder / "audit.html", page)
    return folder / "audit.html"


def draw_ablation(entry: dict[str, Any]) -> Any:
    """Left: every model from its original accuracy to that without the artifact. Right: drops by arm."""
    models = entry["arms"][0]["models"]
    rows = max(len(models), len(entry["arms"]))
    with styled():
        figure = new_figure(9.4, 1.1 + ROW_INCHES * rows)
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
        for place, model in enumerate(models):
            colour = ACCENT if place == 0 else SOFT
            left.annotate(
                "",
                (model["changed"], place),
                (model["original"], place),
                arrowprops={
                    "arrowstyle": "-|>",
                    "color": colour,
                    "linewidth": 1.4,
                    "shrinkA": 0,
                    "shrinkB": 0,
                },
            )
            left.plot([model["original"], model["changed"]], [place, place], color=colour, linewidth=0)
            left.plot(model["original"], place, "o", color=colour, markersize=5)
            left.annotate(
                _signed(model["changed"] - model["original"]),
                ((model["original"] + model["changed"]) / 2, place),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=INK,
            )
        left.margins(x=0.15)
        left.set_yticks(range(len(models)), [wrapped(model["reward_model"]) for model in models])
        left.set_ylim(len(models) - 0.5, -0.5)
        left.set_xlabel("accuracy, original → changed (%)")
        _drops(right, entry["arms"])
    return figure


def draw_drops(rows: Sequence[dict[str, Any]]) -> Any:
    """Drop in accuracy of each change with its interval, and the panel's mean drop."""
    with styled():
        figure = new_figure(7.2, 1.1 + ROW_INCHES * len(rows))
        _drops(figure.subplots(), rows)
    return figure


def _drops(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    axes.axvline(0, color=SOFT, linewidth=0.8)
    for place, row in enumerate(rows):
        axes.plot([row["low"], row["high"]], [place, place], color=ACCENT, linewidth=1.6)
        axes.plot(row["drop"], place, "o", color=ACCENT, markersize=5)
        if row["panel_drop"] is not None:
            axes.plot(row["panel_drop"], place + 0.22, "D", color=SOFT, markersize=4)
    axes.set_yticks(range(len(rows)), [wrapped(row["name"], 30) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("drop in accuracy (points)")


def _signed(points: float) -> str:
    return "0.0" if abs(points) < 0.05 else f"{points:+.1f}".replace("-", "−")


def _observations(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per change and reward model, as the figures show them."""
    return [
        {
            "change": row["name"],
            "n": row["n"],
            **{
                name: model[name]
                for name in ("reward_model", "original", "changed", "drop", "low", "high", "p")
            },
        }
        for row in rows
        for model in row["models"]
    ]
