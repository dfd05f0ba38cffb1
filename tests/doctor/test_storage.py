"""Disks, tried out for real: small ones, full ones, and those that cannot be written."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from rlhf_eval.doctor import storage
from tests.doctor.conftest import found


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A function: options of mount → a file system of its own, until the test ends."""

    @contextmanager
    def mounted(options: str) -> Iterator[Path]:
        folder = tmp_path / "disk"
        folder.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        try:
            yield folder
        finally:
            subprocess.run(["umount", "-l", folder], check=True)

    with ExitStack() as stack:
        yield lambda options: stack.enter_context(mounted(options))


def test_an_ordinary_folder_does_what_is_needed_and_keeps_nothing(tmp_path: Path) -> None:
    told = found(partial(storage.file_system, tmp_path / "runs" / "later"))
    assert {name: finding.state for name, finding in told.items()} == {
        "replacing a file": "pass",
        "locking": "pass",
        "hard links": "pass",
    }
    assert not list(tmp_path.iterdir())


def test_a_full_disk_and_one_without_room_are_failures(disk: Callable[[str], Path]) -> None:
    folder = disk("size=64k")
    told = found(partial(storage.room, "output", folder, 0.0, "choose output=<folder>"))["output"]
    assert told.state == "failure"
    assert "0.0 GiB free" in told.seen
    assert "(tmpfs)" in told.seen
    assert told.cure == "Make room, or choose output=<folder>."
    with pytest.raises(OSError, match="No space left"):
        (folder / "all").write_bytes(bytes(70_000))
    told = found(partial(storage.file_system, folder))["look"]
    assert told.state == "failure"
    assert "No space left on device" in told.seen


def test_a_disk_for_too_few_files_is_a_failure(disk: Callable[[str], Path]) -> None:
    folder = disk("size=12g,nr_inodes=100")
    told = found(partial(storage.room, "output", folder, 0.0, ""))["output"]
    assert told.state == "failure"
    assert "files can be made" in told.seen


def test_room_is_measured_against_what_a_run_writes(disk: Callable[[str], Path]) -> None:
    folder = disk("size=20g")
    states = [found(partial(storage.room, "x", folder, gib, ""))["x"].state for gib in (5.0, 15.0, 25.0)]
    assert states == ["pass", "warning", "failure"]


def test_a_disk_that_cannot_be_written_is_a_failure(disk: Callable[[str], Path]) -> None:
    told = found(partial(storage.file_system, disk("ro") / "runs"))["file system"]
    assert told.state == "failure"
    assert "Read-only file system" in told.seen
    assert "output=<folder>" in told.cure


def test_a_file_in_the_place_of_the_folder_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    told = found(partial(storage.file_system, tmp_path / "runs" / "lab"))["file system"]
    assert told.state == "failure"
    assert "runs is no folder" in told.seen


def test_a_network_file_system_whose_locks_are_local_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = (
        "/dev/sda / ext4 rw 0 0\n"
        f"server:/x {tmp_path} nfs4 rw,vers=4.2,local_lock=flock 0 0\n"
        f"tmpfs {tmp_path}-beside tmpfs rw 0 0\n"
    )
    mount = storage.mount_of(tmp_path / "runs", table)
    assert (mount.point, mount.kind) == (tmp_path, "nfs4")
    assert storage.mount_of(Path("/elsewhere"), table).kind == "ext4"
    monkeypatch.setattr(storage, "mount_of", lambda place: mount)
    told = found(partial(storage.file_system, tmp_path))["locking"]
    assert told.state == "warning"
    assert "local_lock=flock" in told.seen
