"""How results are shown: JSON, tables, the terminal."""

import json
from collections.abc import Iterable, Sequence
from typing import Any


def print_json(value: Any) -> int:
    print(json.dumps(value, indent=2, ensure_ascii=False))
    return 0


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    console().print(table(columns, rows))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Any:
    """Columns of text; None is an empty cell."""
    from rich import box
    from rich.table import Table

    made = Table(*columns, box=box.SIMPLE_HEAD)
    for row in rows:
        made.add_row(*("" if cell is None else str(cell) for cell in row))
    return made


def console() -> Any:
    """The terminal; elsewhere wide enough that tables are not folded."""
    from rich.console import Console

    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=200)
