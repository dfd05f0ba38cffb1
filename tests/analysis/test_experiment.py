from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rlhf_eval.analysis import cache
from rlhf_eval.analysis.experiment import load_runs
from rlhf_eval.analysis.per_prompt import NUMBERS
from rlhf_eval.analysis.run_record import read_runs
from rlhf_eval.errors import ConfigError, DataError

Add = Callable[..., Path]


def test_a_run_as_a_record(experiment: Add) -> None:
    path = experiment("clean", 1, [0.25, 0.75], benchmarks={"public": (300, 82.0)}, gold=0.7)
    (run,) = load_runs(path.parent)
    assert (run.reward_model, run.policy, run.algorithm, run.seed, run.judge) == (
        "clean",
        "lab_policy",
        "grpo",
        1,
        "lab_judge",
    )
    assert (run.hash8, run.finished, run.control, run.untrained) == ("0a1b2c3d", True, False, False)
    assert run.per_prompt["alpaca_eval"].prompt_ids == ("p0", "p1")
    assert run.per_prompt["alpaca_eval"].value.tolist() == [0.25, 0.75]
    assert run.benchmarks["public"]["accuracy"] == 82.0
    assert [row["step"] for row in run.curves] == [0, 10, 20, 30, 40]


def test_unfinished_runs_are_marked_with_their_state(experiment: Add) -> None:
    folder = experiment("clean").parent
    failed = {"state": "failed", "stage": "train", "error": "the judge cannot be reached"}
    experiment("noisy", finished=False, state=failed)
    runs = {run.reward_model: run for run in load_runs(folder)}
    assert not runs["noisy"].finished
    assert runs["noisy"].state == "failed in train: the judge cannot be reached"


def test_a_step_repeated_after_a_resume_counts_once(experiment: Add) -> None:
    path = experiment("clean")
    lines = (path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (path / "metrics.jsonl").write_text("".join([*lines, lines[-1].replace('"n": 128', '"n": 64'), '{"torn']))
    (run,) = load_runs(path.parent)
    assert [row["step"] for row in run.curves] == [0, 10, 20, 30, 40]
    assert run.curves[-1]["n"] == 64


@pytest.mark.parametrize(
    ("difference", "field"),
    [
        ({"judge": {"model": "gpt-4.1"}}, "judge.model (lab-judge-1 / gpt-4.1)"),
        ({"policy": {"name": "other"}}, "policy.name"),
        ({"algorithm": {"steps": 80}}, "algorithm.steps (40 / 80)"),
        ({"prompts": {"train": "other.jsonl"}}, "prompts.train"),
        ({"lab": {"seed": 1}}, "lab"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(experiment: Add, difference: dict, field: str) -> None:
    folder = experiment("clean").parent
    other = experiment("noisy", hash8="ffffffff", **difference)
    with pytest.raises(DataError) as caught:
        load_runs(folder)
    assert field in caught.value.what
    assert other.name in caught.value.what
    assert "separate folders" in caught.value.cure


def test_where_a_run_executes_does_not_matter(experiment: Add) -> None:
    folder = experiment("clean").parent
    experiment("noisy", threads=2, judge={"concurrency": 4}, output="/elsewhere")
    assert len(load_runs(folder)) == 2


def test_an_unfinished_run_of_another_setting_does_not_block(experiment: Add) -> None:
    folder = experiment("clean").parent
    experiment("noisy", finished=False, judge={"model": "gpt-4.1"})
    assert len(load_runs(folder)) == 2


def test_duplicates_are_refused(experiment: Add) -> None:
    folder = experiment("clean", 0).parent
    experiment("clean", 0, hash8="ffffffff")
    with pytest.raises(DataError, match="are the same reward model and seed"):
        load_runs(folder)


def test_one_name_for_two_reward_models_is_refused(experiment: Add) -> None:
    folder = experiment("clean", 0).parent
    experiment("clean", 1, reward_model={"model": "lab:rm/other"})
    with pytest.raises(DataError, match=r"reward_model\.model"):
        load_runs(folder)


def test_different_prompts_behind_one_name_are_refused(experiment: Add) -> None:
    folder = experiment("clean", values=[0.1, 0.2, 0.3]).parent
    experiment("noisy", values=[0.1, 0.2, 0.3], prompt_ids=["p0", "p1", "other"])
    with pytest.raises(DataError, match="the prompt sets differ"):
        load_runs(folder)


def test_prompts_missing_by_failed_verdicts_are_allowed(experiment: Add) -> None:
    folder = experiment("clean", values=[0.1, 0.2, 0.3]).parent
    experiment("noisy", values=[0.1, 0.2], failed=1)
    assert len(load_runs(folder)) == 2


def test_empty_unknown_and_unfinished_folders(experiment: Add, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no runs"):
        load_runs(tmp_path / "runs" / "lab")
    folder = experiment("clean", finished=False).parent
    with pytest.raises(DataError, match="None of the 1 runs"):
        load_runs(folder)
    with pytest.raises(DataError, match="Did you mean 'lab'"):
        load_runs(tmp_path / "runs" / "labb")


def test_a_damaged_configuration_is_named(experiment: Add) -> None:
    path = experiment("clean")
    (path / "config.yaml").write_text("seed: [")
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        load_runs(path.parent)


def test_runs_from_the_cache_are_those_of_the_files(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SETTLED_SECONDS", -3600.0)
    fresh, kept = read_runs(lab), read_runs(lab)
    assert {file.name for file in (lab / ".cache").iterdir()} == {"records.parquet", "per_prompt.parquet"}
    assert [run.path for run in kept] == [run.path for run in fresh]
    for one, other in zip(fresh, kept, strict=True):
        for name in ("config", "hash8", "finished", "scores", "curves", "benchmarks", "status", "manifest"):
            assert getattr(one, name) == getattr(other, name), name
        assert list(one.per_prompt) == list(other.per_prompt)
        for evaluation, scores in one.per_prompt.items():
            twin = other.per_prompt[evaluation]
            assert scores.prompt_ids == twin.prompt_ids
            for name in NUMBERS:
                np.testing.assert_array_equal(getattr(scores, name), getattr(twin, name))
