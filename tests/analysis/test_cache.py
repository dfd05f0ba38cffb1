"""The cache is never stale and never in the way: whatever happens to files, what is read is what they say."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf_eval.analysis import cache
from rlhf_eval.analysis.cache import Kind, read_cached

FILES = ("a.txt", "b/c.txt")


class Reader:
    """An experiment of runs with two files, of which it counts the reading."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.read: list[str] = []
        self.kind: Kind[tuple[str, np.ndarray]] = Kind(
            name="texts",
            files=FILES,
            read=self._read,
            to_rows=lambda value: [{"text": value[0], "codes": value[1]}],
            from_rows=lambda run, rows: (rows[0]["text"], rows[0]["codes"]),
            columns={"text": "text", "codes": "numbers"},
        )

    def _read(self, run: Path) -> tuple[str, np.ndarray]:
        self.read.append(run.name)
        text = " ".join((run / name).read_text() for name in FILES if (run / name).exists())
        return text, np.array([*map(float, map(ord, text)), np.nan])

    def __call__(self) -> dict[str, str]:
        """Text of each run; `read` tells of which the files were opened."""
        self.read.clear()
        runs = sorted(path for path in self.folder.iterdir() if path.name.startswith("run"))
        texts = {}
        for run, (text, codes) in zip(runs, read_cached(self.folder, runs, self.kind), strict=True):
            assert codes[:-1].tolist() == [*map(float, map(ord, text))]
            assert np.isnan(codes[-1])
            texts[run.name] = text
        return texts


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    for number in range(3):
        run = tmp_path / f"run{number}"
        (run / "b").mkdir(parents=True)
        for name in FILES:
            (run / name).write_text(f"{name} of {number}")
    return Reader(tmp_path)


@pytest.fixture
def kept(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """The same, everything kept, as if the files had been written long ago."""
    monkeypatch.setattr(cache, "SETTLED_SECONDS", -3600.0)
    reader()
    assert reader() == {f"run{n}": f"a.txt of {n} b/c.txt of {n}" for n in range(3)}
    assert reader.read == []
    return reader


def rewrite_in_place(file: Path) -> None:
    """Same size, inode and time of modification."""
    stat = file.stat()
    with file.open("r+") as stream:
        stream.write("A")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def replace_by_another(file: Path) -> None:
    """Same size and time of modification, another inode."""
    stat = file.stat()
    other = file.with_name("other")
    other.write_text("A" + file.read_text()[1:])
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.rename(file)


def grow(file: Path) -> None:
    with file.open("a") as stream:
        stream.write(" and more")


def set_back(file: Path) -> None:
    """Written by a clock that is a year behind."""
    file.write_text("A" + file.read_text()[1:])
    os.utime(file, (time.time() - 3e7, time.time() - 3e7))


def restore_an_older_one(file: Path) -> None:
    """As `cp --preserve` or `rsync --times` do."""
    os.utime(file, ns=(10**18, 10**18))
    file.write_text("older")
    os.utime(file, ns=(10**17, 10**17))


CHANGES = [rewrite_in_place, replace_by_another, grow, set_back, restore_an_older_one, Path.unlink]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_read_again_and_no_other(
    kept: Reader, name: str, change: Callable[[Path], None]
) -> None:
    before = kept()
    change(kept.folder / "run1" / name)
    after = kept()
    assert kept.read == ["run1"]
    assert after["run1"] != before["run1"]
    assert (after["run0"], after["run2"]) == (before["run0"], before["run2"])
    assert kept() == after
    assert kept.read == []


def test_a_file_that_comes_is_seen(kept: Reader) -> None:
    (kept.folder / "run0" / "a.txt").unlink()
    assert kept()["run0"] == "b/c.txt of 0"
    (kept.folder / "run0" / "a.txt").write_text("new")
    assert kept()["run0"] == "new b/c.txt of 0"


def test_runs_that_come_go_and_change_places(kept: Reader) -> None:
    one, other = kept.folder / "run0", kept.folder / "run1"
    one.rename(kept.folder / "x")
    other.rename(one)
    (kept.folder / "x").rename(other)
    (kept.folder / "run2").rename(kept.folder / "run3")
    assert {name: text[9] for name, text in kept().items()} == {"run0": "1", "run1": "0", "run3": "2"}
    table = pq.read_table(kept.folder / ".cache" / "texts.parquet")
    assert sorted(table["run"].to_pylist()) == ["run0", "run1", "run3"]


def test_a_file_that_has_just_changed_is_not_kept(reader: Reader) -> None:
    """Two writings within one tick of the file system's clock leave the same stamp."""
    file = reader.folder / "run0" / "a.txt"
    for number in range(300):
        with file.open("r+") as stream:
            stream.write(f"{number:03}")
        os.utime(file, ns=(10**18, 10**18))
        assert reader()["run0"].startswith(f"{number:03}")


def test_a_file_of_the_future_is_read_each_time(reader: Reader) -> None:
    """The clock was set back, or another machine's is ahead."""
    ahead = time.time() + 1000
    for name in FILES:
        os.utime(reader.folder / "run0" / name, (ahead, ahead))
    time.sleep(cache.SETTLED_SECONDS + 0.1)
    for _ in range(3):
        reader()
    assert reader.read == ["run0"]


def damage_nothing(file: Path) -> None:
    file.unlink()


def damage_half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def damage_text(file: Path) -> None:
    file.write_text("no Parquet")


def damage_empty(file: Path) -> None:
    file.write_bytes(b"")


def damage_foreign(file: Path) -> None:
    pq.write_table(pa.table({"run": ["run0"], "stamp": ["x"], "text": ["wrong"]}), file)


def damage_version(file: Path) -> None:
    """The cache of another version of this package, right down to the stamps."""
    table = pq.read_table(file)
    wrong = table.set_column(2, "text", pa.array(["wrong"] * len(table)))
    pq.write_table(wrong.replace_schema_metadata({"rlhf_eval": "0.0.1, format 1"}), file)


def damage_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def damage_place(file: Path) -> None:
    """No cache can be written at all."""
    file.unlink()
    file.parent.rmdir()
    file.parent.write_text("a file")


DAMAGES = [value for name, value in list(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_or_foreign_cache_is_made_anew(kept: Reader, damage: Callable[[Path], None]) -> None:
    before = kept()
    damage(kept.folder / ".cache" / "texts.parquet")
    assert kept() == before
    assert kept.read == ["run0", "run1", "run2"]
    assert kept() == before
    writable = damage not in (damage_folder, damage_place)
    assert kept.read == ([] if writable else ["run0", "run1", "run2"])
    if writable:
        assert [file.name for file in (kept.folder / ".cache").iterdir()] == ["texts.parquet"]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_anywhere_changes_nothing(kept: Reader, data: st.DataObject) -> None:
    before = kept()
    file = kept.folder / ".cache" / "texts.parquet"
    content = bytearray(file.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    assert kept() == before


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")
def test_a_folder_of_someone_else_is_read_without_a_cache(kept: Reader) -> None:
    expected = kept()
    with tempfile.TemporaryDirectory() as name:  # tmp_path is root's alone
        reader = Reader(Path(name) / "lab")
        shutil.copytree(kept.folder, reader.folder)
        shutil.rmtree(reader.folder / ".cache")
        Path(name).chmod(0o755)
        reader.folder.chmod(0o755)
        os.seteuid(65534)
        try:
            found = [reader(), reader()]
        finally:
            os.seteuid(0)
        assert found == [expected, expected]
        assert not (reader.folder / ".cache").exists()


PROCESS = """
import sys
from pathlib import Path
from rlhf_eval.analysis import cache
from tests.analysis.test_cache import Reader
cache.SETTLED_SECONDS = -3600.0
reader, own = Reader(Path(sys.argv[1])), sys.argv[2]
for number in range(40):
    file = reader.folder / own / "a.txt"
    file.write_text(f"{own} {number}")
    assert reader()[own].startswith(f"{own} {number} "), (own, number)
"""


def test_processes_at_once_do_not_disturb_each_other(kept: Reader) -> None:
    root = Path(__file__).parents[2]
    processes = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(kept.folder), f"run{number}"], cwd=root)
        for number in range(3)
    ]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert {name: text.split()[1] for name, text in kept().items()} == dict.fromkeys(kept(), "39")
    assert [file.name for file in (kept.folder / ".cache").iterdir()] == ["texts.parquet"]
