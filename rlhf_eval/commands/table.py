"""`rlhf-eval table`: all runs as one table, for a file or a pipe."""

import json
import os
import secrets
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlhf_eval.errors import ConfigError
from rlhf_eval.files import write_text


def table(options: Namespace) -> int:
    from rlhf_eval.analysis.table import describe, runs_table

    output: Path | None = options.output
    if options.format == "parquet" and output is None:
        raise ConfigError("Parquet is no text that could be shown.", "Name a file: --output runs.parquet.")
    if output is not None and output.is_dir():
        raise ConfigError(f"{output} is a folder.", f"Name a file in it: --output {output}/runs.csv.")
    made = runs_table(options.experiment_folder)
    if options.columns:
        made = describe(made)
    if output is None:
        sys.stdout.write(TEXTS[options.format](made))
    elif options.format == "parquet":
        _write_parquet(made, output)
    else:
        write_text(output, TEXTS[options.format](made))
    return 0


def _csv(table: Any) -> str:
    return table.to_csv(index=False, lineterminator="\n")


def _json(table: Any) -> str:
    return (
        json.dumps(
            [dict(zip(table, row, strict=True)) for row in _cells(table)], indent=2, ensure_ascii=False
        )
        + "\n"
    )


def _markdown(table: Any) -> str:
    rows = [list(table), ["---"] * len(table.columns), *_cells(table)]
    return "".join(f"| {' | '.join(map(_markdown_cell, row))} |\n" for row in rows)


def _markdown_cell(value: Any) -> str:
    if value is None:
        return ""
    return " ".join(str(value).replace("\\", "\\\\").replace("|", "\\|").split())


def _cells(table: Any) -> list[tuple[Any, ...]]:
    """The rows as plain Python values; None for what is missing."""
    columns = (table[name].astype(object).where(table[name].notna(), None) for name in table)
    return list(zip(*columns, strict=True))


def _write_parquet(table: Any, output: Path) -> None:
    """As `files.write_text`: nobody ever reads half of it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.{secrets.token_hex(4)}.tmp")
    try:
        table.to_parquet(temporary, index=False)
        os.replace(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)


TEXTS: dict[str, Callable[[Any], str]] = {"csv": _csv, "json": _json, "md": _markdown}
