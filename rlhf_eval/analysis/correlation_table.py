"""Correlation of two columns of any CSV file."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlhf_eval.analysis.column_correlation import (
    Correlation,
    correlate,
    correlate_across,
    correlate_within,
)
from rlhf_eval.errors import ConfigError, DataError, did_you_mean

MISSING = {"", "nan", "na", "n/a", "null", "none", "-", "–"}
"""Cells, in lower case, that say that there is no number."""
MOST_GROUPS = 20
"""With more groups than this, none is taken out by itself."""


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Two columns of numbers, shape (rows,), NaN where a cell is empty; a label and a group of each row."""

    x: np.ndarray
    y: np.ndarray
    names: list[str]
    groups: list[str] | None


def correlate_columns(columns: Columns, label: str) -> tuple[Correlation, list[Correlation]]:
    """The correlation over all rows; then without each group, within the groups and across them."""
    x, y, names = columns.x, columns.y, columns.names
    found = correlate(x, y, label=label, names=names)
    if columns.groups is None:
        return found, []
    of_row = np.array(columns.groups)
    different = sorted(set(columns.groups) - {""})
    subsets = []
    for group in different if 1 < len(different) <= MOST_GROUPS else []:
        kept = of_row != group
        rest = [name for name, keep in zip(names, kept, strict=True) if keep]
        subsets.append(correlate(x[kept], y[kept], label=f"without {group}", names=rest))
    subsets.append(correlate_within(x, y, columns.groups, names=names))
    subsets.append(correlate_across(x, y, columns.groups))
    return found, subsets


def read_columns(path: Path, x: str, y: str, group: str | None = None, label: str | None = None) -> Columns:
    """Columns of a CSV file with a header, in UTF-8.

    Args:
        label: column that names the rows; None takes the first column of text in which every row has a name
            of its own, or else numbers them from 1.

    Raises:
        ConfigError: no such column, or both axes are one.
        DataError: the file is absent, no CSV, has fewer than two rows, or a cell that is no number.
    """
    header, rows = _read(path)
    for name in (x, y, group, label):
        if name is not None and name not in header:
            raise ConfigError(f"{path} has no column '{name}'.", did_you_mean(name, header))
    if x == y:
        raise ConfigError(
            f"Both axes are the column '{x}', which correlates with itself wholly.",
            "Name two different columns with --x and --y.",
        )

    def cells(name: str) -> list[str]:
        if header.count(name) > 1:
            raise DataError(f"{path} has {header.count(name)} columns '{name}'.", "Rename all but one.")
        place = header.index(name)
        return [row[place].strip() for row in rows]

    numbers = _numbers(path, x, cells(x)), _numbers(path, y, cells(y))
    if not (np.isfinite(numbers[0]) & np.isfinite(numbers[1])).any():
        raise DataError(
            f"No row of {path} has a number in both '{x}' and '{y}'.",
            "Choose columns that were measured together.",
        )
    found = cells(label) if label else _found_labels(header, rows)
    names = [name or str(i + 1) for i, name in enumerate(found)]
    return Columns(*numbers, names, cells(group) if group else None)


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    if not path.is_file():
        raise DataError(f"There is no file {path}.", "Give --table the path of a CSV file.")
    try:
        text = path.read_bytes().decode("utf-8-sig")
        table = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no CSV file: {error}.", "Save it as CSV in UTF-8.") from error
    if not table:
        raise DataError(f"{path} is empty.", "It needs a header and a row for each reward model.")
    header, rows = [name.strip() for name in table[0]], table[1:]
    if len(header) < 2 or "\0" in text:
        raise DataError(
            f"{path} is no CSV file: its first line has no comma that separates columns.",
            "Save it with commas between the columns and the columns' names in the first line.",
        )
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise DataError(
                f"Row {number} of {path} has {len(row)} cells, the header has {len(header)}.",
                "Give every row as many; a cell that holds a comma stands in double quotes.",
            )
    if len(rows) < 2:
        count = "one row" if rows else "no row"
        raise DataError(
            f"{path} has {count} beside its header.", "A correlation needs three reward models or more."
        )
    return header, rows


def _numbers(path: Path, name: str, cells: list[str]) -> np.ndarray:
    values = np.full(len(cells), np.nan)
    wrong: list[tuple[int, str]] = []
    for i, cell in enumerate(cells):
        if cell.lower() in MISSING:
            continue
        try:
            values[i] = float(cell)
        except ValueError:
            wrong.append((i + 1, cell))
    if not np.isfinite(values).any():
        raise DataError(f"Column '{name}' of {path} holds no numbers.", "Name a column of numbers.")
    if wrong:
        number, cell = wrong[0]
        raise DataError(
            f"Row {number} of {path} has '{cell[:40]}' in column '{name}', which is no number.",
            "Correct it, or leave the cell empty: the row is then left out.",
        )
    return values


def _found_labels(header: list[str], rows: list[list[str]]) -> list[str]:
    for place in range(len(header)):
        cells = [row[place].strip() for row in rows]
        if len(set(cells)) == len(cells) and "" not in cells and not any(map(_is_number, cells)):
            return cells
    return [""] * len(rows)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
