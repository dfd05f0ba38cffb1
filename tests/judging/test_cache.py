"""The verdicts that runs share: found by all, merged without loss while others write, mended after a kill."""

import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_eval.errors import DataError
from rlhf_eval.judging import cache
from rlhf_eval.judging.cache import Segment, compact, lookup
from rlhf_eval.records import Verdict


def verdict(key: str, preference: float | None = 1.0) -> Verdict:
    error = None if preference is not None else "HTTP 500"
    return Verdict("alpaca_eval", f"p {key}", 0, True, key, preference, None, error, "m")


def write(folder: Path, *keys: str) -> None:
    with Segment(folder) as segment:
        for key in keys:
            segment.append(verdict(key))


def test_what_one_process_wrote_every_other_finds(tmp_path: Path) -> None:
    write(tmp_path, "a", "b")
    with Segment(tmp_path) as segment:
        segment.append(verdict("c"))
        segment.append(verdict("d", None))  # a failure is to be asked again
        assert set(lookup(tmp_path, "abcd")) == {"a", "b", "c"}  # while it is still being written
    assert lookup(tmp_path, {"b"}) == {"b": verdict("b")}
    assert lookup(tmp_path / "nothing", {"a"}) == {}


def test_many_segments_become_one_and_living_writers_keep_theirs(tmp_path: Path) -> None:
    for number in range(cache.MANY_SEGMENTS):
        write(tmp_path, f"k{number}", "common")
    with Segment(tmp_path) as living:
        living.append(verdict("before"))
        compact(tmp_path)
        living.append(verdict("after"))
        assert len(list(tmp_path.iterdir())) == 2
        expected = {f"k{n}" for n in range(cache.MANY_SEGMENTS)} | {"common", "before", "after"}
        assert set(lookup(tmp_path, expected | {"absent"})) == expected
    compact(tmp_path)  # few now: nothing to do
    assert len(list(tmp_path.iterdir())) == 2


def write_much(folder: Path, name: str) -> None:
    for number in range(40):
        write(folder, f"{name}-{number}")
        compact(folder)


def test_processes_that_write_and_merge_at_once_lose_nothing(tmp_path: Path) -> None:
    written = {f"{name}-{n}" for name in "abc" for n in range(40)}
    fork = multiprocessing.get_context("spawn")
    processes = [fork.Process(target=write_much, args=(tmp_path, name)) for name in "abc"]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        before = set(lookup(tmp_path, written))
        assert before <= set(lookup(tmp_path, written))  # what was there once never vanishes
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert set(lookup(tmp_path, written)) == written
    assert len(list(tmp_path.iterdir())) <= cache.MANY_SEGMENTS + 2


def test_a_killed_writer_loses_the_line_it_was_writing_and_its_lock(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tests_verdict import verdict\n"
        "from rlhf_eval.judging.cache import Segment\n"
        "segment = Segment(Path(sys.argv[1]))\n"
        "segment.append(verdict('whole'))\n"
        'segment._stream.write(b\'{"key": "to\'); segment._stream.flush()\n'
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    (tmp_path / "tests_verdict.py").write_text(
        "from rlhf_eval.records import Verdict\n"
        "verdict = lambda key: Verdict('alpaca_eval', 'p', 0, True, key, 1.0, None, None, 'm')\n"
    )
    folder = tmp_path / "cache"
    done = subprocess.run([sys.executable, "-c", program, str(folder)], cwd=tmp_path, capture_output=True)
    assert done.returncode == -9, done.stderr
    assert set(lookup(folder, {"whole", "to"})) == {"whole"}
    for number in range(cache.MANY_SEGMENTS):
        write(folder, f"k{number}")
    compact(folder)
    assert len(list(folder.iterdir())) == 1
    expected = {"whole"} | {f"k{number}" for number in range(cache.MANY_SEGMENTS)}
    assert set(lookup(folder, expected)) == expected


def test_a_damaged_segment_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a")
    (tmp_path / "x.segment").write_text("{broken}\n{}\n")
    with pytest.raises(DataError, match=r"x\.segment, line 1 is not JSON"):
        lookup(tmp_path, {"a"})
