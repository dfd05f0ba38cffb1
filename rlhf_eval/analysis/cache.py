"""What was read of an experiment's runs, kept in Parquet files beside them: only changed runs are read again.

    <experiment>/.cache/records.parquet    configuration, scores, curves … of each run
    <experiment>/.cache/per_prompt.parquet one row a run and evaluation, with lists over its prompts

Never stale: each run is kept with the *stamp* of its files, taken before they were read, and is read again
when one of them has another. A file that changed less than two seconds before could change once more within
the tick of the clock that stamps it, so its run is not kept yet. Safe to lose: a cache that is damaged, or of
another version, is made anew, and where none can be written, every call reads the runs.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, TypeVar

from rlhf_eval import __version__

FOLDER = ".cache"
FORMAT = 2
"""Counted up when what is kept changes its meaning."""
SETTLED_SECONDS = 2.0
"""Age from which a file that is written again surely gets another stamp: the coarsest clock of a file system
in use ticks that slowly."""

Row = dict[str, Any]
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Kind(Generic[_Value]):
    """Something that is read of each run and can be kept.

    Attributes:
        name: of its cache.
        files: all that `read` looks at, below the run's directory.
        read: reads it from a run's directory.
        to_rows, from_rows: to rows of the cache and back. Of nothing (no rows) nothing is kept.
        columns: Arrow type of each field of a row, by name; lists of numbers come back as arrays.
    """

    name: str
    files: tuple[str, ...]
    read: Callable[[Path], _Value]
    to_rows: Callable[[_Value], list[Row]]
    from_rows: Callable[[Path, list[Row]], _Value]
    columns: Mapping[str, str]


def read_cached(folder: Path, runs: Sequence[Path], kind: Kind[_Value]) -> list[_Value]:
    """`kind.read` of each run of an experiment folder, from the cache where its files are what they were.

    Raises:
        RlhfEvalError: what `kind.read` raises.
    """
    settled_before = time.time_ns() - int(SETTLED_SECONDS * 1e9)
    stamps = {run.name: Stamp.of(run, kind.files) for run in runs}
    file = folder / FOLDER / f"{kind.name}.parquet"
    kept, obsolete = _read(file, kind, {name: stamp.text for name, stamp in stamps.items()})
    values = {run.name: kind.from_rows(run, kept[run.name]) for run in runs if run.name in kept}
    changed = [run for run in runs if run.name not in kept]
    values |= {run.name: kind.read(run) for run in changed}
    fresh = [
        {"run": run.name, "stamp": stamps[run.name].text} | row
        for run in changed
        if stamps[run.name].changed_ns < settled_before
        for row in kind.to_rows(values[run.name])
    ]
    if fresh or obsolete:
        _write(file, kind, [row for rows in kept.values() for row in rows] + fresh)
    return [values[run.name] for run in runs]


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a run's files are, without reading them.

    Attributes:
        text: of every file its size, times of modification and of change, and inode; or that it is not
            there. The time of change is the kernel's own: a file that is rewritten in place, or whose time
            of modification is set back, cannot hide it.
        changed_ns: when the last of them changed, nanoseconds since 1970.
    """

    text: str
    changed_ns: int

    @classmethod
    def of(cls, run: Path, files: Iterable[str]) -> "Stamp":
        words, changed_ns = [], 0
        for name in files:
            try:
                stat = os.stat(run / name)
            except (FileNotFoundError, NotADirectoryError):
                words.append("-")
                continue
            words.append(f"{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}:{stat.st_ino}")
            changed_ns = max(changed_ns, stat.st_mtime_ns, stat.st_ctime_ns)
        return cls(" ".join(words), changed_ns)


def _read(file: Path, kind: Kind[Any], stamps: Mapping[str, str]) -> tuple[dict[str, list[Row]], bool]:
    """The rows that still hold, by run; and whether there are others."""
    import pyarrow as pa
    from pyarrow.parquet import read_table

    kept: dict[str, list[Row]] = {}
    try:
        table = read_table(file, page_checksum_verification=True)
    except (OSError, ValueError, pa.ArrowException):  # absent, damaged, or no Parquet
        return {}, False
    if not table.schema.equals(_schema(kind), check_metadata=True):
        return {}, False
    names = table.column_names
    rows = list(zip(*(_cells(table[name].combine_chunks()) for name in names), strict=True))
    for row in rows:
        if stamps.get(row[0]) == row[1]:
            kept.setdefault(row[0], []).append(dict(zip(names, row, strict=True)))
    return kept, sum(map(len, kept.values())) < len(rows)


def _cells(column: Any) -> Sequence[Any]:
    """A column's values; lists of numbers as views of one array."""
    import pyarrow as pa

    if not pa.types.is_list(column.type):
        return column.to_pylist()
    numbers, ends = column.values.to_numpy(), column.offsets.to_numpy()
    return [numbers[start:end] for start, end in pairwise(ends)]


def _write(file: Path, kind: Kind[Any], rows: list[Row]) -> None:
    """Replace the cache at once, so that other processes read the old one or the new one. Where it cannot be
    written (a folder of someone else's, a full disk), it stays as it is."""
    import pyarrow as pa
    from pyarrow.parquet import write_table

    table = pa.Table.from_pylist(rows, _schema(kind))
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
    with suppress(OSError):
        file.parent.mkdir(exist_ok=True)
        try:
            # Of numbers no dictionary is made: hardly one is there twice.
            texts = [name for name in table.column_names if pa.types.is_string(table.schema.field(name).type)]
            write_table(
                table,
                temporary,
                compression="zstd",
                use_dictionary=texts,  # type: ignore[arg-type]
                write_page_checksum=True,
            )
            os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)


def _schema(kind: Kind[Any]) -> Any:
    import pyarrow as pa

    types = {
        "text": pa.string(),
        "numbers": pa.list_(pa.field("element", pa.float64())),
    }  # as Parquet names it
    fields = {"run": "text", "stamp": "text", **kind.columns}
    return pa.schema(
        [pa.field(name, types[type]) for name, type in fields.items()],
        metadata={"rlhf_eval": f"{__version__}, format {FORMAT}"},
    )
