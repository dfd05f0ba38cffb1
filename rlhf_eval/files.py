"""Reading and writing the project's files so that a killed process never leaves half of one.

Whole files are written under a temporary name beside their place, flushed to disk and renamed. JSON
Lines segments are appended to by one writer each; a line torn by a kill is dropped on reading and
mended by the next append.
"""

import errno
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from rlhf_eval.errors import DataError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes `path`'s place when the block ends, and vanishes if it fails."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with _on_the_disk(path), temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def _on_the_disk(path: Path) -> Iterator[None]:
    """Make the folder of a file that is written in the block; DataError if there is no room for it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(
            f"{path} could not be written: {error.strerror}.",
            "Make room or have the quota raised, and give the same command again: it continues.",
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write or replace a file atomically; missing folders are made."""
    with replacing(path) as stream:
        stream.write(text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write or replace a JSON file atomically, indented, keys in the order given."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write or replace a JSON Lines file atomically."""
    with replacing(path) as stream:
        for row in rows:
            stream.write(_line(row).encode("utf-8"))


def append_jsonl(path: Path, *rows: dict[str, Any]) -> None:
    """Append one line per row and put them on the disk. One writer per file.

    A last line that a killed writer left without its end is completed if it is whole JSON, else cut.
    """
    with _on_the_disk(path), path.open("a+b") as stream:
        _mend_tail(stream)
        stream.write("".join(map(_line, rows)).encode("utf-8"))
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def holding(lock: Path) -> Iterator[None]:
    """Hold a lock file, made if it is not there; another process that wants it waits. The kernel lets go when
    the process ends, however it ends."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def read_tail(path: Path, size: int) -> bytes:
    """The last bytes of a file, at most so many; its first line may be cut."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - size))
        return stream.read()


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        DataError: the file is absent or malformed.
    """
    try:
        return json.loads(_read_bytes(path))
    except ValueError as error:
        raise DataError(
            f"{path} is not JSON: {error}.", "Delete the file to have it made again, or restore it."
        ) from error


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no file.

    Raises:
        DataError: the file holds something else.
    """
    found = read_json(path) if path.exists() else {}
    if not isinstance(found, dict):
        raise DataError(f"{path} is no JSON object.", "Restore the file, or take another copy.")
    return found


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file; a last line without its end (a killed writer) is left out.

    Raises:
        DataError: the file is absent, or another line is malformed (the message gives its number).
    """
    *lines, tail = _read_bytes(path).split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise DataError(
                f"{path}, line {number} is not JSON: {error}.",
                "Remove that line, or delete the file to have it made again.",
            ) from error
    if _is_json(tail):
        rows.append(json.loads(tail))
    return rows


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_known(path: Path) -> str:
    """As `sha256_file`; a file is not read again in this process while its size and time of change stay."""
    stat = path.stat()
    return _sha256_of(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=65536)
def _sha256_of(path: Path, size: int, mtime_ns: int) -> str:
    return sha256_file(path)


def sha256_json(value: Any) -> str:
    """SHA-256 of a value's canonical JSON (sorted keys, no spaces, UTF-8), in hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(
            f"{path} does not exist.", "Check the path, or run the command that makes it."
        ) from error


def _mend_tail(stream: Any) -> None:
    """End or cut the last line of a stream opened with `a+b`, leaving its position at the end."""
    end = stream.seek(0, os.SEEK_END)
    start, tail = end, b""
    while start > 0 and b"\n" not in tail:
        start = max(0, start - 65536)
        stream.seek(start)
        tail = stream.read(end - start)
    tail = tail[tail.rfind(b"\n") + 1 :]
    if not tail:
        return
    if _is_json(tail):
        stream.write(b"\n")
    else:
        stream.truncate(end - len(tail))


def is_inside(name: str) -> bool:
    """Whether a name from elsewhere, joined to a folder, stays in it."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\\" not in name
