"""A disk without room: the file is named with the cure, and nothing that was there is lost."""

import errno
import os
from pathlib import Path

import pytest

from rlhf_eval import files
from rlhf_eval.errors import DataError


def test_a_line_that_the_disk_does_not_take(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").symlink_to("/dev/full")  # every write to it fails as on a full disk
    with pytest.raises(DataError, match=r"rows\.jsonl could not be written: No space left on device"):
        files.append_jsonl(tmp_path / "rows.jsonl", {"n": 1})


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_file_that_the_disk_does_not_take_keeps_its_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    files.write_json(tmp_path / "value.json", {"n": 1})

    def full(_: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as context:
        context.setattr(os, "fsync", full)
        with pytest.raises(DataError) as caught:
            files.write_json(tmp_path / "value.json", {"n": 2})
    assert caught.value.what == f"{tmp_path}/value.json could not be written: {os.strerror(number)}."
    assert "give the same command again" in caught.value.cure
    assert files.read_json(tmp_path / "value.json") == {"n": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["value.json"]


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(DataError, match=r"new/value\.json could not be written: No space left"):
        files.write_json(tmp_path / "new" / "value.json", {})


def test_another_failure_of_the_disk_is_no_lack_of_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output error"):
        files.write_json(tmp_path / "value.json", {})
    assert not list(tmp_path.iterdir())
