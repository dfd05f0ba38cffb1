"""A table of the report: what the page shows of it, the whole of it as CSV, and where its numbers come
from."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_eval.analysis.hostile import visible
from rlhf_eval.analysis.style import csv_text
from rlhf_eval.analysis.tables import number
from rlhf_eval.files import write_text

SHOWN_ROWS = 200
"""Rows that the page shows of a table; its CSV has all."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        title: its head.
        fields: of a row: one, or the two ends of an interval.
        digits: after the point, of a number; None for text.
        kind: "name" (wide, may break), "text", "code" or "number".
    """

    title: str
    fields: tuple[str, ...]
    digits: int | None = None
    kind: str = "number"

    def cell(self, row: dict[str, Any]) -> str:
        """What the page shows of a row."""
        values = [row[name] for name in self.fields]
        if len(values) == 2:
            return "–" if None in values else " to ".join(self._one(value) for value in values)
        return self._one(values[0])

    def _one(self, value: Any) -> str:
        if value is None or value == "":
            return "–"
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, (int, float)):
            return f"{value:,}" if self.digits is None else number(value, self.digits).replace("-", "−")
        return str(value)


def name_column(title: str, field: str) -> Column:
    return Column(title, (field,), kind="name")


def text_column(title: str, field: str) -> Column:
    return Column(title, (field,), kind="text")


def code_column(title: str, field: str) -> Column:
    return Column(title, (field,), kind="code")


def number_column(title: str, *fields: str, digits: int | None = 1) -> Column:
    return Column(title, fields, digits)


def with_data(columns: Sequence[Column], rows: Sequence[dict[str, Any]]) -> tuple[Column, ...]:
    """The columns that have a value in some row."""
    return tuple(c for c in columns if any(row[name] not in (None, "") for row in rows for name in c.fields))


@dataclass(frozen=True, slots=True)
class DataTable:
    """A table, one dict of plain values a row.

    Attributes:
        name: of its CSV file.
        caption: what its numbers are, with their unit.
        source: the files that its numbers come from, in words.
        group: field of the rows whose change begins a new part of the table; "" for one part.
    """

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: Sequence[dict[str, Any]]
    source: str
    group: str = ""

    @property
    def shown(self) -> list[tuple[Any, list[dict[str, Any]]]]:
        """The parts of the table that the page shows: (value of the group, rows)."""
        parts: list[tuple[Any, list[dict[str, Any]]]] = []
        for row in self.rows[:SHOWN_ROWS]:
            value = row[self.group] if self.group else None
            if not parts or parts[-1][0] != value:
                parts.append((value, []))
            parts[-1][1].append(row)
        return parts

    @property
    def hidden(self) -> int:
        """How many rows only the CSV has."""
        return max(0, len(self.rows) - SHOWN_ROWS)

    @property
    def csv(self) -> str:
        """All rows with every field, unrounded. Text that a spreadsheet would take for a formula is quoted by
        a `'`."""
        return csv_text({name: _safe_cell(value) for name, value in row.items()} for row in self.rows)

    @property
    def sha256(self) -> str:
        """Of the CSV: the same rows have the same hash."""
        return hashlib.sha256(self.csv.encode("utf-8")).hexdigest()

    def write(self, folder: Path) -> None:
        """Write the CSV into a folder."""
        write_text(folder / f"{self.name}.csv", self.csv)


def _safe_cell(value: Any) -> Any:
    if isinstance(value, str):
        text = visible(value)
        return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") else text
    return value
