"""A judge that is served to all runs of a sweep: its address stands in a file exactly while it is up."""

import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from rlhf_eval.config.schema import JudgeConfig
from rlhf_eval.files import append_jsonl
from rlhf_eval.interruption import EXIT_CODE
from rlhf_eval.sweep import judge_server
from rlhf_eval.sweep.judge_server import FAILED, address_file, seen_by_others, write
from tests.sweep.conftest import Slurm

LAB = JudgeConfig("lab", "lab-judge-1", serve=("python", "-m", "rlhf_eval.lab.judge_server"))


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ("http://127.0.0.1:8000/v1", "http://n7:8000/v1"),
        ("http://localhost:8000/v1", "http://n7:8000/v1"),
        ("http://0.0.0.0:8000/v1", "http://n7:8000/v1"),
        ("http://[::1]:8000/v1", "http://n7:8000/v1"),
        ("http://localhost/v1", "http://n7/v1"),
        ("http://n3:8000/v1", "http://n3:8000/v1"),
        ("https://judge.example/v1", "https://judge.example/v1"),
    ],
)
def test_the_address_is_the_one_that_other_nodes_call(said: str, seen: str) -> None:
    assert seen_by_others(said, {"SLURMD_NODENAME": "n7"}) == seen


def test_outside_slurm_the_machine_s_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "login1")
    assert seen_by_others("http://127.0.0.1:1/v1", {}) == "http://login1:1/v1"


def start(file: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "rlhf_eval.sweep.judge_server", str(file)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def sweep(folder: Path, judge: JudgeConfig = LAB) -> Path:
    """The file of a server that job 13 needs."""
    file = folder / "judge_server-1.json"
    write(file, judge)
    assert address_file(file) == folder / "judge_server-1.address"
    append_jsonl(folder / "jobs.jsonl", {"kind": "train", "job_id": 11, "runs": ["r"]})
    append_jsonl(folder / "jobs.jsonl", {"kind": "judge", "job_id": 13, "runs": ["r"]})
    return file


def test_it_serves_until_it_is_told_to_stop_and_wants_to_be_given_again(tmp_path: Path, slurm: Slurm) -> None:
    slurm.queue((13, 0, "COMPLETED"), (13, 1, "PENDING"))
    file = sweep(tmp_path)
    server = start(file)
    try:
        deadline = time.monotonic() + 30
        while not (address_file(file).exists() and slurm.calls("squeue")):
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        address = address_file(file).read_text().strip()
        port = address.removesuffix("/v1").rpartition(":")[2]
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status == 200
        server.send_signal(signal.SIGUSR1)
        _, said = server.communicate(timeout=30)
    finally:
        server.kill()
    assert (server.returncode, said) == (EXIT_CODE, "")
    assert not address_file(file).exists()
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)


@pytest.mark.parametrize("ended", [((13, 0, "COMPLETED"), (13, 1, "FAILED")), ()])
def test_it_ends_when_nobody_needs_it_any_more(
    tmp_path: Path, slurm: Slurm, ended: tuple[tuple[int, int, str], ...]
) -> None:
    slurm.queue(*ended)
    file = sweep(tmp_path)
    judge_server.serve(file)
    assert not address_file(file).exists()
    assert "--jobs=13,13 " in slurm.calls("squeue")[0]  # the training is no matter


def test_a_controller_that_is_away_for_a_moment_ends_nothing(
    tmp_path: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.answer("squeue", "Unable to contact slurm controller", exit_code=1)
    monkeypatch.setattr(judge_server, "PATIENCE_SECONDS", 0.05)
    file = sweep(tmp_path)
    seen: list[bool] = []

    def come_back() -> None:
        deadline = time.monotonic() + 20
        while len(slurm.calls("squeue")) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        seen.append(address_file(file).exists())
        slurm.queue((13, 0, "COMPLETED"))

    controller = threading.Thread(target=come_back)
    controller.start()
    judge_server.serve(file)
    assert len(slurm.calls("squeue")) >= 3
    controller.join()
    assert seen == [True]


def test_where_there_will_be_no_server_its_file_says_why(tmp_path: Path, slurm: Slurm) -> None:
    file = sweep(
        tmp_path, JudgeConfig("j", "m", serve=("python", "-c", "import sys; sys.exit('no weights')"))
    )
    server = start(file)
    _, said = server.communicate(timeout=30)
    assert server.returncode == 1
    assert "no weights" in said
    assert "Traceback" not in said
    told = address_file(file).read_text()
    assert told.startswith(FAILED)
    assert "no weights" in told
