"""What the runs took: seconds and tokens of training, verdicts and answers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhf_eval.analysis.experiment import RunRecord
from rlhf_eval.analysis.report.data_table import DataTable, name_column, number_column, text_column, with_data
from rlhf_eval.files import read_jsonl

PARTS = ("generation", "scoring", "training", "synchronisation", "idle")
"""What a training step's seconds are told apart into, as `metrics.jsonl` names them."""
GAMES = {"alpaca_eval": 1, "arena_hard": 2}
"""Verdicts that an evaluation asks for by prompt and judge."""


def cost_data(runs: Sequence[RunRecord]) -> tuple[DataTable, list[str]]:
    """Time and verdicts of every reward model, summed over its runs, and the totals in words."""
    rows: dict[str, dict[str, Any]] = {}
    for run in runs:
        row = rows.setdefault(
            run.reward_model,
            {
                "reward_model": run.reward_model,
                "runs": 0,
                "verdicts": 0,
                "attempts": None,
                "seconds": None,
                "tokens": None,
                "calls": None,
                "judge_tokens": None,
                "money": None,
            }
            | {f"{part}_seconds": None for part in PARTS},
        )
        row["runs"] += 1
        row["attempts"] = (
            (row["attempts"] or 0) + run.status["attempt"] if run.status.get("attempt") else row["attempts"]
        )
        row["verdicts"] += _verdicts(run)
        for name, value in (training_totals(run.path / "metrics.jsonl") | judging_totals(run)).items():
            row[name] = (row[name] or 0) + value
    for row in rows.values():
        row["minutes"] = _minutes(row["seconds"])
        row["shares"] = ", ".join(
            f"{part} {row[f'{part}_seconds'] / row['seconds']:.0%}"
            for part in PARTS
            if row["seconds"] and row[f"{part}_seconds"] and row[f"{part}_seconds"] >= 0.005 * row["seconds"]
        )
    columns = (
        name_column("Reward model", "reward_model"),
        number_column("Runs", "runs", digits=None),
        number_column("Attempts", "attempts", digits=None),
        number_column("Training, minutes", "minutes"),
        number_column("Tokens sampled", "tokens", digits=None),
        text_column("Where the time went", "shares"),
        number_column("Verdicts", "verdicts", digits=None),
        number_column("Calls", "calls", digits=None),
        number_column("Judge's tokens", "judge_tokens", digits=None),
        number_column("Money", "money", digits=2),
    )
    table = DataTable(
        "cost",
        "Training: minutes of its steps, mean over processes, without start and checkpoints. Verdicts: what "
        "the scores needed, of all judges; one that several runs share was asked and paid for once, by the "
        "run that came first. Money: by the judge's prices, where they are configured.",
        with_data(columns, list(rows.values())),
        list(rows.values()),
        "metrics.jsonl, status.json, stages/judge/spent.jsonl and stages/score/scores.json of every run",
    )
    return table, _totals(list(rows.values()))


def training_totals(metrics: Path) -> dict[str, float]:
    """Seconds, their parts, and tokens over the training steps of a run's `metrics.jsonl`; empty where none
    are recorded. A step that was done again after an interruption counts each time: it took the time."""
    totals: dict[str, float] = {}
    if not metrics.exists():
        return totals
    for line in metrics.read_bytes().split(b"\n"):
        if b'"seconds"' not in line:
            continue
        try:
            row = json.loads(line)
        except ValueError:  # torn by a kill
            continue
        for name in ("seconds", "tokens", *(f"{part}_seconds" for part in PARTS)):
            totals[name] = totals.get(name, 0) + (row.get(name) or 0)
    return totals


def judging_totals(run: RunRecord) -> dict[str, float]:
    """Calls, tokens and money of all judges of a run, by `spent.jsonl`; empty where nothing is recorded, and
    without money where a call had no price."""
    files = [run.path / "stages/judge" / name / "spent.jsonl" for name in ("", *run.config.second_judges)]
    rows = [row for file in files if file.exists() for row in read_jsonl(file)]
    if not rows:
        return {}
    totals: dict[str, float] = {
        "calls": sum(row["calls"] for row in rows),
        "judge_tokens": sum(row["input_tokens"] + row["output_tokens"] for row in rows),
    }
    prices = [row["money"] for row in rows]
    return totals if None in prices else totals | {"money": sum(prices)}


def _verdicts(run: RunRecord) -> int:
    judges = 1 + len(run.scores.get("second_judges", {}))
    return sum(
        games * judges * (run.scores.get(name, {}).get("n", 0) + run.scores.get(name, {}).get("failed", 0))
        for name, games in GAMES.items()
    )


def _minutes(seconds: float | None) -> float | None:
    return None if seconds is None else seconds / 60


def _totals(rows: list[dict[str, Any]]) -> list[str]:
    seconds = sum(row["seconds"] or 0 for row in rows)
    sentences = []
    if seconds:
        tokens = sum(row["tokens"] or 0 for row in rows)
        unit, amount = ("hours", seconds / 3600) if seconds >= 3600 else ("minutes", seconds / 60)
        sentences.append(f"Training took {amount:,.1f} {unit} of steps and sampled {tokens:,.0f} tokens.")
    else:
        sentences.append("No run recorded the time of its training steps.")
    sentences.append(f"The scores stand on {sum(row['verdicts'] for row in rows):,} verdicts.")
    if asked := [row for row in rows if row["calls"]]:
        calls, tokens = (sum(row[name] for row in asked) for name in ("calls", "judge_tokens"))
        money = [row["money"] for row in asked]
        price = "" if None in money else f", for {sum(money):,.2f} in the currency of the judge's prices"
        sentences.append(f"Judges took {calls:,} calls of these runs and {tokens:,} tokens{price}.")
    return sentences
