"""Verdicts that all runs of an experiment share: each is paid for once, whoever asked.

Every process appends to a segment of its own and holds a lock on it while it lives. When there are many,
those that nobody writes any more are merged into one; readers meet a verdict once or twice, never not at all.
"""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from rlhf_eval.errors import DataError
from rlhf_eval.files import read_jsonl, write_jsonl
from rlhf_eval.records import Verdict

SYNC_SECONDS = 0.05
MANY_SEGMENTS = 16
SUFFIX = ".segment"


class Segment:
    """An append-only file of verdicts with one writer.

    Each verdict is handed to the operating system at once, which survives the death of the process; it is
    forced to the disk at most every 50 ms and at the end, which survives the death of the machine.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._stream = _locked_file(folder)
        self._synced = time.monotonic()

    def append(self, verdict: Verdict) -> None:
        """Write one verdict."""
        self._stream.write(json.dumps(asdict(verdict), ensure_ascii=False).encode("utf-8") + b"\n")
        self._stream.flush()
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            self._sync()

    def _sync(self) -> None:
        os.fsync(self._stream.fileno())
        self._synced = time.monotonic()

    def __enter__(self) -> "Segment":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sync()
        self._stream.close()


def lookup(folder: Path, keys: Collection[str]) -> dict[str, Verdict]:
    """The verdicts of `keys` in a folder that hold a preference; failed ones are to be asked again."""
    found: dict[str, Verdict] = {}
    read: set[Path] = set()
    while unread := sorted(set(folder.glob(f"*{SUFFIX}")) - read):
        for path in unread:  # one that was merged in the meantime stands in a newer one, met on the next look
            read.add(path)
            if rows := _rows(path):
                wanted = (row for row in rows if row["key"] in keys and row["preference"] is not None)
                found |= {row["key"]: Verdict(**row) for row in wanted}
    return found


def compact(folder: Path) -> None:
    """Merge the segments that nobody writes into one, if there are many."""
    if len(list(folder.glob(f"*{SUFFIX}"))) < MANY_SEGMENTS:
        return
    with _left_alone(folder) as segments:
        rows = {row["key"]: row for path in segments for row in read_jsonl(path)}
        kept = (row for row in rows.values() if row["preference"] is not None)
        write_jsonl(folder / _new_name(), kept)
        for path in segments:
            path.unlink()


@contextmanager
def _left_alone(folder: Path) -> Iterator[list[Path]]:
    """The segments without a living writer, locked for the length of the block."""
    with ExitStack() as held:
        found = []
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            try:
                stream = held.enter_context(path.open("rb"))
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (FileNotFoundError, BlockingIOError):  # merged away by another process, or being written
                continue
            found.append(path)
        # One may also have been merged away between the look and the lock.
        yield [path for path in found if path.exists()]


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a segment; none if it has been merged away."""
    try:
        return read_jsonl(path)
    except DataError:
        if path.exists():
            raise
        return []


def _locked_file(folder: Path) -> BinaryIO:
    """A new segment with its lock; one that was merged away between the two would be lost, so not that."""
    while True:
        stream = (folder / _new_name()).open("xb")
        fcntl.flock(stream, fcntl.LOCK_EX)
        if os.fstat(stream.fileno()).st_nlink:
            return stream
        stream.close()


def _new_name() -> str:
    return f"{time.time_ns()}.{os.getpid()}.{secrets.token_hex(4)}{SUFFIX}"
