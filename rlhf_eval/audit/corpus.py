"""Training data as a stream of documents: no more than one batch of rows is ever held."""

import csv
import gzip
import io
import json
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from rlhf_eval.errors import DataError
from rlhf_eval.sources import HUB, resolve

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
BATCH_WORDS = 400_000
PARQUET_ROWS = 512
PARQUET_BUFFER = 1 << 20
"""Bytes of a column read at once."""
JSON_CHUNK = 1 << 20
"""Characters of a `.json` file read at once; a longer value takes as much as it needs."""
GAP = re.compile(r"[\s,]*")


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
    """The rows of one file, one after the other.

    A `.json` file is one list, or values one after the other (JSON Lines by another name).

    Raises:
        DataError: a malformed line, named by its number, or a file that cannot be read to its end.
    """
    number = 0
    try:
        for number, (row, done) in enumerate(_rows(path), 1):
            yield Document(f"{path}, row {number}", tuple(texts(row)), done)
    except (OSError, EOFError, ValueError, csv.Error, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read beyond row {number}: {str(error).rstrip('.')}.",
            "Mend or fetch the file again.",
        ) from None


def batches(stream: Iterable[Document]) -> Iterator[tuple[list[Document], float]]:
    """Documents by about `BATCH_WORDS` words (counted as six characters each), with the share read."""
    batch: list[Document] = []
    size = 0
    done = 0.0
    for document in stream:
        batch.append(document)
        size += sum(len(text) for _, text in document.passages) // 6
        done = document.done
        if size >= BATCH_WORDS:
            yield batch, done
            batch, size = [], 0
    if batch:
        yield batch, done


def texts(value: Any, field: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a row, with the path of its field."""
    if isinstance(value, str):
        if value.strip():
            yield field, value
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from texts(child, f"{field}.{key}" if field else str(key))
    elif isinstance(value, list | tuple):  # Parquet's maps are pairs
        for place, child in enumerate(value):
            yield from texts(child, f"{field}[{place}]")


def _suffix(path: Path) -> str:
    return next((s for s in reversed(path.suffixes[-2:]) if s in SUFFIXES), "")


def _rows(path: Path) -> Iterator[tuple[Any, float]]:
    """The rows of a file, each with the share of the file that has been read."""
    size = max(path.stat().st_size, 1)
    with path.open("rb") as raw:
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if path.suffix == ".gz" else raw
        if _suffix(path) == ".parquet":
            yield from _parquet(stream)
            return
        if _suffix(path) == ".jsonl":
            rows = _json_lines(stream, path)
        else:
            text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
            rows = _csv(text) if _suffix(path) == ".csv" else _json(text, path)
        for row in rows:
            yield row, min(1.0, raw.tell() / size)


def _json_lines(stream: BinaryIO, path: Path) -> Iterator[Any]:
    for number, line in enumerate(stream, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise _malformed(path, number, error) from None
            yield row


def _csv(text: TextIO) -> Iterator[Any]:
    csv.field_size_limit(sys.maxsize)  # a field of training data may be longer than 131,072 characters
    return csv.DictReader(text)


def _json(text: TextIO, path: Path) -> Iterator[Any]:
    decode = json.JSONDecoder().raw_decode
    buffer, line, ended = text.read(JSON_CHUNK), 1, False
    place = _behind_gap(buffer, 0)
    in_list = buffer.startswith("[", place)
    place += in_list
    while True:
        place = _behind_gap(buffer, place)
        if in_list and buffer.startswith("]", place):
            in_list, place = False, place + 1
            continue
        try:
            value, after = decode(buffer, place)
        except json.JSONDecodeError as error:
            if ended and place == len(buffer) and not in_list:
                return
            if ended:
                raise _malformed(path, line + error.lineno - 1, error.msg) from None
            value, after = None, len(buffer)
        if ended or after < len(buffer):
            yield value
            place = after
        else:  # the value may go on behind what has been read
            line += buffer.count("\n", 0, place)
            more = text.read(max(JSON_CHUNK, len(buffer) - place))
            buffer, place, ended = buffer[place:] + more, 0, not more


def _behind_gap(buffer: str, place: int) -> int:
    return cast(re.Match[str], GAP.match(buffer, place)).end()


def _malformed(path: Path, line: int, why: object) -> DataError:
    return DataError(f"{path}, line {line} is malformed JSON: {why}.", "Mend or fetch the file again.")


def _parquet(stream: BinaryIO) -> Iterator[tuple[Any, float]]:
    import pyarrow.parquet

    with tempfile.TemporaryFile() as unpacked:
        if isinstance(stream, gzip.GzipFile):  # Parquet is read from its end
            shutil.copyfileobj(stream, unpacked)
            stream = unpacked
        # Its default fetches the columns of all row groups beforehand: the whole file.
        with pyarrow.parquet.ParquetFile(stream, pre_buffer=False, buffer_size=PARQUET_BUFFER) as file:
            total, number = max(file.metadata.num_rows, 1), 0
            for batch in file.iter_batches(batch_size=PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield row, number / total
