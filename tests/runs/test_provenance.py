"""The manifest says where numbers came from, and holds no secret."""

import sys
from pathlib import Path

import pytest

from rlhf_eval.files import read_json
from rlhf_eval.runs.directory import RunDirectory
from rlhf_eval.runs.provenance import write_manifest


def test_the_manifest_names_code_packages_and_scheduler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setattr(sys, "argv", ["rlhf-eval", "run", "judge.base_url=http://me:pass@host/v1"])
    write_manifest(RunDirectory(tmp_path), seeds={"run": 3}, sha256={"train": "ab"})
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest["seeds"] == {"run": 3}
    assert manifest["scheduler"] == {"SLURM_JOB_ID": "42"}
    assert {"torch", "trl", "transformers"} <= manifest["packages"].keys()
    assert manifest["command"] == "rlhf-eval run judge.base_url=http://host/v1"
    requirements = (tmp_path / "requirements.txt").read_text()
    assert f"torch=={manifest['packages']['torch']}\n" in requirements
    written = "".join(path.read_text() for path in tmp_path.iterdir() if path.name != "code.diff")
    assert "secret" not in written
    assert "pass@" not in written
