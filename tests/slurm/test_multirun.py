"""`rlhf-eval run -m hydra/launcher=submitit_slurm` on a real SLURM."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.runs.directory import run_directories

pytestmark = pytest.mark.slurm

ROOT = Path(__file__).parents[2]
SLURM = ("hydra/launcher=submitit_slurm", "hydra.launcher.partition=main", "hydra.launcher.timeout_min=15")


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "rlhf_eval", "run", "-m", *words]


def states(experiment: Path) -> list[str]:
    return [directory.status()["state"] for directory in run_directories(experiment)]


def test_two_reward_models_as_two_jobs(cluster: Any, small_lab: list[str], tmp_path: Path) -> None:
    words = [*small_lab, f"output={tmp_path}/runs", "reward_model=random,untrained", "seed=0", *SLURM]
    done = subprocess.run(
        command(*words), cwd=tmp_path, env=cluster.environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 runs done" in done.stdout
    assert states(tmp_path / "runs" / "lab") == ["done", "done"]
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}
    jobs = list((tmp_path / "runs" / "lab" / "sweeps" / "submitit").glob("*/*/*_result.pkl"))
    assert len(jobs) == 2


def test_what_sbatch_says_of_a_wrong_partition(cluster: Any, small_lab: list[str], tmp_path: Path) -> None:
    words = [*small_lab, f"output={tmp_path}/runs", "reward_model=random", "seed=0,1", *SLURM]
    wrong = [*words, "hydra.launcher.partition=nowhere"]
    done = subprocess.run(
        command(*wrong), env=cluster.environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "invalid partition specified: nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    assert states(tmp_path / "runs" / "lab") == ["pending", "pending"]


def is_held(job: dict[str, str]) -> bool:
    """Whether a job is held; those that other tests cancelled keep the reason."""
    return job["State"] == "PENDING" and "Held" in job["Reason"]


def test_an_edit_of_conf_before_the_start_is_refused(
    cluster: Any, small_lab: list[str], tmp_path: Path
) -> None:
    checkout = tmp_path / "checkout"
    for part in ("rlhf_eval", "conf"):
        shutil.copytree(ROOT / part, checkout / part, ignore=shutil.ignore_patterns("__pycache__"))
    words = [*small_lab, f"output={tmp_path}/runs", "reward_model=random", "seed=0,1", *SLURM]
    held = [*words, "+hydra.launcher.additional_parameters.hold=true"]
    process = subprocess.Popen(
        command(*held),
        cwd=checkout,  # `python -m` takes the package from here
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        cluster.wait(lambda jobs: any(map(is_held, jobs)), 120, "jobs that are held")
        file = checkout / "conf" / "algorithm" / "grpo_lab.yaml"
        edited, count = re.subn(r"(?m)^learning_rate:.*$", "learning_rate: 0.5", file.read_text())
        assert count == 1
        file.write_text(edited)
        for job in {job["ArrayJobID"] for job in cluster.jobs() if is_held(job)}:
            cluster.call("scontrol", "release", job)
        out, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 1, out + errors
    assert out.count("conf/ was edited between submission and start") == 2
    assert "Traceback" not in out + errors
    assert states(tmp_path / "runs" / "lab") == ["pending", "pending"]
