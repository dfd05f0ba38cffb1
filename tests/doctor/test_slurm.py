"""SLURM absent, and SLURM's programs without a cluster; `tests/slurm/test_doctor.py` has a real one."""

import pytest

from rlhf_eval.doctor.slurm import slurm
from tests.doctor.conftest import found


def test_no_slurm_is_nothing_to_worry_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    told = found(slurm)["SLURM"]
    assert (told.state, told.cure) == ("skipped", "")


def test_a_cluster_that_does_not_answer_is_a_warning(program) -> None:
    for name in ("sbatch", "squeue", "scancel", "scontrol"):
        program(name, "exit 1")
    program("sinfo", "echo 'sinfo: error: Unable to contact slurm controller (connect failure)' >&2; exit 1")
    told = found(slurm)["SLURM"]
    assert told.state == "warning"
    assert "Unable to contact slurm controller" in told.seen
