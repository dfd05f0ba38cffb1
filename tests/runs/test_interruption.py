"""SIGTERM to `rlhf-eval run`: it saves, exits with its own code, and the same command ends as undisturbed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from rlhf_eval.files import read_json, read_jsonl, sha256_file
from rlhf_eval.interruption import EXIT_CODE

RESULTS = ("train/policy/model.safetensors", "score/scores.json")
WORDS = ("reward_model=lab_clean_small", "algorithm.steps=40", "algorithm.checkpoint_every=40")

DELETING = """
import os
import shutil

def rule(prompt, completion):
    shutil.rmtree(os.environ["RUN"])
    raise ValueError("what it says itself is of no use")
"""


def command(small_lab: list[str], run: Path) -> list[str]:
    own = [*(word for word in small_lab if "algorithm.steps" not in word), *WORDS]
    return [sys.executable, "-m", "rlhf_eval", "run", *own, "--run-dir", str(run)]


def test_sigterm_in_training_and_in_judging(small_lab: list[str], tmp_path: Path) -> None:
    run, undisturbed = tmp_path / "runs" / "a", tmp_path / "runs" / "b"
    subprocess.run(command(small_lab, undisturbed), check=True, capture_output=True)
    process = subprocess.Popen(command(small_lab, run), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    metrics, deadline = run / "metrics.jsonl", time.monotonic() + 120
    while not metrics.exists() or sum(row["kind"] == "train" for row in read_jsonl(metrics)) < 5:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == EXIT_CODE == 75
    assert b"the same command continues" in said
    assert b"Traceback" not in said
    status = read_json(run / "status.json")
    assert (status["state"], status["stage"], status["error"]) == ("interrupted", "train", None)
    process = subprocess.Popen(command(small_lab, run), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while read_json(run / "status.json")["stage"] != "generate":
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == EXIT_CODE
    subprocess.run(command(small_lab, run), check=True, capture_output=True)
    for name in RESULTS:
        assert sha256_file(run / "stages" / name) == sha256_file(undisturbed / "stages" / name)


def test_a_run_whose_directory_is_deleted_says_so(small_lab: list[str], tmp_path: Path) -> None:
    """Whatever it is that then fails first: here a reward."""
    run = tmp_path / "runs" / "c"
    (tmp_path / "deleting.py").write_text(DELETING)
    words = ["reward_model=rule", f"reward_model.function={tmp_path}/deleting.py:rule"]
    command = [sys.executable, "-m", "rlhf_eval", "run", *small_lab, *words, "--run-dir", str(run)]
    done = subprocess.run(command, env=os.environ | {"RUN": str(run)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"error: {run} was deleted or moved away while its run was executing." in done.stderr
    assert "Traceback" not in done.stderr
