"""`rlhf-eval doctor` as users give it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf_eval.cli import main

KEY = "marker-of-a-key-0123456789"


def test_a_machine_that_suits_the_lab(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["experiment=lab", "reward_model=lab_clean", f"output={tmp_path}", "--json"]
    code = main(["doctor", *words])
    rows = json.loads(capsys.readouterr().out)
    assert [row for row in rows if row["state"] == "failure"] == []
    assert code == 0
    assert all(list(row) == ["topic", "check", "state", "seen", "cure"] for row in rows)
    assert all(row["cure"] for row in rows if row["state"] == "warning")
    assert {row["topic"] for row in rows} >= {"packages", "accelerators", "storage", "SLURM", "configuration"}
    assert not list(tmp_path.iterdir())


def test_a_machine_that_does_not_suit_a_large_model(
    capsys: pytest.CaptureFixture[str],
    program: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    program("nvidia-smi", "for i in 1 2; do echo 'NVIDIA L4, 24564, 3, 580.65.06'; done")
    monkeypatch.setenv("HF_TOKEN", f"hf_{KEY}")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{KEY}@127.0.0.1:9")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    lock = tmp_path / "lock.txt"
    lock.write_text("numpy==1.0.1\n")
    model = ["reward_model=skywork_v2_llama_8b", "policy=tulu3_8b_sft", "accelerate=zero3"]
    code = main(["doctor", *model, f"output={tmp_path}/runs", "--lock", str(lock)])
    text = capsys.readouterr().out
    assert code == 1
    assert text.isascii()
    assert "\x1b" not in text
    assert KEY not in text
    lines = text.splitlines()
    failed = next(n for n, line in enumerate(lines) if "FAILED   GPUs for training" in line)
    assert "asks for 8, this machine has 2" in lines[failed]
    assert "-> Set accelerate.processes=2" in lines[failed + 1]
    assert "OPENAI_API_KEY is not set" in text
    assert "pip install numpy==1.0.1" in text
    assert lines[0].startswith("rlhf-eval doctor reward_model=skywork_v2_llama_8b")
    assert "FAILED" in lines[-1]


def test_a_configuration_that_does_not_fit_the_schema_is_refused_before_anything(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["doctor", "reward_model=lab_claen"]) == 2
    assert "Did you mean" in capsys.readouterr().err
