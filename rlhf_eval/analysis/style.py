"""How every figure looks: type, lines, colours that colour-blind readers can tell apart; and its files."""

import csv
import io
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlhf_eval.files import write_text

INK, SOFT, RULE, PAPER = "#1c2127", "#68707a", "#d9dde2", "#ffffff"
"""Text, secondary text, grid, background. `inline_svg` hands them to the page's own colours."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7a5230")
"""Okabe and Ito's palette without black and yellow, two hues added; distinct under the common forms of
colour blindness and on white and black."""
ACCENT = COLOURS[0]
_PAGE_COLOURS = ((INK, "ink"), (SOFT, "soft"), (RULE, "rule"), (PAPER, "paper"), (ACCENT, "accent"))
DASHES = ((0, ()), (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))


@contextmanager
def styled() -> Iterator[None]:
    """Settings under which figures are drawn and saved: the same files from the same data."""
    import matplotlib

    settings: dict[Any, Any] = {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9.5,
        "text.parse_math": False,  # names are text: a "$" in one is no formula
        "text.color": INK,
        "axes.edgecolor": SOFT,
        "axes.labelcolor": INK,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": RULE,
        "grid.linewidth": 0.6,
        "xtick.color": SOFT,
        "ytick.color": SOFT,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "legend.frameon": False,
        "figure.facecolor": PAPER,
        "svg.hashsalt": "rlhf_eval",
        "svg.fonttype": "path",
        "pdf.fonttype": 42,  # TrueType, which journals ask for
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # A name in a script that the font lacks shows as boxes here, and whole in the tables and CSV.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib Figure (inches) on the Agg canvas, outside pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=100)
    FigureCanvasAgg(figure)
    return figure


def wrapped(name: str, width: int = 24) -> str:
    """A name for a figure: printable, broken after "-", "_", "/" or a space, at most three lines."""
    printable = "".join(c if c.isprintable() else " " for c in name)
    if len(printable) > 2.5 * width:
        printable = f"{printable[: int(1.5 * width)]}…{printable[-width // 2 :]}"
    lines = [""]
    for part in re.findall(rf"[^-_/ ]{{0,{width - 1}}}[-_/ ]|[^-_/ ]{{1,{width}}}", printable):
        if lines[-1] and len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines[:3])


def shortened(name: str, characters: int) -> str:
    """A name in one line: printable, and shortened in the middle, because names differ at their ends."""
    line = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    if len(line) <= characters:
        return line
    return f"{line[: characters // 2]}…{line[-(characters - characters // 2 - 1) :]}"


def title(axes: Any, text: str, pad: float) -> None:
    """The title of a figure, above its first axes."""
    axes.set_title(text, loc="left", fontsize=11.5, weight="bold", pad=pad)


def legend(figure: Any, controls: bool, reference: bool) -> None:
    """What the marks of candidates, controls and the untrained policy's line mean, under the figure."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], marker="o", linestyle="", color=ACCENT, label="reward model")]
    if controls:
        handles.append(
            Line2D([], [], marker="o", linestyle="", color=SOFT, markerfacecolor=PAPER, label="control")
        )
    if reference:
        handles.append(
            Line2D([], [], color=INK, linewidth=1, linestyle=(0, (4, 3)), label="untrained policy")
        )
    figure.legend(handles=handles, ncols=3, fontsize=8.5, loc="outside lower center")


def save(figure: Any, folder: Path, name: str, rows: Sequence[dict[str, Any]]) -> list[Path]:
    """Write `name`.png (200 dpi), .svg, .pdf (TrueType fonts) and .csv (the numbers drawn, one observation a
    row)."""
    folder.mkdir(parents=True, exist_ok=True)
    png, svg, pdf, table = (folder / f"{name}.{kind}" for kind in ("png", "svg", "pdf", "csv"))
    undated = {png: {"Software": None}, pdf: dict.fromkeys(("Creator", "Producer", "CreationDate"))}
    for path, metadata in undated.items():
        temporary = path.with_name(f"{path.name}.tmp")
        with styled():
            figure.savefig(temporary, format=path.suffix[1:], dpi=200, metadata=metadata)
        os.replace(temporary, path)
    write_text(svg, svg_text(figure))
    write_text(table, csv_text(rows))
    return [png, svg, pdf, table]


def svg_text(figure: Any) -> str:
    """The figure as a stand-alone SVG document; text as outlines, so that it needs no font."""
    stream = io.StringIO()
    with styled():
        figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return stream.getvalue()


def inline_svg(figure: Any, prefix: str, description: str) -> str:
    """The figure as an `<svg>` element for a page with several: ids prefixed, neutral colours the page's own.

    Args:
        prefix: of every id; letters and digits.
        description: what a screen reader says.
    """
    from html import escape

    svg = svg_text(figure)
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    svg = re.sub(r'<svg ([^>]*?)width="[^"]*pt"', r"<svg \1", svg, count=1)
    svg = re.sub(r'<svg ([^>]*?)height="[^"]*pt"', r"<svg \1", svg, count=1)
    for colour, name in _PAGE_COLOURS:
        svg = re.sub(rf"(fill|stroke): {colour}", rf"\1: var(--{name})", svg)
    width = f"max-width: {112 * figure.get_figwidth():.0f}px"
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" style="{width}" ', 1)


def csv_text(rows: Iterable[dict[str, Any]]) -> str:
    """Rows with the same keys as CSV with a header."""
    rows = list(rows)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
