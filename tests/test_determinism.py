"""`deterministic=true` reaches every process that computes, and changes no number on a CPU."""

import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_eval.config.compose import compose, hash8
from rlhf_eval.files import sha256_file

PROBE = """
import torch
from rlhf_eval.training import train as module
whole = module._continue
def told(*arguments, **named):
    print("deterministic:", torch.are_deterministic_algorithms_enabled(), flush=True)
    return whole(*arguments, **named)
module._continue = told
"""
"""Python that says in each training process how it computes."""


def weights(folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "rlhf_eval", "run", *words, f"output={folder}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (run,) = (folder / "lab").glob("*--s0--*")
    return sha256_file(run / "stages/train/policy/model.safetensors")


def test_it_changes_no_number_on_a_cpu(
    small_lab: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    words = [*small_lab, "reward_model=lab_clean_small"]
    usual = weights(tmp_path / "usual", *words)
    assert weights(tmp_path / "deterministic", *words, "deterministic=true") == usual


def test_it_changes_no_fingerprint(small_lab: list[str]) -> None:
    words = [*small_lab, "reward_model=random"]
    assert hash8(compose(words)) == hash8(compose([*words, "deterministic=true"]))


def test_every_training_process_takes_deterministic_kernels(
    small_lab: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(PROBE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    words = [*small_lab, "reward_model=random", "deterministic=true", f"output={tmp_path / 'runs'}"]
    words += ["accelerate=ddp", "accelerate.processes=2", "algorithm.completions_per_device_batch=4"]
    done = subprocess.run([sys.executable, "-m", "rlhf_eval", "run", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    logs = "".join(log.read_text() for log in (tmp_path / "runs").rglob("*.log"))
    said = [line for line in logs.splitlines() if "deterministic:" in line]
    assert len(said) == 2
    assert all(line.endswith("True") for line in said)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_bits_twice(small_lab: list[str], tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    words = [*small_lab, "reward_model=lab_clean_small", "deterministic=true"]
    assert weights(tmp_path / "one", *words) == weights(tmp_path / "two", *words)
