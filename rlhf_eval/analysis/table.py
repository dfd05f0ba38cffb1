"""All runs as one table, a row per run and checkpoint; `analysis/columns.py` says what the columns mean."""

import math
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_eval.analysis.columns import COLUMNS, SUSPICIOUS, in_order, named, suspicious_column
from rlhf_eval.analysis.experiment import grid_choices
from rlhf_eval.analysis.metrics import METRICS
from rlhf_eval.analysis.run_record import RunRecord, read_record, read_records
from rlhf_eval.analysis.selection import peak
from rlhf_eval.config.plain import fingerprint, flat
from rlhf_eval.errors import DataError
from rlhf_eval.files import sha256_json

if TYPE_CHECKING:
    import pandas

Row = dict[str, Any]
TYPES = {"Float64": (int, float), "Int64": int, "boolean": bool, "string": str}
CHECKPOINT = [column.name for column in COLUMNS if column.place == "checkpoint" and column.dtype == "Float64"]


def runs_table(path: str | Path) -> "pandas.DataFrame":
    """One row per run and checkpoint; a run without checkpoints, such as the untrained policy, has one row.

    Nothing is refused because it cannot be compared: that is ranking's matter. Unfinished runs are there with
    their state. `table[table.final]` has one row per run, with its scores.

    Args:
        path: an experiment's folder, a folder of experiments, or one run's directory.

    Returns:
        The columns of `COLUMNS`, those of a family (`benchmark.*`) for each name that occurs; NA for what is
        missing or not finite. By experiment, reward model, seed, directory and step.

    Raises:
        DataError: there are no runs at the path, or a file of one is damaged.
        ConfigError: a `config.yaml` is damaged.
    """
    path = Path(os.path.abspath(path))
    return _frame([row for runs in _experiments(path) for row in _rows(path, runs)])


def describe(table: "pandas.DataFrame") -> "pandas.DataFrame":
    """A row for each column of a table of runs: `column`, `dtype`, `unit`, `of` (its place), `meaning`."""
    import pandas as pd

    columns = [(name, named(name)) for name in table]
    return pd.DataFrame(
        [(name, str(table[name].dtype), c.unit, c.place, c.meaning) for name, c in columns],
        columns=["column", "dtype", "unit", "of", "meaning"],
    )


def _experiments(path: Path) -> Iterator[list[RunRecord]]:
    if (path / "config.yaml").is_file():
        yield [read_record(path)]
        return
    folders = sorted({file.parents[1] for file in path.glob("*/*/config.yaml")})
    if any(path.glob("*/config.yaml")) or not folders:
        folders = [path]
    for folder in folders:
        yield read_records(folder)


def _rows(path: Path, runs: Sequence[RunRecord]) -> Iterator[Row]:
    """The rows of an experiment's runs."""
    chosen = {} if runs[0].path == path else _chosen(runs)
    duplicates = _duplicates(runs)
    for run in runs:
        own = _identity(run) | {
            "run_directory": run.path.relative_to(path).as_posix(),
            "chosen": chosen.get(run.path),
            "duplicate": None if run.path == path else run.path in duplicates,
        }
        *earlier, final = _checkpoints(run)
        yield from (own | row for row in earlier)
        yield own | final | _results(run)


def _identity(run: RunRecord) -> Row:
    config = run.config
    made_by = _object(run, "manifest.json", run.manifest, "stages", "train") or run.manifest
    code = _object(
        run, "manifest.json", run.manifest, "environments", str(made_by.get("environment")), "code"
    )
    return {
        "experiment": run.path.parent.name,
        "run": run.path.name,
        "reward_model": run.reward_model,
        "control": run.control,
        "kind": config.reward_model.kind,
        "base_model": config.reward_model.card.base_model,
        "policy": run.policy,
        "algorithm": run.algorithm,
        "seed": run.seed,
        "hash8": run.hash8,
        **{f"grid.{name}": value for name, value in run.point},
        "state": run.state,
        "finished": run.finished,
        "judge": run.judge,
        "judge_model": config.judge.model,
        "prompts": config.prompts.name,
        "prompts_sha256": _prompts_sha256(run),
        "commit": _cell(run, "commit", code.get("commit")),
        "dirty": _cell(run, "dirty", code.get("dirty")),
        "started": _cell(run, "started", run.manifest.get("written_at")),
    }


def _prompts_sha256(run: RunRecord) -> str:
    prompts = fingerprint(run.config.prompts)
    known = _object(run, "manifest.json", run.manifest, "sha256")
    contents = {str(source): known[source] for source in flat(prompts).values() if str(source) in known}
    return sha256_json([prompts, contents])


def _checkpoints(run: RunRecord) -> list[Row]:
    """The rows of a run's curve; at least one."""
    if not run.curves:
        return [{"final": True}]
    best = peak(run.curves)
    rows = [
        {name: _cell(run, name, row.get(name)) for name in CHECKPOINT}
        | {"step": _cell(run, "step", row["step"]), "completions": _cell(run, "completions", row.get("n"))}
        | {"final": False, "peak": best is not None and row["step"] == best.step}
        for row in run.curves
    ]
    rows[-1]["final"] = True
    return rows


def _results(run: RunRecord) -> Row:
    """What is known of the run as a whole: scores of its final policy, benchmarks, totals."""
    file = "stages/score/scores.json"
    totals = ("training_seconds", "training_steps", "no_gradient_steps")
    found: Row = {name: getattr(run, name) for name in totals}
    suspicious = _object(run, file, run.scores, "suspicious_answers")
    for evaluation in ("alpaca_eval", "arena_hard"):
        scores = _object(run, file, run.scores, evaluation)
        found |= {f"{evaluation}.{name}": value for name, value in scores.items()}
        shares = _object(run, file, suspicious, evaluation)
        found |= {suspicious_column(evaluation, what): shares.get(what) for what in SUSPICIOUS}
    consistency = _object(run, file, run.scores, "arena_hard", "position_consistency")
    gold = _object(run, file, run.scores, "gold")
    found |= {"arena_hard.position_consistency": consistency.get("share")}
    found |= {"gold.mean": gold.get("mean"), "gold.n": gold.get("n")}
    for judge in _object(run, file, run.scores, "second_judges"):
        for metric in METRICS.values():
            scores = _object(run, file, run.scores, "second_judges", judge, metric.evaluation)
            found[f"second_judge.{judge}.{metric.name}"] = scores.get(metric.summary_field)
    for name in run.benchmarks:
        result = _object(run, "stages/benchmark/results.json", run.benchmarks, name)
        found[f"benchmark.{name}"] = result.get("accuracy")
        found |= {f"benchmark_{field}.{name}": result.get(field) for field in ("low", "high", "n")}
    return {name: _cell(run, name, value) for name, value in found.items() if _is_column(name)}


def _chosen(runs: Sequence[RunRecord]) -> dict[Path, bool]:
    """Of finished runs with a grid, whether each is at its reward model's point."""
    settings: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for run in runs:
        settings[run.policy, run.algorithm].append(run)
    return {
        run.path: run.point == choice.point
        for together in settings.values()
        for name, choice in grid_choices(together).items()
        for run in together
        if run.finished and run.reward_model == name and choice.point is not None
    }


def _duplicates(runs: Sequence[RunRecord]) -> set[Path]:
    """The runs that another one equals in everything that changes results."""
    alike: dict[tuple[Any, ...], list[RunRecord]] = defaultdict(list)
    for run in runs:
        alike[run.reward_model, run.policy, run.algorithm, run.seed].append(run)
    same: dict[str, list[Path]] = defaultdict(list)
    for group in alike.values():
        for run in group if len(group) > 1 else ():
            same[sha256_json(fingerprint(run.config))].append(run.path)
    return {path for paths in same.values() if len(paths) > 1 for path in paths}


def _object(run: RunRecord, file: str, value: dict[str, Any], *names: str) -> dict[str, Any]:
    """The object at a path of names within a file's value; empty where there is none, or null."""
    for place, name in enumerate(names):
        value = value.get(name) or {}
        if not isinstance(value, dict):
            raise DataError(
                f"{run.path / file}: {'.'.join(names[: place + 1])} is {str(value)[:80]!r}, no object.",
                "Restore the file, or delete its folder and give the run's command again.",
            )
    return value


def _cell(run: RunRecord, name: str, value: Any) -> Any:
    """A value that fits its column; None for what is missing or not finite."""
    dtype = _dtype(name)
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if not isinstance(value, TYPES[dtype]) or (isinstance(value, bool) and dtype != "boolean"):
        raise DataError(
            f"{run.path}: {name} is {str(value)[:80]!r} in the run's files, which is no {dtype}.",
            "Restore the file, or delete its stage's folder and give the run's command again.",
        )
    return value


@lru_cache(maxsize=4096)
def _dtype(name: str) -> str:
    return named(name).dtype


@lru_cache(maxsize=4096)
def _is_column(name: str) -> bool:
    """Fields of `scores.json` that explain a score (how length was controlled) are no columns."""
    return any(c.name == name or (c.name[-1] == "*" and name.startswith(c.name[:-1])) for c in COLUMNS)


def _frame(rows: list[Row]) -> "pandas.DataFrame":
    import pandas as pd

    def column(name: str) -> Any:
        values = [row.get(name) for row in rows]
        if name.startswith("grid.") and not all(v is None or type(v) in (int, float) for v in values):
            return pd.array([None if v is None else str(v) for v in values], dtype="string")
        return pd.array(values, dtype=_dtype(name))  # type: ignore[call-overload]

    names = in_order({name for row in rows for name in row})
    return pd.DataFrame({name: column(name) for name in names})
