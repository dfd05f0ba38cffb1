"""Packages against what is asked for, and against a lock."""

from functools import partial
from pathlib import Path

import numpy
import pytest

from rlhf_eval.doctor import packages
from rlhf_eval.runs.environment import installed, requirements
from tests.doctor.conftest import found


def test_another_version_in_the_lock_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    lock = tmp_path / "constraints.txt"
    lock.write_text(
        "# made by pip\n--no-binary :none:\nnumpy==1.0.1 \\\n    --hash=sha256:00\n"
        f"PyYAML=={installed()['pyyaml']}  # as here\nnot-here-at-all==2.0\nrlhf-eval==0.0.1\n"
    )
    finding = found(partial(packages.lock, lock))["lock"]
    assert finding.state == "warning"
    assert f"numpy {numpy.__version__} instead of 1.0.1" in finding.seen
    assert "1 of them not installed" in finding.seen
    assert finding.cure == "pip install numpy==1.0.1"


def test_what_a_run_recorded_here_agrees(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(requirements(installed()))
    finding = found(partial(packages.lock, tmp_path / "requirements.txt"))["lock"]
    assert finding.state == "pass"


def test_a_lock_without_the_local_part_of_a_version_takes_any(tmp_path: Path) -> None:
    lock, here = tmp_path / "lock.txt", installed()["torch"]
    lock.write_text(f"torch=={here.partition('+')[0]}")
    assert found(partial(packages.lock, lock))["lock"].state == "pass"
    lock.write_text(f"torch=={here.partition('+')[0]}+cu999")
    assert found(partial(packages.lock, lock))["lock"].state == "warning"


def test_a_lock_that_cannot_be_read_is_a_failure(tmp_path: Path) -> None:
    finding = found(partial(packages.lock, tmp_path / "absent.txt"))["look"]
    assert finding.state == "failure"
    assert "absent.txt" in finding.seen
    (tmp_path / "bad.txt").write_text("numpy==2\nnumpy is 2\n")
    assert "bad.txt, line 2" in found(partial(packages.lock, tmp_path / "bad.txt"))["look"].seen


def test_what_is_asked_for_and_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "rlhf_eval-9.dist-info"
    place.mkdir()
    (place / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: rlhf-eval\nVersion: 9\nRequires-Python: >=3.99\n"
        "Requires-Dist: numpy>=999\nRequires-Dist: pyyaml\nRequires-Dist: vllm==0.1; extra == 'vllm'\n"
        "Requires-Dist: not-here-at-all>=1\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    told = found(packages.requirements)["requirements"]
    assert told.state == "failure"
    assert told.seen == f"numpy>=999 is {numpy.__version__}; not-here-at-all>=1 is not installed"
    assert told.cure == "pip install 'numpy>=999' 'not-here-at-all>=1'"
    assert found(packages.versions)["Python"].state == "failure"


def test_a_library_that_cannot_be_imported_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "alpaca_eval.py").write_text("raise ImportError('No module named pkg_resources')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    told = found(partial(packages.library, "alpaca_eval"))["look"]
    assert told.state == "failure"
    assert told.seen == "ImportError: No module named pkg_resources"
