"""Runs side by side: real processes, some of which fail, are killed, or lose their parent."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_eval.config.compose import compose, run_path
from rlhf_eval.files import read_json
from rlhf_eval.progress import SilentProgress
from rlhf_eval.runs.directory import RunDirectory
from rlhf_eval.sweep.local import run_all

RUNS = """
import os, signal, sys, time
from pathlib import Path
from rlhf_eval.errors import JudgeError
from rlhf_eval.runs.directory import RunDirectory

def execute(config, path, progress, stages):
    directory = RunDirectory.open(path, config)
    with directory.locked():
        directory.begin_attempt()
        progress.stage("train", "running")
        print("this goes to the run's own log")
        if config.seed == 1:
            raise JudgeError("The judge at http://127.0.0.1:9/v1 cannot be reached.", "Start it.")
        if config.seed == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if config.seed == 3:
            raise ZeroDivisionError("a bug")
        if config.seed == 9:
            time.sleep(600)
        for step in range(5):
            progress.advance(step, 5)
        directory.update_status(state="done")

def is_finished(config, path):
    return RunDirectory(path).status()["state"] == "done"
"""


@pytest.fixture
def fake_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Stages that take no time, as the arguments of `run_all`."""
    (tmp_path / "short_runs.py").write_text(RUNS)
    monkeypatch.syspath_prepend(tmp_path)
    return {"execute": "short_runs:execute", "is_finished": "short_runs:is_finished"}


def configs(output: Path, seeds: list[int]) -> list:
    base = replace(compose(["experiment=lab", "reward_model=random"]), output=str(output))
    return [replace(base, seed=seed) for seed in seeds]


def test_failures_are_recorded_and_the_others_go_on(tmp_path: Path, fake_stages: dict) -> None:
    runs = configs(tmp_path / "runs", [0, 1, 2, 3, 4])
    outcomes = run_all(runs, 2, SilentProgress(), **fake_stages)
    assert [outcome.state for outcome in outcomes] == ["done", "failed", "failed", "failed", "done"]
    assert [outcome.task.config.seed for outcome in outcomes] == [0, 1, 2, 3, 4]
    statuses = [read_json(outcome.path / "status.json") for outcome in outcomes]
    assert [status["state"] for status in statuses] == [outcome.state for outcome in outcomes]
    assert "http://127.0.0.1:9/v1" in statuses[1]["error"]
    assert "killed by SIGKILL" in statuses[2]["error"]
    assert "ZeroDivisionError: a bug" in statuses[3]["error"]
    assert "this goes to the run's own log" in (outcomes[3].path / "logs" / "output.log").read_text()
    assert "ZeroDivisionError" in (outcomes[3].path / "logs" / "output.log").read_text()


def test_what_is_finished_starts_no_process(tmp_path: Path, fake_stages: dict) -> None:
    runs = configs(tmp_path / "runs", [0, 4])
    run_all(runs, 2, SilentProgress(), **fake_stages)
    outcomes = run_all(runs, 2, SilentProgress(), **fake_stages | {"execute": "nowhere:a process would fail"})
    assert [outcome.state for outcome in outcomes] == ["up to date", "up to date"]
    assert all(RunDirectory(outcome.path).status()["attempt"] == 1 for outcome in outcomes)


def test_a_run_held_by_another_process_keeps_its_status(tmp_path: Path, fake_stages: dict) -> None:
    [config] = configs(tmp_path / "runs", [0])
    directory = RunDirectory.open(run_path(config), config)
    with directory.locked():
        directory.begin_attempt()
        [outcome] = run_all([config], 1, SilentProgress(), **fake_stages)
        assert outcome.state == "failed"
        assert f"process {os.getpid()}" in (outcome.error or "")
        assert directory.status()["state"] == "running"


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_no_run_outlives_its_parent(tmp_path: Path, fake_stages: dict, end: signal.Signals) -> None:
    [config] = configs(tmp_path / "runs", [9])
    program = (
        "import signal, sys; from dataclasses import replace; from rlhf_eval.config.compose import compose\n"
        "from rlhf_eval.progress import SilentProgress; from rlhf_eval.sweep.local import run_all\n"
        "if __name__ == '__main__':\n"
        # Where the tests run in the background of a shell, SIGINT is ignored and that is inherited.
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    config = compose(['experiment=lab', 'reward_model=random', 'seed=9'])\n"
        "    config = replace(config, output=sys.argv[1])\n"
        "    run_all([config], 1, SilentProgress(), 'short_runs:execute', 'short_runs:is_finished')\n"
    )
    (tmp_path / "parent.py").write_text(program)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py"), str(tmp_path / "runs")],
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    directory = RunDirectory(run_path(config))
    wait_for(lambda: directory.status()["state"] == "running", 120)
    worker = directory.status()["pid"]
    assert worker != parent.pid
    os.killpg(parent.pid, end) if end == signal.SIGINT else parent.send_signal(end)
    parent.communicate(timeout=20)
    wait_for(lambda: not Path(f"/proc/{worker}").exists())
    assert directory.status()["state"] == "interrupted"


def wait_for(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
