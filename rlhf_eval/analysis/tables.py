"""The ranking as a table for the terminal, and what tables on pages need."""

from typing import Any

from rlhf_eval.analysis.hostile import visible
from rlhf_eval.analysis.metrics import METRICS
from rlhf_eval.analysis.ranking import Ranking, RankRow


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
    lead = ["over untrained"] if ranking.untrained else []
    headers = ["rank", "95 %", "tier", "best", ranking.metric.title, "95 %", *lead]
    for header in [*headers, *(m.title for m in others)]:
        table.add_column(header.replace("length-controlled", "LC"), justify="right")
    for header in [*ranking.benchmarks, *(["gold"] if gold else []), "seeds"]:
        table.add_column(escape(header), justify="right")

    def add(name: str, places: list[str], lead: str, entry: Any, benchmarks: dict, style: str | None) -> None:
        table.add_row(
            escape(name),
            *places,
            f"{entry.score:.1f}",
            f"{entry.low:.1f} – {entry.high:.1f}",
            *([lead] if ranking.untrained else []),
            *(number(entry.scores.get(m.name)) for m in others),
            *(number(benchmarks.get(b)) for b in ranking.benchmarks),
            *([number(entry.gold, 3)] if gold else []),
            str(entry.n_seeds),
            style=style,
        )

    candidates = [row for row in ranking.rows if not row.control]
    controls = [row for row in ranking.rows if row.control]
    for row in candidates:
        add(row.reward_model, _places(row), _lead(row), row, row.benchmarks, None)
    if controls:
        table.add_section()
    for row in controls:
        name = f"{row.reward_model} (control)"
        add(name, _places(row), _lead(row), row, row.benchmarks, "dim")
    if ranking.untrained:
        table.add_section()
        add("untrained policy", [""] * 4, "", ranking.untrained, {}, "italic")
    mark = ["?: not shown to be better than the untrained policy (Holm)."] if ranking.untrained else []
    table.caption = escape(
        "\n".join([*ranking.notes, *mark, *(f"Skipped: {n} ({s})" for n, s in ranking.skipped)])
    )
    table.caption_justify = "left"
    return table


def _places(row: RankRow) -> list[str]:
    """Rank, its interval, tier, and the probability of being the best candidate."""
    best = "" if row.probability_best is None else f"{row.probability_best:.0%}"
    return [str(row.rank), span(row.rank_low, row.rank_high), str(row.tier), best]


def _lead(row: RankRow) -> str:
    """Lead over the untrained policy, marked where it is not proven; empty without one."""
    if row.difference is None:
        return ""
    return f"{row.difference:+.1f}{'' if row.better_than_untrained else ' ?'}".replace("-", "−")


def number(value: float | None, digits: int = 1) -> str:
    """A number of a table, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}"


def span(low: int, high: int) -> str:
    """An interval of ranks: `2` or `1–3`."""
    return str(low) if low == high else f"{low}–{high}"


def page_templates() -> Any:
    """The templates of this package's HTML pages; in whatever is put into one, unseen characters are made
    visible, and markup is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("rlhf_eval.analysis", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.filters["number"] = number
    return environment


def _visible(value: Any) -> Any:
    """What Jinja prints of a value, before it is escaped."""
    return visible(value) if type(value) is str else value
