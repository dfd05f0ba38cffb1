"""SIGTERM in a real process: it interrupts at once, or is kept until it suits."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.files import read_jsonl
from rlhf_eval.interruption import EXIT_CODE
from rlhf_eval.runs.directory import RunDirectory

Start = Callable[[str], subprocess.Popen[str]]

BEGIN = "import sys, time\nfrom rlhf_eval.interruption import Interrupted, deferred, listen\nlisten()\n"
WAIT_INSIDE = """
    print("ready", flush=True)
    deadline = time.monotonic() + 20
    while not stop() and time.monotonic() < deadline:
        time.sleep(0.01)
"""


@pytest.fixture
def start() -> Iterator[Start]:
    """A function: program → its process, once it has said that it is ready; the process ends with the
    test."""
    started: list[subprocess.Popen[str]] = []

    def run(program: str) -> subprocess.Popen[str]:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen([sys.executable, "-c", program], **pipes)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def terminated(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, further output and errors after SIGTERM."""
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=30)
    return process.returncode, out, errors


def test_outside_a_deferred_block_it_raises(start: Start) -> None:
    program = f"""{BEGIN}
try:
    print("ready", flush=True)
    time.sleep(30)
except Interrupted as why:
    print(why)
"""
    assert terminated(start(program)) == (0, "interrupted by SIGTERM\n", "")


def test_no_handler_of_errors_swallows_it(start: Start) -> None:
    program = f"""{BEGIN}
try:
    print("ready", flush=True)
    time.sleep(30)
except Exception:
    print("swallowed")
"""
    code, out, errors = terminated(start(program))
    assert (code, out) == (1, "")
    assert errors.endswith("Interrupted: interrupted by SIGTERM\n")


def test_inside_it_is_kept_and_the_end_of_the_block_interrupts(start: Start) -> None:
    program = f"""{BEGIN}
try:
    with deferred() as stop:
        print(stop(), file=sys.stderr){WAIT_INSIDE.replace(chr(10), chr(10) + "    ")}
        print(stop())
    print("after the block")
except Interrupted:
    print("interrupted")
"""
    assert terminated(start(program)) == (0, "True\ninterrupted\n", "False\n")


def test_an_error_inside_is_the_one_that_is_told(start: Start) -> None:
    program = f"""{BEGIN}
try:
    with deferred() as stop:{WAIT_INSIDE.replace(chr(10), chr(10) + "    ")}
        raise ValueError
except ValueError:
    print("the error")
"""
    assert terminated(start(program)) == (0, "the error\n", "")


def test_after_the_block_it_interrupts_again(start: Start) -> None:
    program = f"""{BEGIN}
with deferred() as stop:
    pass
try:
    print("ready", flush=True)
    time.sleep(30)
except Interrupted:
    print("interrupted")
"""
    assert terminated(start(program)) == (0, "interrupted\n", "")


def test_a_block_that_begins_later_has_not_been_asked_to_stop(start: Start) -> None:
    program = f"""{BEGIN}
try:
    with deferred() as stop:{WAIT_INSIDE.replace(chr(10), chr(10) + "    ")}
except Interrupted:
    pass
with deferred() as stop:
    print(stop())
"""
    assert terminated(start(program)) == (0, "False\n", "")


def test_a_run_saves_and_ends_with_the_code_that_asks_to_be_continued(
    small_lab: list[str], tmp_path: Path
) -> None:
    words = [
        *small_lab,
        "reward_model=lab_clean_small",
        "algorithm.steps=1000",
        "algorithm.checkpoint_every=999",
    ]
    command = [sys.executable, "-m", "rlhf_eval", "run", *words, "--run-dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics, deadline = tmp_path / "metrics.jsonl", time.monotonic() + 180
    while not (metrics.exists() and any(row["kind"] == "train" for row in read_jsonl(metrics))):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    code, _, errors = terminated(process)
    assert code == EXIT_CODE == 75
    assert errors.endswith("interrupted by SIGTERM: the same command continues from here\n")
    assert RunDirectory(tmp_path).status()["state"] == "interrupted"
    step = max(row["step"] for row in read_jsonl(metrics))
    assert step < 1000
    assert (tmp_path / f"stages/train/checkpoints/checkpoint-{step}/complete.json").exists()


def test_a_signal_after_the_end_changes_no_exit_code() -> None:
    """Python takes its handlers away before it deletes the last objects."""
    program = """
import os, signal, sys
from rlhf_eval.cli import main
from rlhf_eval.interruption import listen

class Late:
    def __init__(self): self.kill, self.pid = os.kill, os.getpid()
    def __del__(self): [self.kill(self.pid, number) for number in (signal_numbers)]

signal_numbers = (signal.SIGUSR1, signal.SIGTERM)
late = Late()
listen()
sys.exit(main(["rank", "nowhere"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "nowhere" in done.stderr
