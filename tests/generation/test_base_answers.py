"""The policy base as the baseline: answered once for all runs that are compared with it."""

import subprocess
import sys
from pathlib import Path

from rlhf_eval.config.compose import compose, run_path
from rlhf_eval.config.inputs import inputs, require_inputs
from rlhf_eval.files import read_json, read_jsonl
from rlhf_eval.runs.stages import is_finished

BASE = "prompts.arena_hard.baseline_answers=base"


def run(words: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-m", "rlhf_eval", "run", *words], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done


def test_two_runs_are_compared_with_the_same_answers(small_lab: list[str], tmp_path: Path) -> None:
    words = [*small_lab, BASE, "output=out"]
    first, second = ([*words, f"reward_model={name}"] for name in ("untrained", "random"))
    run(first, tmp_path)
    (file,) = (tmp_path / "out" / "lab" / "shared" / "base").glob("*/s0/generate/arena_hard.jsonl")
    made = file.stat().st_mtime_ns
    run(second, tmp_path)
    assert file.stat().st_mtime_ns == made, "answered once"
    assert len(list(file.parents[3].iterdir())) == 1
    config = compose(second)
    path = tmp_path / run_path(config)
    scores = read_json(path / "stages" / "score" / "scores.json")["arena_hard"]
    assert scores["baseline"] == file.parents[2].name
    assert scores["baseline"].startswith("lab--")
    # The untrained policy answers with the same seed as its own baseline: nothing is to be judged.
    untrained = tmp_path / run_path(compose(first)) / "stages"
    own = {row["prompt_id"]: row["text"] for row in read_jsonl(untrained / "generate" / "arena_hard.jsonl")}
    base = {row["prompt_id"]: row["text"] for row in read_jsonl(file)}
    assert own == base
    assert read_json(untrained / "score" / "scores.json")["arena_hard"]["score"] == 50.0


def test_other_answers_are_judged_anew(small_lab: list[str], tmp_path: Path) -> None:
    words = [*small_lab, BASE, "output=out", "reward_model=untrained"]
    run(words, tmp_path)
    (file,) = (tmp_path / "out" / "lab" / "shared" / "base").glob("*/s0/generate/arena_hard.jsonl")
    path = run_path(compose(words))
    program = "import sys; from pathlib import Path; from rlhf_eval.config.compose import compose, run_path; "
    program += f"from rlhf_eval.runs.stages import is_finished; c = compose({words!r}); "
    program += "print(is_finished(c, run_path(c)))"

    def finished() -> str:
        return subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert finished() == "True"
    file.write_text(file.read_text().replace('"text": "', '"text": "! ', 1))
    assert finished() == "False"
    assert not is_finished(compose(words), path)  # elsewhere there is no such run


def test_base_is_no_missing_file(small_lab: list[str]) -> None:
    config = compose([*small_lab, BASE, "reward_model=random"])
    states = {item.field: item.state for item in inputs(config)}
    assert states["prompts.arena_hard.baseline_answers"] == "answered by the policy base"
    require_inputs(config)
