"""The manifest says where numbers came from, stage by stage, and holds no secret."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_eval.config.compose import compose
from rlhf_eval.files import read_json, read_jsonl, sha256_file, write_json, write_text
from rlhf_eval.progress import SilentProgress
from rlhf_eval.runs.environment import environment, identity, installed, needed, packages_of
from rlhf_eval.runs.stages import execute

MARK = "zq" + "xv81"  # in two parts, or this file would be where it is found
VARIABLES = {
    "SLURM_JOB_ID": "42",
    "NCCL_DEBUG": "WARN",
    "VLLM_API_KEY": f"{MARK}-001",
    "OPENAI_API_KEY": f"{MARK}-002",
    "RLHF_EVAL_REWARD_TOKEN": f"{MARK}-003",
    "CUDA_VISIBLE_DEVICES": "3",
    "NCCL_SOCKET": f"http://me:{MARK}@host",
}


@pytest.fixture(scope="module")
def run(small_lab: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the public command in an environment of its own."""
    output = tmp_path_factory.mktemp("provenance")
    words = ["run", *small_lab, "reward_model=lab_clean_small", f"output={output}"]
    words.append("~benchmarks.lab_private")
    subprocess.run(
        [sys.executable, "-m", "rlhf_eval", *words],
        check=True,
        env=os.environ | VARIABLES,
        capture_output=True,
    )
    return next((output / "lab").glob("*--s0--*"))


def test_the_manifest_names_what_the_run_was_made_from(run: Path) -> None:
    manifest = read_json(run / "manifest.json")
    assert manifest["run"] == run.name
    assert manifest["seeds"] == {"run": 0, "lab": 0}
    assert manifest["scheduler"] == {"SLURM_JOB_ID": "42"}
    assert manifest["command"].startswith("__main__.py run experiment=lab")
    assert {"lab:policy", "lab:data/train_prompts.jsonl"} <= manifest["sha256"].keys()
    template = (run / "stages/train/policy/chat_template.jinja").read_bytes()
    assert manifest["templates"]["chat template of policy"] == hashlib.sha256(template).hexdigest()
    assert "arena_hard judge prompt" in manifest["templates"]
    assert manifest["judges"]["judge"]["asked"] == "lab-judge-1"
    files = (run / "stages/judge" / f"{name}.jsonl" for name in ("alpaca_eval", "arena_hard"))
    asked = [row for file in files for row in read_jsonl(file) if row["answered_by"]]
    assert manifest["judges"]["judge"]["answered"] == {"lab-judge-1": len(asked)}


def test_every_stage_has_its_environment_and_its_hashes(run: Path) -> None:
    manifest = read_json(run / "manifest.json")
    assert list(manifest["stages"]) == ["benchmark", "train", "generate", "judge", "score"]
    for name, stage in manifest["stages"].items():
        done = read_json(run / "stages" / name / "done.json")
        assert stage["input_hash"] == done["input_hash"]
        assert stage["environment"] in manifest["environments"]
        assert stage["hostname"]
        assert stage["finished_at"]
        for file, output in done["outputs"].items():
            assert output["sha256"] == sha256_file(run / "stages" / name / file)
    assert set(manifest["stages"]["train"]) - set(manifest["stages"]["score"]) == {"weights_sha256"}


def test_the_environment_has_code_packages_and_the_variables_that_matter(run: Path) -> None:
    (found,) = read_json(run / "manifest.json")["environments"].values()
    assert {"torch", "trl", "transformers", "numpy"} <= found["packages"].keys()
    assert found["variables"].items() >= {"NCCL_DEBUG": "WARN", "NCCL_SOCKET": "http://host"}.items()
    assert "CUDA_VISIBLE_DEVICES" not in found["variables"]
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    assert found["code"]["commit"] == (commit.stdout.strip() or None)
    assert found["cpu"]
    requirements = (run / "requirements.txt").read_text()
    assert f"torch=={found['packages']['torch'].partition('+')[0]}\n" in requirements
    assert "rlhf-eval==" not in requirements, "pip would take whatever an index has by that name"


def test_no_secret_is_written(run: Path) -> None:
    for file in run.rglob("*"):
        if file.is_file():
            assert MARK.encode() not in file.read_bytes(), file


def test_a_stage_that_another_machine_made_keeps_its_environment(
    run: Path, small_lab: list[str], tmp_path: Path
) -> None:
    """Training done elsewhere, the judge asked here: both are recorded."""
    copy = shutil.copytree(run, tmp_path / run.name)
    elsewhere = {"rlhf_eval": "0.0.9", "packages": {"torch": "1.0"}}
    for name in ("benchmark", "train", "generate"):
        done = read_json(copy / "stages" / name / "done.json")
        done["made_by"]["environment"] = identity(elsewhere)
        write_json(copy / "stages" / name / "environment.json", elsewhere)
        write_json(copy / "stages" / name / "done.json", done)
    (copy / "stages/score/done.json").unlink()
    config = compose([*small_lab, "reward_model=lab_clean_small", "~benchmarks.lab_private"])
    execute(config, copy, SilentProgress())
    written = read_json(copy / "manifest.json")
    assert written["stages"]["train"]["environment"] == identity(elsewhere)
    assert written["environments"][identity(elsewhere)] == elsewhere
    assert written["stages"]["score"]["environment"] != identity(elsewhere)


def test_only_packages_that_are_needed_can_change_an_environment() -> None:
    packages = needed(installed())
    assert {"torch", "trl", "numpy", "huggingface-hub", "rlhf-eval"} <= packages.keys()
    assert not {"pytest", "ruff", "pyright"} & packages.keys()
    assert environment()["packages"] == packages


def test_a_command_that_executes_nothing_changes_nothing(
    run: Path, small_lab: list[str], tmp_path: Path
) -> None:
    copy = shutil.copytree(run, tmp_path / run.name)
    config = compose([*small_lab, "reward_model=lab_clean_small", "~benchmarks.lab_private"])
    before = (copy / "manifest.json").read_bytes()
    execute(config, copy, SilentProgress())
    assert (copy / "manifest.json").read_bytes() == before
    (copy / "manifest.json").unlink()
    execute(config, copy, SilentProgress())
    written, earlier = read_json(copy / "manifest.json"), json.loads(before)
    assert written["stages"] == earlier["stages"]
    assert written["environments"].items() >= earlier["environments"].items()


def test_changes_of_an_earlier_attempt_are_kept(run: Path, small_lab: list[str], tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / run.name)
    write_text(copy / "code.diff", "what the training was made with")
    (copy / "stages/score/done.json").unlink()
    config = compose([*small_lab, "reward_model=lab_clean_small", "~benchmarks.lab_private"])
    execute(config, copy, SilentProgress())
    (kept,) = copy.glob("code.*.diff")
    assert kept.read_text() == "what the training was made with"


def test_an_interpreter_that_answers_is_asked_for_its_packages() -> None:
    assert packages_of(sys.executable)["torch"] == installed()["torch"]
    assert packages_of("/nowhere/python") == {}


@pytest.mark.parametrize("file", ["manifest.json", "stages/score/done.json", "stages/score/environment.json"])
def test_a_damaged_record_is_written_anew(file: str, run: Path, small_lab: list[str], tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / run.name)
    (copy / file).write_text('{"half')
    (copy / "stages/score/scores.json").unlink()
    config = compose([*small_lab, "reward_model=lab_clean_small", "~benchmarks.lab_private"])
    execute(config, copy, SilentProgress())
    assert "score" in read_json(copy / "manifest.json")["stages"]
    assert (copy / "stages/score/scores.json").exists()
