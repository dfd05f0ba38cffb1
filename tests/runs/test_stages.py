"""One run for real on a small lab: kill -9, damage, changed inputs, and a judge that is not there."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_eval.config.compose import compose
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import JudgeError
from rlhf_eval.files import read_json, read_jsonl, sha256_file, write_json
from rlhf_eval.processes import fork_context
from rlhf_eval.progress import SilentProgress
from rlhf_eval.runs.directory import RunDirectory
from rlhf_eval.runs.stages import STAGES, execute, is_finished
from rlhf_eval.sweep.local import run_all

RESULTS = ("train/policy/model.safetensors", "generate/alpaca_eval.jsonl", "score/scores.json")
UNREACHABLE = "http://127.0.0.1:9/v1"


@pytest.fixture(scope="module")
def config(small_lab: list[str]) -> RunConfig:
    return compose([*small_lab, "reward_model=lab_clean_small"])


@pytest.fixture(scope="module")
def undisturbed(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("undisturbed") / "run"
    execute(config, path, SilentProgress())
    return path


@pytest.fixture
def finished(undisturbed: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be spoilt."""
    return shutil.copytree(undisturbed, tmp_path / "run")


def results(path: Path) -> dict[str, str]:
    return {name: sha256_file(path / "stages" / name) for name in RESULTS}


def finished_at(path: Path) -> dict[str, int]:
    return {name: (path / "stages" / name / "done.json").stat().st_mtime_ns for name, _ in STAGES}


def redone(path: Path, before: dict[str, int]) -> list[str]:
    return [name for name, moment in finished_at(path).items() if moment != before[name]]


def moments(path: Path) -> Iterator[tuple[str, object]]:
    """When the run is killed: in each stage that takes time, and right after a checkpoint was written."""
    status = RunDirectory(path).status
    checkpoints = path / "stages" / "train" / "checkpoints"
    yield "training began", lambda: status()["stage"] == "train"
    yield "a checkpoint was complete", lambda: (checkpoints / "checkpoint-2" / "complete.json").exists()
    yield "a checkpoint was begun", lambda: (checkpoints / "checkpoint-6").exists()
    yield "generation began", lambda: status()["stage"] == "generate"
    yield "judging began", lambda: status()["stage"] == "judge"


def test_killed_in_every_stage_it_ends_with_the_same_bytes(
    config: RunConfig, undisturbed: Path, tmp_path: Path
) -> None:
    path, context = tmp_path / "run", fork_context()
    for name, has_come in moments(path):
        process = context.Process(target=execute, args=(config, path, SilentProgress()))
        process.start()
        deadline = time.monotonic() + 120
        while not has_come():  # type: ignore[operator]
            assert process.is_alive(), f"the run ended before {name}"
            assert time.monotonic() < deadline, name
            time.sleep(0.002)
        process.kill()
        process.join()
        assert process.exitcode == -9
        assert RunDirectory(path).status()["state"] == "interrupted"
        assert not is_finished(config, path)
    execute(config, path, SilentProgress())
    assert results(path) == results(undisturbed)
    assert RunDirectory(path).status()["attempt"] == 6
    rows = list(read_jsonl(path / "metrics.jsonl"))
    assert [row["step"] for row in rows if row["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if row["kind"] == "checkpoint"] == [0, 2, 4, 6]
    same = [row for row in read_jsonl(undisturbed / "metrics.jsonl") if row["kind"] == "checkpoint"]
    assert [row for row in rows if row["kind"] == "checkpoint"] == same


def test_training_moves_the_policy_and_measures_it(undisturbed: Path) -> None:
    first, *_, last = (
        row for row in read_jsonl(undisturbed / "metrics.jsonl") if row["kind"] == "checkpoint"
    )
    assert first["kl"] == 0
    assert last["kl"] > 0
    assert {"proxy_reward", "gold_reward", "length_tokens"} <= set(last)


def test_a_finished_run_does_nothing_anew(config: RunConfig, finished: Path) -> None:
    before = finished_at(finished)
    assert is_finished(config, finished)
    execute(config, finished, SilentProgress())
    assert redone(finished, before) == []


def test_a_finished_run_tells_its_scores(finished: Path) -> None:
    scores = read_json(finished / "stages" / "score" / "scores.json")
    scores["suspicious_answers"] = {
        "alpaca_eval": {"empty": 0.0, "constant": 12.5},
        "arena_hard": {"empty": 0.0},
    }
    write_json(finished / "stages" / "score" / "scores.json", scores)
    command = [sys.executable, "-m", "rlhf_eval", "run", "--frozen", str(finished), "--stages", "benchmark"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    (told,) = (line for line in lines if line.startswith("alpaca_eval: "))
    assert f"win_rate {scores['alpaca_eval']['win_rate']:.4g}, " in told
    assert lines[-2:] == [
        "suspicious answers of alpaca_eval: constant 12.5 %",
        "suspicious answers of arena_hard: none",
    ]


@pytest.mark.parametrize(
    ("file", "stage"), [("generate/alpaca_eval.jsonl", "generate"), ("judge/arena_hard.jsonl", "judge")]
)
def test_a_damaged_file_has_its_stage_redone_and_no_other(
    config: RunConfig, undisturbed: Path, finished: Path, file: str, stage: str
) -> None:
    spoilt, before = finished / "stages" / file, finished_at(finished)
    spoilt.write_bytes(spoilt.read_bytes()[:-9])
    assert not is_finished(config, finished)
    execute(config, finished, SilentProgress())
    assert redone(finished, before) == [stage]
    assert (finished / "stages" / f"{stage}.damaged-1" / Path(file).name).exists()
    assert results(finished) == results(undisturbed)


def test_changed_references_are_judged_again_and_nothing_is_trained_again(
    config: RunConfig, small_lab: list[str], undisturbed: Path, tmp_path: Path
) -> None:
    world = Path(next(word for word in small_lab if word.startswith("lab.cache="))[10:])
    [original] = world.glob("world-*/data/alpaca_eval.json")
    references = tmp_path / "references.json"
    references.write_bytes(original.read_bytes())
    changed = compose(
        [*small_lab, "reward_model=untrained", f"prompts.alpaca_eval.reference_outputs={references}"]
    )
    path = tmp_path / "run"
    execute(changed, path, SilentProgress())
    before = finished_at(path)
    rows = read_json(references)
    rows[0]["output"] = "certainly : another answer ."
    write_json(references, rows)
    execute(changed, path, SilentProgress())
    assert "judge" in redone(path, before)
    assert "benchmark" not in redone(path, before)
    assert (path / "stages" / "judge.stale-1").is_dir()


def test_an_unreachable_judge_fails_with_its_address_and_the_same_run_goes_on(
    config: RunConfig, undisturbed: Path, finished: Path
) -> None:
    shutil.rmtree(finished / "stages" / "judge")
    shutil.rmtree(finished / "stages" / "score")
    away = replace(config, judge=replace(config.judge, base_url=UNREACHABLE, max_retries=0))
    with pytest.raises(JudgeError, match=UNREACHABLE):
        execute(away, finished, SilentProgress())
    status = RunDirectory(finished).status()
    assert (status["state"], status["stage"]) == ("failed", "judge")
    assert UNREACHABLE in status["error"]
    execute(config, finished, SilentProgress())
    assert results(finished) == results(undisturbed)


def test_one_unreachable_judge_leaves_the_other_runs_alone(config: RunConfig, tmp_path: Path) -> None:
    good = replace(config, output=str(tmp_path), seed=1)
    bad = replace(good, seed=2, judge=replace(config.judge, base_url=UNREACHABLE, max_retries=0))
    outcomes = run_all([bad, good], 2, SilentProgress())
    assert [outcome.state for outcome in outcomes] == ["failed", "done"]
    assert UNREACHABLE in (outcomes[0].error or "")
