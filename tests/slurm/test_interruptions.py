"""Trainings that the cluster interrupts: each continues by itself and ends as if undisturbed."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.files import read_json, sha256_file
from tests.slurm.conftest import Login, resources

pytestmark = pytest.mark.slurm
PACED = """
import os
import time

def rule(prompt, completion):
    if "SLURM_JOB_ID" in os.environ:
        time.sleep(0.05)
    return len(completion)
"""
"""A reward that takes its time: a training of 150 steps of eight completions lasts a minute and more on any
machine, and what is to interrupt it doesn't come too late."""
LONG = (
    "reward_model=rule",
    "reward_model.function=paced.py:rule",
    "seed=0",
    "algorithm.steps=150",
    "algorithm.checkpoint_every=25",
    "~benchmarks.lab_public",
    "~benchmarks.lab_private",
)
"""Without benchmarks, so that the training is the first job."""
WEIGHTS = "stages/train/policy/model.safetensors"


@pytest.fixture(scope="module")
def undisturbed(login: Login) -> dict[str, str]:
    """SHA-256 of what such a run leaves when nothing happens to it."""
    (login.workdir / "paced.py").write_text(PACED)
    words = [word for word in login.lab if not word.startswith(("algorithm.steps", "algorithm.checkpoint"))]
    done = login.call("run", *words, *LONG, "--experiment", "undisturbed")
    assert done.returncode == 0, done.stderr
    return results(only_run(login, "undisturbed"))


def only_run(login: Login, experiment: str) -> Path:
    (config,) = (login.workdir / "runs" / experiment).glob("*/config.yaml")
    return config.parent


def results(run: Path) -> dict[str, str]:
    return {file: sha256_file(run / file) for file in (WEIGHTS, "stages/score/scores.json")}


def begin(login: Login, experiment: str, *words: str) -> tuple[str, str]:
    """Submit such a run and wait until it trains; its directory and its training's task."""
    lab = [word for word in login.lab if not word.startswith(("algorithm.steps", "algorithm.checkpoint"))]
    settings = [resources(), "cluster.signal_seconds=60", *words]
    told = login.json("sweep", *lab, *LONG, *settings, "--experiment", experiment)
    run = f"runs/{experiment}/{told['submitted'][0]}"
    login.wait_for_step(run, 30)
    (train,) = (job["job_id"] for job in told["jobs"] if job["name"] == "train-1")
    return run, f"{train}_0"


def finish(login: Login, experiment: str, undisturbed: dict[str, str], attempts: int = 2) -> dict[str, Any]:
    """Wait for the run's end; it is the undisturbed run's, and its training was begun more than once."""
    (row,) = login.wait_for_end(f"runs/{experiment}").values()
    assert row["state"] == "done", login.tail(f"runs/{experiment}")
    run = only_run(login, experiment)
    assert results(run) == undisturbed
    assert read_json(run / "stages" / "train" / "inputs.json")["attempts"] >= attempts
    return row


def task(login: Login, name: str) -> dict[str, str]:
    rows = login.cluster.call("scontrol", "-o", "show", "job", name)
    return dict(part.split("=", 1) for part in rows.split() if "=" in part)


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


def test_every_task_of_an_array_continues(login: Login, undisturbed: dict[str, str]) -> None:
    """One task of every array has the array's own number for a job id: here the last that runs."""
    lab = [word for word in login.lab if not word.startswith(("algorithm.steps", "algorithm.checkpoint"))]
    words = [*lab, *LONG, "seed=0,1", resources(), "cluster.signal_seconds=60", "--experiment", "both"]
    told = login.json("sweep", *words)
    for run in told["submitted"]:
        login.wait_for_step(f"runs/both/{run}", 30)
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
