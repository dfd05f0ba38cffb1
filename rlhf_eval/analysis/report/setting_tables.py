"""The tables that compare several settings and metrics."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from rlhf_eval.analysis.overall import Cell, Overall
from rlhf_eval.analysis.ranking import Ranking
from rlhf_eval.analysis.report.data_table import DataTable, name_column, number_column, text_column


def cell_data(ranking: Ranking, cells: Sequence[Cell]) -> DataTable:
    """Score and rank of every reward model of the aggregate in each setting and metric."""
    rows = []
    for row in ranking.rows:
        line: dict[str, Any] = {"reward_model": row.reward_model, "score": row.score, "rank": row.rank}
        for number, cell in enumerate(cells):
            own = next(one for one in cell.ranking.rows if one.reward_model == row.reward_model)
            line |= {f"score_{number}": own.score, f"rank_{number}": own.rank}
            line[f"words_{number}"] = f"{own.score:.1f} ({own.rank})"
        rows.append(line)
    return DataTable(
        "settings",
        "Score in percent and, in brackets, rank in each setting.",
        (
            name_column("Reward model", "reward_model"),
            number_column("Aggregate", "score"),
            *(text_column(cell.name, f"words_{number}") for number, cell in enumerate(cells)),
        ),
        rows,
        "stages/score/per_prompt.jsonl of every finished run",
    )


def agreement_data(overall: Overall) -> DataTable:
    """Kendall's τ-b between the settings' scores of the candidates."""
    names = [f"{number}. {cell.name}" for number, cell in enumerate(overall.cells, 1)]
    rows = [
        {"setting": name}
        | {f"tau_{j}": None if np.isnan(value) else float(value) for j, value in enumerate(line)}
        for name, line in zip(names, overall.agreement, strict=True)
    ]
    return DataTable(
        "agreement",
        "Does the ranking hold? Kendall's τ-b between the scores in two settings, over the candidates that "
        "both have.",
        (
            name_column("Setting", "setting"),
            *(number_column(str(j + 1), f"tau_{j}", digits=2) for j in range(len(names))),
        ),
        rows,
        "the scores of the table above",
    )


def best_of_n_data(overall: Overall) -> DataTable:
    """What training gained over choosing the best of N samples, by setting and reward model."""
    return DataTable(
        "best_of_n",
        "Lead of the trained policy over the best of N samples, chosen by the same reward model, in points.",
        (
            name_column("Reward model", "reward_model"),
            text_column("Setting", "setting"),
            number_column("Lead", "estimate"),
            number_column("95 %", "low", "high"),
        ),
        [asdict(lead) for lead in overall.best_of_n],
        "stages/score/per_prompt.jsonl of every finished run",
    )
