"""Several runs from one command line by Hydra's own means, without SLURM."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

import pytest
from omegaconf import DictConfig, OmegaConf

from rlhf_eval.config.compose import compose, run_path
from rlhf_eval.config.plain import plain
from rlhf_eval.errors import ConfigError
from rlhf_eval.files import read_jsonl, sha256_file
from rlhf_eval.runs.directory import RunDirectory, run_directories
from rlhf_eval.sweep.multirun import RunTask, multirun

MULTIRUN = "import sys; from rlhf_eval.sweep.multirun import multirun; sys.exit(multirun(sys.argv[1:]))"
LOCAL = "hydra/launcher=submitit_local"
TWO_MACHINES = (
    "accelerate.processes=2",
    "accelerate.machines=2",
    "algorithm.completions_per_device_batch=4",
)


def command(*words: str) -> list[str]:
    return [sys.executable, "-c", MULTIRUN, *words]


def weights(run: Path) -> str:
    return sha256_file(run / "stages" / "train" / "policy" / "model.safetensors")


def test_one_after_the_other_and_a_failure_is_no_ones_else(small_lab: list[str], tmp_path: Path) -> None:
    words = [*small_lab, "output=out", "reward_model=random,untrained", "seed=0,1"]
    held = tmp_path / run_path(compose([*small_lab, "output=out", "reward_model=random", "seed=0"]))
    with RunDirectory(held).locked():
        done = subprocess.run(command(*words), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "3 of 4 runs done" in done.stdout
    assert f"failed: {held.relative_to(tmp_path)}" in done.stdout
    assert f"is being worked on by process {os.getpid()}" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    runs = {run.path.name: run.status()["state"] for run in run_directories(tmp_path / "out" / "lab")}
    assert len(runs) == 4
    assert {name for name, state in runs.items() if state != "done"} == {held.name}
    assert {path.name for path in tmp_path.iterdir()} == {"out"}, "nothing else is written, no multirun/"

    again = subprocess.run(command(*words), cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "4 of 4 runs done" in again.stdout
    attempts = {run.path.name: run.status()["attempt"] for run in run_directories(tmp_path / "out" / "lab")}
    assert attempts.pop(held.name) == 1
    single = [*small_lab, "reward_model=random", "seed=1", "--run-dir", str(tmp_path / "alone" / "run")]
    subprocess.run([sys.executable, "-m", "rlhf_eval", "run", *single], check=True, capture_output=True)
    [second] = (tmp_path / "out" / "lab").glob("random--*--s1--*")
    assert weights(second) == weights(tmp_path / "alone" / "run"), (
        "what ran before in the process is no matter"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["reward_model=random,lab_claen"], "there is no 'lab_claen'"),
        (["algorithm.stepps=3", "seed=0,1"], r"algorithm\.stepps: there is no such field"),
        (["seed=0,one"], "seed: 'one' does not fit"),
        (["seed=interval(0,3)"], "names no values"),
        (["algorithm.completions_per_device_batch=8,7"], "does not divide"),
        (["seed=0,0"], "Two points are the same run"),
        (["threads=1,2"], "Two points are the same run"),
        (["prompts.train=lab:prompts/train.jsonl,absent.jsonl"], r"prompts\.train: 'absent\.jsonl'"),
        (["hydra/launcher=submitit_slrum"], "hydra/launcher/submitit_slrum"),
        ([LOCAL, "hydra.launcher.partitionn=main"], r"hydra\.launcher\.partitionn"),
        ([LOCAL, "accelerate=ddp", *TWO_MACHINES], "has one machine"),
    ],
)
def test_one_wrong_point_starts_nothing(
    words: list[str], message: str, small_lab: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "runs"
    with pytest.raises(ConfigError, match=message):
        multirun([*small_lab, f"output={output}", "reward_model=random", *words])
    assert not output.exists()


def test_points_under_two_protocols_start_nothing(small_lab: list[str], tmp_path: Path) -> None:
    words = [*small_lab, f"output={tmp_path}", "reward_model=random", "algorithm.kl_coefficient=0.1,0.2"]
    with pytest.raises(ConfigError, match=r"algorithm\.kl_coefficient: 0\.1 there, 0\.2 asked for"):
        multirun(words)
    assert not list(tmp_path.glob("lab/*/config.yaml"))


def test_without_slurm_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch, small_lab: list[str]) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="login node") as caught:
        multirun([*small_lab, "reward_model=random", "hydra/launcher=submitit_slurm"])
    assert "sbatch and srun are not on this machine's PATH" in caught.value.what


def test_a_job_that_composes_another_run_refuses(
    small_lab: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submitted = compose([*small_lab, f"output={tmp_path}", "reward_model=random"])
    now = compose([*small_lab, f"output={tmp_path}", "reward_model=random", "algorithm.learning_rate=0.5"])
    task = RunTask(None, frozenset({str(run_path(submitted))}))
    before = signal.getsignal(signal.SIGTERM)
    try:
        error = task(cast(DictConfig, OmegaConf.create(plain(now))))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert error is not None
    assert f"{run_path(now)}, which is none of the runs that were submitted: conf/ was edited" in error
    assert "conf/ was edited" in capsys.readouterr().err
    assert not run_path(now).exists()


def test_the_preemption_signal_saves_before_it_requeues_and_leaves_children_alive() -> None:
    program = """
import os, signal, subprocess, sys, time
from rlhf_eval.interruption import Interrupted, listen
from rlhf_eval.sweep.requeue import Requeue
signal.signal(signal.SIGUSR2, lambda *_: (print("requeued"), sys.exit(3)))
requeue = Requeue.take_over()
listen()
child = subprocess.Popen(["sleep", "60"])
try:
    child.send_signal(signal.SIGUSR2)
    os.kill(os.getpid(), signal.SIGUSR2)
    time.sleep(30)
except Interrupted:
    time.sleep(0.2)
    print("saved", child.poll())
child.kill()
requeue.carry_out()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (3, "")
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        "saved None",
        "interrupted",
        "requeued",
    ]


def test_a_preempted_local_job_saves_and_continues(small_lab: list[str], tmp_path: Path) -> None:
    words = [
        *(word for word in small_lab if "algorithm.steps" not in word),
        *(
            f"output={tmp_path}",
            "reward_model=lab_clean_small",
            "seed=0",
            LOCAL,
            "hydra.launcher.timeout_min=30",
        ),
        *("algorithm.steps=40", "algorithm.checkpoint_every=40"),
    ]
    process = subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 180
        seen: list[str] = []
        while process.poll() is None:
            assert time.monotonic() < deadline, seen
            for directory in run_directories(tmp_path / "lab") if (tmp_path / "lab").is_dir() else []:
                status = directory.status()
                steps = [row for row in _rows(directory.metrics_file) if row["kind"] == "train"]
                if len(steps) >= 5 and not seen:
                    os.kill(status["pid"], signal.SIGUSR2)
                    seen.append("asked")
                if seen and status["state"] != seen[-1]:
                    seen.append(status["state"])
            time.sleep(0.02)
    finally:
        process.kill()
    out, errors = process.communicate()
    assert process.returncode == 0, out + errors
    assert "1 of 1 runs done" in out
    assert seen == ["asked", "running", "interrupted", "running", "done"]
    [directory] = run_directories(tmp_path / "lab")
    assert directory.status()["attempt"] == 2
    assert [row["step"] for row in _rows(directory.metrics_file) if row["kind"] == "train"] == [*range(1, 41)]


def _rows(file: Path) -> list[dict]:
    return read_jsonl(file) if file.exists() else []
