"""Trainings that the cluster or people interrupt: each ends as if undisturbed, or is given up."""

import subprocess
from pathlib import Path

import pytest

from rlhf_eval.files import read_json
from tests.slurm.conftest import Login, resources
from tests.slurm.paced import LONG, SOME_STEPS, begin, finish, results, task, undisturbed_results

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def undisturbed(login: Login) -> dict[str, str]:
    return undisturbed_results(login)


def test_preemption_time_limit_requeue_and_node_failure(login: Login, undisturbed: dict[str, str]) -> None:
    cluster = login.cluster
    _, preempted = begin(login, "preempted")
    node = task(login, preempted)["NodeList"]
    cluster.submit("sleep 1", "--partition=high", f"--nodelist={node}", "--exclusive")
    # SLURM looks every half minute whether a signal is due by the next time: here 30 to 60 s after the start.
    begin(login, "out-of-time", "cluster.jobs.train.time=2", "cluster.signal_seconds=60")
    _, requeued = begin(login, "requeued")
    cluster.call("scontrol", "requeue", requeued)
    _, lost = begin(login, "node-down")
    node = task(login, lost)["NodeList"]
    cluster.node_down(node)
    for experiment in ("preempted", "out-of-time", "requeued", "node-down"):
        finish(login, experiment, undisturbed)
    assert task(login, lost)["NodeList"] != node
    cluster.node_up(node)


def test_attempts_are_limited_and_a_crash_is_not_repeated(login: Login, undisturbed: dict[str, str]) -> None:
    _, name = begin(login, "given-up", "cluster.max_attempts=1")
    login.cluster.call("scontrol", "requeue", name)
    (row,) = login.wait_for_end("runs/given-up").values()
    assert row["state"] == "failed"
    assert "1 attempts of SLURM's job were interrupted" in row["error"]
    run, name = begin(login, "killed")
    killed = read_json(login.workdir / run / "status.json")["pid"]
    job = task(login, name)
    # As the kernel's out-of-memory killer does it: the run has no chance to say anything.
    step = ["srun", "--overlap", f"--jobid={job['JobId']}", "kill", "-9", str(killed)]
    subprocess.run(step, env=login.cluster.environment, check=True, capture_output=True)
    (row,) = login.wait_for_end("runs/killed").values()
    assert row["state"] == "failed"
    assert "ended as FAILED on n" in row["error"]
    assert "code 137" in row["error"]
    assert task(login, name)["Restarts"] == "0"


def test_every_task_of_an_array_continues(login: Login, undisturbed: dict[str, str]) -> None:
    """One task of every array has the array's own number for a job id: here the last that runs."""
    words = [
        *login.lab_but_steps(),
        *LONG,
        "seed=0,1",
        resources(),
        "cluster.signal_seconds=60",
        "--experiment",
        "both",
    ]
    told = login.json("sweep", *words)
    for run in told["submitted"]:
        login.wait_for_step(f"runs/both/{run}", SOME_STEPS)
    (train,) = (job["job_id"] for job in told["jobs"] if job["name"] == "train-1")
    ids = [task(login, f"{train}_{number}")["JobId"] for number in (0, 1)]
    assert str(train) in ids
    login.cluster.call("scancel", "--signal=USR1", "--batch", f"{train}_0", f"{train}_1")
    rows = login.wait_for_end("runs/both")
    assert {row["state"] for row in rows.values()} == {"done"}, login.tail("runs/both")
    for run in told["submitted"]:
        folder = login.workdir / "runs" / "both" / run
        assert read_json(folder / "stages" / "train" / "inputs.json")["attempts"] == 2
        if rows[run]["seed"] == 0:
            assert results(folder) == undisturbed


def test_cancel_and_resume(login: Login, undisturbed: dict[str, str]) -> None:
    run, _ = begin(login, "cancelled")
    assert "cancelled 3 tasks" in login.call("cancel", "runs/cancelled").stdout
    (row,) = login.wait_for_end("runs/cancelled", 60).values()
    assert (row["state"], row["jobs"]) == ("cancelled", [])
    login.cluster.wait(
        lambda jobs: not any(job["State"] in ("RUNNING", "COMPLETING") for job in jobs), 60, "the end of all"
    )
    assert read_json(login.workdir / run / "status.json")["state"] == "interrupted"
    told = login.json("sweep", "--resume", "runs/cancelled", resources())
    assert told["submitted"] == [Path(run).name]
    finish(login, "cancelled", undisturbed)
