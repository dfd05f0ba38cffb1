"""Looks side by side: a broken one is a finding and hides no other; nothing private is said."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf_eval.doctor import checks
from rlhf_eval.doctor.checks import Finding, Look, examine, passed, probe, shareable
from rlhf_eval.errors import StageError


def good() -> Iterator[Finding]:
    yield passed("good", "all is well")


def half() -> Iterator[Finding]:
    yield passed("first half", "done")
    raise PermissionError(13, "Permission denied", "/data")


def test_a_broken_look_is_a_failure_and_hides_no_other() -> None:
    findings = examine([Look("a", "half", half), Look("b", "good", good)])
    assert [(f.topic, f.check, f.state) for f in findings] == [
        ("a", "first half", "pass"),
        ("a", "half", "failure"),
        ("b", "good", "pass"),
    ]
    assert "Permission denied" in findings[1].seen
    assert findings[1].cure


def test_a_look_that_hangs_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hanging() -> Iterator[Finding]:
        release.wait()
        yield passed("never", "")

    monkeypatch.setattr(checks, "DEADLINE_SECONDS", 0.3)
    findings = examine([Look("a", "disk", hanging), Look("b", "good", good)])
    release.set()
    assert [(f.check, f.state) for f in findings] == [("disk", "failure"), ("good", "pass")]
    assert "no answer" in findings[0].seen


def test_what_a_broken_library_said_last_is_told() -> None:
    with pytest.raises(StageError, match=r"libcudart\.so\.13: cannot open shared object file"):
        probe("raise ImportError('libcudart.so.13: cannot open shared object file')")
    with pytest.raises(StageError, match="SIGSEGV"):
        probe("import os; os.kill(os.getpid(), 11)")


def test_nothing_private_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("LOGNAME", "ada")
    monkeypatch.setenv("JUDGE_API_KEY", "marker-of-a-key")
    told = shareable("/home/ada/x, /scratch/ada/y\n/scratch/adam http://ada:pw@proxy:1 marker-of-a-key …")
    assert told == "~/x, /scratch/$USER/y /scratch/adam http://proxy:1 <JUDGE_API_KEY> \\u2026"
    assert Path("/home/ada") == Path.home()
