"""Disks: room, and what the project asks of a file system: locks, hard links, renaming, flushing."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rlhf_eval.doctor.checks import Finding, failure, last_line, passed, skipped, warning
from rlhf_eval.files import write_text

GIB = 2**30
LEAST, USUAL = 1.0, 10.0
"""GiB: with less than the first nothing works, with less than the second little."""
LEAST_INODES = 10_000
LEAST_SHARED_MEMORY = 1.0
REFUSED = 17
TRY_LOCK = f"""
import fcntl, sys
with open(sys.argv[1], "a") as stream:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit({REFUSED})
"""
LOCAL_LOCKS = {"nolock", "local_lock=all", "local_lock=flock", "localflock", "noflock"}
"""Options of network file systems by which a lock holds on one machine only, or not at all."""


@dataclass(frozen=True)
class Mount:
    """The file system of a folder."""

    point: Path
    kind: str
    options: frozenset[str]


def room(check: str, folder: Path, needed: float, cure: str) -> Iterator[Finding]:
    """Whether there is room in a folder, or where it would be made.

    Args:
        needed: GiB that the configuration will write there; 0 where that is not known.
        cure: how to have the files elsewhere.
    """
    there = existing(folder)
    stat = os.statvfs(there)
    free, kind = stat.f_bavail * stat.f_frsize / GIB, mount_of(there).kind
    seen = f"{free:,.1f} GiB free in {folder} ({kind})"
    cure = f"Make room, or {cure}."
    if needed >= 0.05:
        seen += f", about {needed:,.1f} GiB needed"
    if stat.f_files and stat.f_favail < LEAST_INODES:
        yield failure(check, f"{seen}, but only {stat.f_favail} files can be made", cure)
    elif free < max(LEAST, needed):
        yield failure(check, seen, cure)
    elif free < max(USUAL, 1.5 * needed):
        yield warning(check, seen, cure)
    else:
        yield passed(check, seen)


def file_system(folder: Path) -> Iterator[Finding]:
    """Whether the file system of a folder does what the project relies on, tried out in it."""
    there = existing(folder)
    elsewhere = "Choose a folder on another file system: output=<folder>."
    if not there.is_dir():
        yield failure("file system", f"{there} is no folder", "Move that file, or choose output=<folder>.")
        return
    mount = mount_of(there)
    try:
        with tempfile.TemporaryDirectory(prefix=".rlhf-eval-doctor-", dir=there) as name:
            yield from _tried(Path(name), mount, elsewhere)
    except OSError as error:
        yield failure("file system", f"{folder} ({mount.kind}): {error.strerror}", elsewhere)


def shared_memory() -> Iterator[Finding]:
    """Room for what processes on one machine exchange (NCCL, vLLM, data loaders)."""
    place = Path("/dev/shm")  # noqa: S108  # its size is looked at, nothing is written
    if not place.is_dir():
        yield skipped("shared memory", "no /dev/shm")
        return
    size = shutil.disk_usage(place)
    seen = f"{size.free / GIB:,.1f} of {size.total / GIB:,.1f} GiB free in {place}"
    if size.free / GIB < LEAST_SHARED_MEMORY:
        cure = "Give the container more: --shm-size=16g or --ipc=host; else delete what is left in /dev/shm."
        yield warning("shared memory", seen, cure)
    else:
        yield passed("shared memory", seen)


def existing(folder: Path) -> Path:
    """The folder, or what exists of the way to it."""
    folder = folder.expanduser().absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())


def mount_of(place: Path, table: str | None = None) -> Mount:
    """The file system that a place lies on.

    Args:
        table: as /proc/mounts, which is read where none is given.
    """
    if table is None:
        try:
            table = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
        except OSError:
            table = ""
    place, best = place.resolve(), Mount(Path("/"), "unknown", frozenset())
    for line in table.splitlines():
        _, point, kind, options, *_ = line.split(" ")
        point = Path(point.replace("\\040", " "))
        if place.is_relative_to(point) and len(point.parts) >= len(best.point.parts):
            best = Mount(point, kind, frozenset(options.split(",")))
    return best


def _tried(scratch: Path, mount: Mount, elsewhere: str) -> Iterator[Finding]:
    file = scratch / "value"
    write_text(file, "one")
    began = time.monotonic()
    write_text(file, "two")
    seconds = time.monotonic() - began
    whole = file.read_text(encoding="utf-8") == "two" and [p.name for p in scratch.iterdir()] == ["value"]
    if not whole:
        yield failure(
            "replacing a file", f"a renamed file does not take the other's place ({mount.kind})", elsewhere
        )
    elif seconds > 1:
        cure = "Expect slow runs: every verdict is put on the disk. Choose output=<folder> on another."
        yield warning(
            "replacing a file", f"write, flush and rename took {seconds:.1f} s ({mount.kind})", cure
        )
    else:
        yield passed("replacing a file", f"write, flush, rename in {1000 * seconds:.0f} ms ({mount.kind})")
    yield _locking(scratch / "lock", mount, elsewhere)
    yield _linking(file, elsewhere)


def _locking(file: Path, mount: Mount, elsewhere: str) -> Finding:
    import fcntl

    with file.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return failure("locking", f"flock: {error.strerror} ({mount.kind})", elsewhere)
        other = subprocess.run(
            [sys.executable, "-S", "-c", TRY_LOCK, str(file)], capture_output=True, text=True, timeout=20
        )
    if other.returncode == 0:
        return failure("locking", f"a second process got a lock that was held ({mount.kind})", elsewhere)
    if other.returncode != REFUSED:
        return failure("locking", f"a second process: {last_line(other.stderr)}", elsewhere)
    if local := sorted(mount.options & LOCAL_LOCKS):
        return warning(
            "locking",
            f"mounted with {', '.join(local)}: a lock holds on one machine only ({mount.kind})",
            "Keep the runs of an experiment on one machine, or have it mounted with locks.",
        )
    return passed("locking", f"flock held against a second process ({mount.kind})")


def _linking(file: Path, elsewhere: str) -> Finding:
    try:
        os.link(file, file.with_name("link"))
    except OSError as error:
        return failure("hard links", f"{error.strerror}", elsewhere)
    return passed("hard links", "can be made")
