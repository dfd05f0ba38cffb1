"""The ranking as a table for the terminal, and what tables on pages need."""

from typing import Any

from rlhf_eval.analysis.metrics import METRICS
from rlhf_eval.analysis.ranking import Ranking


def ranking_table(ranking: Ranking) -> Any:
    """A rich Table: candidates, then controls, then the untrained policy; columns without data left out."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    others = [m for m in METRICS.values() if m is not ranking.metric]
    others = [m for m in others if any(m.name in row.scores for row in ranking.rows)]
    gold = any(row.gold is not None for row in ranking.rows)
    table = Table(box=box.SIMPLE_HEAD, title=f"Reward models by {ranking.metric.title}", title_justify="left")
    table.add_column("reward model", overflow="fold")
    for header in ["rank", "95 %", ranking.metric.title, "95 %", *(m.title for m in others)]:
        table.add_column(header.replace("length-controlled", "LC"), justify="right")
    for header in [*ranking.benchmarks, *(["gold"] if gold else []), "seeds"]:
        table.add_column(escape(header), justify="right")

    def add(
        name: str, rank: str, rank_interval: str, entry: Any, benchmarks: dict, style: str | None
    ) -> None:
        table.add_row(
            escape(name),
            rank,
            rank_interval,
            f"{entry.score:.1f}",
            f"{entry.low:.1f} – {entry.high:.1f}",
            *(number(entry.scores.get(m.name)) for m in others),
            *(number(benchmarks.get(b)) for b in ranking.benchmarks),
            *([number(entry.gold, 3)] if gold else []),
            str(entry.n_seeds),
            style=style,
        )

    candidates = [row for row in ranking.rows if not row.control]
    controls = [row for row in ranking.rows if row.control]
    for row in candidates:
        add(row.reward_model, str(row.rank), span(row.rank_low, row.rank_high), row, row.benchmarks, None)
    if controls:
        table.add_section()
    for row in controls:
        name = f"{row.reward_model} (control)"
        add(name, str(row.rank), span(row.rank_low, row.rank_high), row, row.benchmarks, "dim")
    if ranking.untrained:
        table.add_section()
        add("untrained policy", "", "", ranking.untrained, {}, "italic")
    table.caption = escape("\n".join([*ranking.notes, *(f"Skipped: {n} ({s})" for n, s in ranking.skipped)]))
    table.caption_justify = "left"
    return table


def number(value: float | None, digits: int = 1) -> str:
    """A number of a table, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}"


def span(low: int, high: int) -> str:
    """An interval of ranks: `2` or `1–3`."""
    return str(low) if low == high else f"{low}–{high}"


def page_templates() -> Any:
    """The templates of this package's HTML pages; whatever is put into one is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("rlhf_eval.analysis", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    return environment
