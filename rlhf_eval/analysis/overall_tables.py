"""Terminal tables of what several settings and metrics say beside their aggregate."""

from typing import Any

import numpy as np

from rlhf_eval.analysis.overall import Overall


def cells_table(found: Overall) -> Any:
    """A rich Table: score and rank of every reward model in every setting and metric."""
    table = _table("In each setting")
    table.add_column("reward model", overflow="fold")
    for cell in found.cells:
        table.add_column(_escaped(cell.name), justify="right")
    for row in found.ranking.rows:
        own = [
            next(r for r in cell.ranking.rows if r.reward_model == row.reward_model) for cell in found.cells
        ]
        table.add_row(_escaped(row.reward_model), *(f"{one.score:.1f}  ({one.rank})" for one in own))
    return table


def agreement_table(found: Overall) -> Any:
    """A rich Table: Kendall's τ-b between the settings' scores of the candidates; None if undefined."""
    if np.isnan(found.agreement).all():
        return None
    table = _table("Does the ranking hold? Kendall's tau between settings, candidates alone")
    table.add_column("")
    for number in range(1, len(found.cells) + 1):
        table.add_column(str(number), justify="right")
    for number, (cell, line) in enumerate(zip(found.cells, found.agreement, strict=True), 1):
        values = ("–" if np.isnan(tau) else f"{tau:.2f}" for tau in line)
        table.add_row(f"{number}  {_escaped(cell.name)}", *values)
    return table


def best_of_n_table(found: Overall) -> Any:
    """A rich Table: what training gained over choosing among samples; None without such a pair."""
    if not found.best_of_n:
        return None
    table = _table("Lead over best-of-N with the same reward model, points")
    table.add_column("reward model", overflow="fold")
    for header in ("setting", "lead", "95 %"):
        table.add_column(header, justify="left" if header == "setting" else "right")
    for lead in found.best_of_n:
        interval = f"{lead.low:+.1f} – {lead.high:+.1f}"
        table.add_row(_escaped(lead.reward_model), _escaped(lead.setting), f"{lead.estimate:+.1f}", interval)
    return table


def _table(title: str) -> Any:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
