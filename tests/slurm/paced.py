"""Trainings that last long enough to be interrupted, and how each of them must end: as if undisturbed."""

from pathlib import Path
from typing import Any

from rlhf_eval.files import read_json, sha256_file
from tests.slurm.conftest import Login, resources

PACED = """
import os
import time

def rule(prompt, completion):
    if "SLURM_JOB_ID" in os.environ:
        time.sleep(0.2)
    return len(completion)
"""
"""A reward that takes its time: a training of 40 steps of eight completions lasts a minute and more on any
machine, and what is to interrupt it doesn't come too late."""
LONG = (
    "reward_model=rule",
    "reward_model.function=paced.py:rule",
    "seed=0",
    "algorithm.steps=40",
    "algorithm.checkpoint_every=10",
    "~benchmarks.lab_public",
    "~benchmarks.lab_private",
)
"""Without benchmarks, so that the training is the first job."""
SOME_STEPS = 8
"""So far a training has come, short of its first checkpoint, when something happens to it."""
WEIGHTS = "stages/train/policy/model.safetensors"


def undisturbed_results(login: Login) -> dict[str, str]:
    """SHA-256 of what such a run leaves when nothing happens to it."""
    (login.workdir / "paced.py").write_text(PACED)
    done = login.call("run", *login.lab_but_steps(), *LONG, "--experiment", "undisturbed")
    assert done.returncode == 0, done.stderr
    return results(only_run(login, "undisturbed"))


def only_run(login: Login, experiment: str) -> Path:
    (config,) = (login.workdir / "runs" / experiment).glob("*/config.yaml")
    return config.parent


def results(run: Path) -> dict[str, str]:
    return {file: sha256_file(run / file) for file in (WEIGHTS, "stages/score/scores.json")}


def begin(login: Login, experiment: str, *words: str) -> tuple[str, str]:
    """Submit such a run and wait until it trains; its directory and its training's task."""
    settings = [resources(), "cluster.signal_seconds=60", *words]
    told = login.json("sweep", *login.lab_but_steps(), *LONG, *settings, "--experiment", experiment)
    run = f"runs/{experiment}/{told['submitted'][0]}"
    login.wait_for_step(run, SOME_STEPS)
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
