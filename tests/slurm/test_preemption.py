"""Trainings that the cluster interrupts: each continues and ends as if undisturbed, or is given up."""

import subprocess

import pytest

from rlhf_eval.files import read_json
from tests.slurm.conftest import Login
from tests.slurm.paced import begin, finish, task, undisturbed_results

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
