"""What is understood of SLURM's answers, written as its programs print them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_eval.errors import ConfigError
from rlhf_eval.sweep import slurm as asked
from rlhf_eval.sweep.slurm import SlurmError, TaskState, history, largest_array, queue, state_of
from tests.sweep.conftest import Slurm


def known(state: str) -> TaskState:
    return TaskState(state, "", "")


def test_squeue_is_asked_once_about_all_jobs(slurm: Slurm) -> None:
    row = "12    |{}    |{}    |{}    |{}    |\n"
    lines = [
        row.format("0", "RUNNING", "None", "n[1-2]"),
        row.format("1", "PENDING", "BeginTime", ""),
        row.format("2-7:2%3", "PENDING", "Dependency", ""),
        row.format("N/A", "RUNNING", "None", "n4"),
    ]
    slurm.answer("squeue", "".join(lines))
    assert queue([12, 13]) == {
        (12, 0): TaskState("RUNNING", "", "n[1-2]"),
        (12, 1): TaskState("PENDING", "BeginTime", ""),
        **{(12, number): TaskState("PENDING", "Dependency", "") for number in (2, 4, 6)},
    }
    [call] = slurm.calls("squeue")
    assert "--array" in call
    assert "--states=all" in call
    assert "--jobs=12,13,12,13 " in call
    assert call.endswith("ArrayJobID:120|,ArrayTaskID:120|,State:120|,Reason:120|,NodeList:120|")


def test_nothing_is_asked_about_no_jobs(slurm: Slurm) -> None:
    slurm.answer("squeue", exit_code=1)
    slurm.answer("sacct", exit_code=1)
    assert queue([]) == {}
    assert history([]) == {}
    assert slurm.calls("squeue") == slurm.calls("sacct") == []


def test_accounting_tells_how_tasks_ended(slurm: Slurm) -> None:
    slurm.answer(
        "sacct",
        "12_0|COMPLETED|n1\n12_1|CANCELLED by 1000|n[1-2]\n12_[2-4,9%2]|CANCELLED by 0|None assigned\n"
        "13|TIMEOUT|n3\n",
    )
    states = history([12, 13])
    assert states == {
        (12, 0): TaskState("COMPLETED", "", "n1"),
        (12, 1): TaskState("CANCELLED", "", "n[1-2]"),
        **{(12, number): TaskState("CANCELLED", "", "None assigned") for number in (2, 3, 4, 9)},
        (13, asked.WHOLE): TaskState("TIMEOUT", "", "n3"),
    }
    assert state_of((12, 1), states) == states[12, 1]
    assert state_of((12, 5), states) is None
    assert state_of((13, 5), states) == states[13, asked.WHOLE]  # by what is known of the array
    [call] = slurm.calls("sacct")
    assert call.endswith("--jobs=12,13")
    assert "--allocations" in call  # the task, not its steps


@pytest.mark.parametrize("absent", [True, False])
def test_a_cluster_without_accounting_has_no_history(slurm: Slurm, absent: bool) -> None:
    if not absent:
        slurm.answer("sacct", "Slurm accounting storage is disabled", exit_code=1)
    assert history([12]) == {}


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(1, 9), st.sampled_from("nrs")),
        min_size=1,
        max_size=5,
    ),
    st.none() | st.integers(1, 99),
    st.booleans(),
)
def test_numbers_of_tasks_as_slurm_writes_them(
    parts: list[tuple[int, int, int, str]], throttle: int | None, bracketed: bool
) -> None:
    """`3`, `3-9` and `3-9:2`, separated by commas, with a throttle behind and brackets around."""
    words, expected = [], []
    for first, more, step, form in parts:
        last = first + more
        words.append({"n": f"{first}", "r": f"{first}-{last}", "s": f"{first}-{last}:{step}"}[form])
        expected += {"n": [first], "r": [*range(first, last + 1)], "s": [*range(first, last + 1, step)]}[form]
    text = ",".join(words) + (f"%{throttle}" if throttle else "")
    assert asked._numbers(f"[{text}]" if bracketed else text) == expected


@pytest.mark.parametrize(
    ("state", "waits", "runs"),
    [
        ("PENDING", True, False),
        ("REQUEUE_HOLD", True, False),
        ("RUNNING", False, True),
        ("CONFIGURING", False, True),
        ("COMPLETING", False, True),
        ("SUSPENDED", False, True),
        *((ended, False, False) for ended in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL")),
        *((ended, False, False) for ended in ("OUT_OF_MEMORY", "PREEMPTED", "BOOT_FAIL", "DEADLINE")),
    ],
)
def test_what_a_task_still_does(state: str, waits: bool, runs: bool) -> None:
    task = known(state)
    assert (task.waits, task.runs, task.active) == (waits, runs, waits or runs)


def test_submission_gives_dependencies_and_takes_the_number(slurm: Slurm) -> None:
    slurm.answer("sbatch", "1234;cluster\n")
    assert asked.submit(Path("x/train-1.sbatch"), ["aftercorr:7", "afterany:5"]) == 1234
    assert asked.submit(Path("x/train-2.sbatch"), []) == 1234
    assert slurm.calls("sbatch") == [
        "--parsable --dependency=aftercorr:7,afterany:5 x/train-1.sbatch",
        "--parsable x/train-2.sbatch",
    ]


def test_the_largest_array_is_the_cluster_s(slurm: Slurm) -> None:
    slurm.answer("scontrol", "MaxArraySize            = 4001\nMaxArrayTasks = 9\nMaxJobCount = 10000\n")
    assert largest_array() == 4001
    slurm.answer("scontrol", "MaxArraySize            = 0\n")
    assert largest_array() == 1


def test_many_tasks_are_cancelled_in_calls_that_a_command_line_can_hold(slurm: Slurm) -> None:
    slurm.answer("scancel")
    asked.cancel([f"12_{number}" for number in range(2500)])
    calls = [call.split() for call in slurm.calls("scancel")]
    assert [len(call) for call in calls] == [1000, 1000, 500]
    assert [task for call in calls for task in call] == [f"12_{number}" for number in range(2500)]


def test_a_program_that_fails_is_named_with_its_words(slurm: Slurm) -> None:
    slurm.answer("squeue", "slurm_load_jobs error: Unable to contact slurm controller", exit_code=1)
    with pytest.raises(SlurmError, match="squeue failed: slurm_load_jobs error: Unable to contact"):
        queue([12])


def test_no_slurm_here(slurm: Slurm) -> None:
    with pytest.raises(ConfigError, match="sbatch is not to be found"):
        asked.require_slurm()
    with pytest.raises(ConfigError, match="squeue is not to be found"):
        queue([12])


def test_a_program_that_does_not_answer(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "TIMEOUT_SECONDS", 0.2)
    slurm.answer("squeue")
    (slurm.folder / "squeue").write_text("#!/bin/sh\nwhile :; do :; done\n")
    with pytest.raises(SlurmError, match=r"squeue gave no answer within 0\.2 seconds"):
        queue([12])
