"""Training data as a stream of documents: no more than one batch of rows is ever held."""

import csv
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from rlhf_eval.errors import DataError
from rlhf_eval.sources import HUB, resolve

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
PARQUET_ROWS = 512


@dataclass(frozen=True, slots=True)
class Document:
    """One row of a file.

    Attributes:
        place: "file, row N".
        passages: every text in the row with the path of its field: `chosen[1].content`.
        done: share of its file that has been read, in [0, 1].
    """

    place: str
    passages: tuple[tuple[str, str], ...]
    done: float


def corpus_files(source: str) -> list[Path]:
    """The files behind a source: itself, or all of known types below a folder.

    Raises:
        DataError: there are none, or one is of another type.
    """
    if not source.startswith(HUB) and Path(source).expanduser().is_dir():
        folder = Path(source).expanduser()
        found = [path for path in sorted(folder.rglob("*")) if path.is_file() and _suffix(path)]
        if not found:
            raise DataError(f"There is no {' or '.join(SUFFIXES)} file in {folder}.", "Name another folder.")
        return found
    path = resolve(source)
    if not _suffix(path):
        raise DataError(f"'{source}' is of no known file type.", f"Use {', '.join(SUFFIXES)} (or .gz).")
    return [path]


def documents(path: Path) -> Iterator[Document]:
    """The rows of one file, one after the other. A `.json` file is one list and is read whole.

    Raises:
        DataError: a malformed line, named by its number.
    """
    if _suffix(path) == ".parquet":
        yield from _parquet(path)
        return
    size = max(path.stat().st_size, 1)
    with path.open("rb") as raw:
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if path.suffix == ".gz" else raw
        for number, row in enumerate(_rows(stream, path), 1):
            yield Document(f"{path}, row {number}", tuple(texts(row)), min(1.0, raw.tell() / size))


def texts(value: Any, field: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a row, with the path of its field."""
    if isinstance(value, str):
        if value.strip():
            yield field, value
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from texts(child, f"{field}.{key}" if field else str(key))
    elif isinstance(value, list):
        for place, child in enumerate(value):
            yield from texts(child, f"{field}[{place}]")


def _suffix(path: Path) -> str:
    return next((s for s in reversed(path.suffixes[-2:]) if s in SUFFIXES), "")


def _rows(stream: BinaryIO, path: Path) -> Iterator[Any]:
    if _suffix(path) == ".csv":
        yield from csv.DictReader(line.decode("utf-8") for line in stream)
    elif _suffix(path) == ".json":
        whole = _parsed(stream.read(), f"{path}")
        yield from whole if isinstance(whole, list) else [whole]
    else:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield _parsed(line, f"{path}, line {number}")


def _parsed(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{where} is malformed JSON: {error}.", "Mend or fetch the file again.") from None


def _parquet(path: Path) -> Iterator[Document]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        total, number = max(file.metadata.num_rows, 1), 0
        for batch in file.iter_batches(batch_size=PARQUET_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield Document(f"{path}, row {number}", tuple(texts(row)), number / total)
