"""Trainings that people interrupt: each is continued, and ends as if undisturbed."""

from pathlib import Path

import pytest

from rlhf_eval.files import read_json
from tests.slurm.conftest import Login, resources
from tests.slurm.paced import LONG, begin, finish, results, task, undisturbed_results

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def undisturbed(login: Login) -> dict[str, str]:
    return undisturbed_results(login)


def test_every_task_of_an_array_continues(login: Login, undisturbed: dict[str, str]) -> None:
    """One task of every array has the array's own number for a job id: here the last that runs."""
    lab = [word for word in login.lab if not word.startswith(("algorithm.steps", "algorithm.checkpoint"))]
    words = [*lab, *LONG, "seed=0,1", resources(), "cluster.signal_seconds=60", "--experiment", "both"]
    told = login.json("sweep", *words)
    for run in told["submitted"]:
        login.wait_for_step(f"runs/both/{run}", 15)
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
