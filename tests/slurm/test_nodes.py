"""Trainings on several nodes: `srun` starts `accelerate launch` on each, and the processes meet over gloo."""

import sys
from pathlib import Path

import pytest

from rlhf_eval.files import read_json, sha256_file
from tests.slurm.conftest import Login, resources

pytestmark = pytest.mark.slurm
TWO_PROCESSES = (
    "accelerate.processes=2",
    "accelerate.mixed_precision=no",
    "accelerate.device=cpu",
    "algorithm.completions_per_device_batch=4",
    "reward_model=lab_clean_small",
    "~benchmarks.lab_public",
    "~benchmarks.lab_private",
)


def test_two_nodes_train_what_one_machine_trains(login: Login) -> None:
    """ZeRO-2; DDP on two machines is in tests/training/test_processes.py."""
    words = [*login.lab, *TWO_PROCESSES, "accelerate=zero2"]
    here = login.call("run", *words, "--experiment", "here", "--stages", "train")
    assert here.returncode == 0, here.stderr
    told = login.json("sweep", *words, "accelerate.machines=2", resources(), "--experiment", "there")
    (row,) = login.wait_for_end("runs/there").values()
    assert row["state"] == "done", login.tail("runs/there")
    train = next(job for job in told["jobs"] if job["name"] == "train-1")["job_id"]
    fields = ["-nXP", "-o", "NNodes,AllocTRES", "-j", str(train)]
    nodes, allocated = login.cluster.call("sacct", *fields).strip().split("|")
    assert nodes == "2"
    assert "gres/gpu=4" in allocated
    steps = login.cluster.call("sacct", "-nP", "-o", "JobID,NNodes,NTasks", "-j", str(train)).splitlines()
    assert any(line.endswith(".0|2|2") for line in steps), steps  # srun's step: a task on each node
    name = row["run"]
    weights = [
        sha256_file(login.workdir / f"runs/{place}/{name}/stages/train/policy/model.safetensors")
        for place in ("here", "there")
    ]
    assert weights[0] == weights[1]


def test_vllm_serves_rollouts_from_a_node_of_its_own(login: Login) -> None:
    """As far as it goes without GPUs: the server's command is executed on the last node, and the training is
    told that address; that vLLM is not installed here ends both."""
    calls = login.workdir / "calls"
    python = login.workdir / "python"
    python.write_text(f'#!/bin/sh\necho "$(hostname) $*" >> {calls}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    told = login.sweep(
        *TWO_PROCESSES,
        "accelerate=ddp",
        "accelerate.machines=2",
        "algorithm.rollout.engine=vllm_server",
        "algorithm.rollout.tensor_parallel=2",
        f"cluster.python={python}",
        "--experiment",
        "served",
    )
    (row,) = login.wait_for_end("runs/served").values()
    assert row["state"] == "failed"
    assert "vllm_server needs vLLM" in row["error"], login.tail("runs/served")
    (train,) = [job["job_id"] for job in told["jobs"] if job["name"] == "train-1"]
    nodes = login.cluster.call("sacct", "-nXP", "-o", "NodeList", "-j", str(train)).strip()
    nodes = login.cluster.call("scontrol", "show", "hostnames", nodes).split()
    assert len(nodes) == 3
    made = dict(line.split(" ", 1) for line in calls.read_text().splitlines() if "rollout_server" in line)
    (server,) = made
    assert server == nodes[-1]
    run = f"runs/served/{row['run']}"
    port = made[server].split()[-1]
    assert made[server] == f"-m rlhf_eval.training.rollout_server {run} {port}"
    assert f"algorithm.rollout.server_url=http://{server}:{port}" in calls.read_text()
    (log,) = Path(login.workdir, "runs/served").glob("sweeps/*/logs/train-1-0.log")
    assert "No module named 'vllm'" in log.read_text(), log.read_text()
    manifest = read_json(login.workdir / run / "manifest.json")
    assert manifest["scheduler"]["SLURM_NNODES"] == "3"
