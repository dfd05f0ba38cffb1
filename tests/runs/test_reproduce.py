"""The lab's run is reproduced bit for bit by the public command, and a planted difference is named."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.config.compose import compose
from rlhf_eval.files import read_jsonl, sha256_file, write_json, write_jsonl, write_text
from rlhf_eval.lab.build import ensure
from rlhf_eval.progress import SilentProgress

CPU = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
"""Where the same configuration gives the same bits."""
STAGES = ["benchmark", "train", "generate", "judge", "score"]


def command(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rlhf_eval", *words],
        cwd=folder,
        env=CPU | environment,
        capture_output=True,
        text=True,
    )


def reproduced(folder: Path, *words: str, code: int = 0, **environment: str) -> dict[str, Any]:
    done = command(folder, "reproduce", *words, "--json", **environment)
    assert done.returncode == code, done.stderr[-3000:]
    return json.loads(done.stdout)


def outcomes(answer: dict[str, Any]) -> list[str]:
    return [stage["outcome"] for stage in answer["stages"]]


def drift(answer: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["kind"], one["name"]) for one in answer["drift"]]


@pytest.fixture(scope="module")
def home(small_lab: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run whose policy, training prompts and rule are the user's own files."""
    home = tmp_path_factory.mktemp("home")
    lab = compose([*small_lab, "reward_model=random"]).lab
    assert lab is not None
    world = ensure(lab, 1, SilentProgress())
    shutil.copytree(world / "policy", home / "policy")
    (home / "data").mkdir()
    shutil.copy(world / "data/train_prompts.jsonl", home / "data/train.jsonl")
    own = ["reward_model=lab_clean_small", "policy.model=./policy", "prompts.train=data/train.jsonl"]
    done = command(home, "run", *small_lab, *own)
    assert done.returncode == 0, done.stderr[-3000:]
    return home


@pytest.fixture(scope="module")
def run(home: Path) -> str:
    (path,) = (home / "runs/lab").glob("*--s0--*")
    return path.relative_to(home).as_posix()


@pytest.fixture
def copy(home: Path, tmp_path: Path) -> Path:
    """The folder once more, to be spoilt."""
    return shutil.copytree(home, tmp_path / "home", ignore=shutil.ignore_patterns("*-reproduced*"))


def test_it_is_identical_to_the_last_byte(home: Path, run: str) -> None:
    answer = reproduced(home, run, "--strict")
    assert answer["identical"]
    assert outcomes(answer) == ["identical"] * 5
    assert answer["drift"] == []
    weights = "stages/train/policy/model.safetensors"
    assert sha256_file(home / answer["run"] / weights) == sha256_file(home / run / weights)
    assert Path(answer["run"]).parts[:2] == ("runs", "lab-reproduced")
    assert answer["notes"] == []
    again = reproduced(home, run)
    assert again["notes"][0].startswith("Executed here before, and not again: benchmark, train, generate")
    shared = home / "runs/lab-reproduced/shared/verdicts"
    assert any(shared.iterdir()), "the judge was asked again, not the original's verdicts taken"


def test_a_configuration_alone_gives_the_same_weights(home: Path, run: str, tmp_path: Path) -> None:
    shutil.copy(home / run / "config.yaml", tmp_path / "config.yaml")
    done = command(home, "reproduce", str(tmp_path / "config.yaml"), "--run-dir", "runs/alone/run")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "nothing was compared" in done.stdout
    compared = command(home, "diff", run, "runs/alone/run", "--json")
    assert json.loads(compared.stdout)["identical"]
    strict = command(home, "reproduce", str(tmp_path / "config.yaml"), "--strict")
    assert strict.returncode == 2
    assert "no manifest.json" in strict.stderr


def test_another_seed_is_named_and_training_is_where_it_begins(home: Path, run: str) -> None:
    answer = reproduced(home, run, "seed=4", code=1)
    assert drift(answer) == [("seed", "seed")]
    assert answer["first_difference"] == "train"
    assert outcomes(answer)[:2] == ["identical", "different"]
    assert "part at step 1" in answer["stages"][1]["found"]


def test_an_edited_prompt_is_named(copy: Path, run: str) -> None:
    rows = read_jsonl(copy / "data/train.jsonl")
    for row in rows:
        row["prompt"] = row["prompt"].replace("name", "list")
    write_jsonl(copy / "data/train.jsonl", rows)
    refused = command(copy, "reproduce", run, "--strict")
    assert refused.returncode == 2
    assert "data data/train.jsonl" in refused.stderr
    assert not list((copy / "runs").glob("*-reproduced/*--s0--*/stages"))
    answer = reproduced(copy, run, code=1)
    assert drift(answer) == [("data", "data/train.jsonl")]
    assert answer["first_change"] == "train"
    assert "policy/model.safetensors" in answer["stages"][1]["files"]


def test_another_template_is_named(copy: Path, run: str) -> None:
    template = copy / "policy/chat_template.jinja"
    template.write_text(template.read_text() + "{# the same words, another file #}")
    answer = reproduced(copy, run)
    assert ("template", "chat template of policy") in drift(answer)
    assert ("data", "./policy") in drift(answer)
    assert answer["stages"][1]["outcome"] == "within tolerance"
    assert answer["stages"][1]["files"] == ["policy/chat_template.jinja"]
    assert outcomes(answer)[2:] == ["identical"] * 3


def test_another_package_version_is_named(home: Path, run: str, tmp_path: Path) -> None:
    """What pip writes of a package, which Python finds before the installed one."""
    write_text(
        tmp_path / "idna-3.10.dist-info/METADATA", "Metadata-Version: 2.1\nName: idna\nVersion: 3.10\n"
    )
    answer = reproduced(
        home,
        run,
        "--run-dir",
        "runs/packages/run",
        PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
    )
    (one,) = answer["drift"]
    assert (one["kind"], one["name"], one["second"]) == ("package", "idna", "3.10")
    assert one["stages"] == STAGES
    assert answer["identical"]


def test_the_number_of_threads_is_named(home: Path, run: str) -> None:
    done = command(home, "reproduce", run, "--strict", "--run-dir", "runs/t/run", OMP_NUM_THREADS="2")
    assert done.returncode == 2
    assert "variable OMP_NUM_THREADS: 1 → 2" in done.stderr


def test_only_the_judging_from_stored_answers(home: Path, run: str) -> None:
    answer = reproduced(home, run, "--stage", "judge", "--run-dir", "runs/judged/run")
    assert outcomes(answer) == ["taken over"] * 3 + ["identical"] * 2
    assert not (home / "runs/judged/run/stages/train/policy/model.safetensors").exists()
    whole = command(home, "reproduce", run, "--run-dir", "runs/judged/run")
    assert whole.returncode == 1
    assert "has judged the original's answers" in whole.stderr
    assert not (home / "runs/judged/run/stages/train/checkpoints").exists()
    asked = home / "runs/judged/shared/verdicts"
    assert any(asked.iterdir())


def test_a_judging_that_comes_out_otherwise_is_named(copy: Path, run: str) -> None:
    """The stored verdicts of the original say what the judge does not."""
    file = copy / run / "stages/judge/alpaca_eval.jsonl"
    rows = read_jsonl(file)
    write_jsonl(file, [row | {"preference": 1 - row["preference"]} for row in rows])
    done = json.loads((file.parent / "done.json").read_text())
    done["outputs"]["alpaca_eval.jsonl"] |= {"sha256": sha256_file(file), "size": file.stat().st_size}
    write_json(file.parent / "done.json", done)
    answer = reproduced(copy, run, "--stage", "judge", code=1)
    assert answer["first_difference"] == "judge"
    assert answer["stages"][3]["files"] == ["alpaca_eval.jsonl"]
    shutil.rmtree(copy / "runs/lab/shared")  # the answers of the policy base, which stand in the copy by now
    assert reproduced(copy, run, "--stage", "judge", code=1)["first_difference"] == "judge"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.tar.gz"], "There is no file nowhere.tar.gz"),
        (["runs/lab"], "config.yaml does not exist"),
        (["RUN", "sed=4"], "sed: there is no such field"),
        (["RUN", "second_judges.two.model=x"], "there is no second_judges.two in this configuration"),
        (["RUN", "--run-dir", "runs/lab/beside"], "is in the original's experiment"),
        (["data/frozen.yaml"], "is not called config.yaml"),
        (["RUN", "--run-dir", "RUN"], "is in the original's experiment"),
        (["RUN", "prompts.train=data/none.jsonl"], "prompts.train: 'data/none.jsonl'"),
    ],
)
def test_what_cannot_be_reproduced_says_why(home: Path, run: str, words: list[str], said: str) -> None:
    done = command(home, "reproduce", *(run if word == "RUN" else word for word in words))
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_edited_frozen_configuration_is_refused(copy: Path, run: str) -> None:
    file = copy / run / "config.yaml"
    file.write_text(file.read_text().replace("seed: 0", "seed: 1"))
    done = command(copy, "reproduce", run)
    assert done.returncode == 2
    assert "was edited" in done.stderr


def test_interrupted_it_continues_with_the_same_command(home: Path, run: str) -> None:
    """kill -9 in the middle, then the same command: still identical."""
    words = ["reproduce", run, "--run-dir", "runs/killed/run", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "rlhf_eval", *words],
        cwd=home,
        env=CPU,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    train = home / "runs/killed/run/stages/train"
    while not any(train.glob("checkpoints/*/complete.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (train / "done.json").exists()
    assert reproduced(home, *words[1:-1])["identical"]
