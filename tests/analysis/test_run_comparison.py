"""What two runs do not have in common, and whether they gave the same: from files written by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.analysis.drift import configuration_drift, manifest_drift
from rlhf_eval.analysis.run_comparison import compare_runs
from rlhf_eval.analysis.stage_comparison import compare_stages
from rlhf_eval.config.compose import changed, compose, freeze
from rlhf_eval.files import sha256_file, write_json, write_jsonl, write_text

ENVIRONMENT = {
    "rlhf_eval": "0.1.0",
    "code": {"commit": "a" * 40, "dirty": False, "source_sha256": "b" * 64},
    "python": "3.11.7",
    "cpu": "one",
    "accelerators": {"gpus": ["H100", "H100"], "driver": "570", "cuda": "13.0"},
    "variables": {"OMP_NUM_THREADS": "1"},
    "packages": {"torch": "2.13.0", "trl": "1.16.0"},
}


def manifest(environment: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "sha256": {"data/train.jsonl": "1"},
        "revisions": {"models/a/b@main": "c" * 40},
        "templates": {"chat template of policy": "2"},
        "judges": {"judge": {"asked": "gpt-4.1", "answered": {"gpt-4.1-2025-04-14": 9}}},
        "environment": "e",
        "environments": {"e": environment},
        "stages": {name: {"environment": "e"} for name in ("train", "judge")},
    } | changes


def found(first: dict[str, Any], second: dict[str, Any]) -> list[tuple[str, str, Any, Any]]:
    return [(one.kind, one.name, one.first, one.second) for one in manifest_drift(first, second)]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"packages": {"torch": "2.13.0", "trl": "1.15.0"}}, [("package", "trl", "1.16.0", "1.15.0")]),
        ({"packages": {"torch": "2.13.0"}}, [("package", "trl", "1.16.0", None)]),
        ({"python": "3.12.1"}, [("package", "python", "3.11.7", "3.12.1")]),
        ({"variables": {}}, [("variable", "OMP_NUM_THREADS", "1", None)]),
        (
            {"accelerators": {"gpus": ["A100"], "driver": "570", "cuda": "13.0"}},
            [("machine", "gpus", "H100, H100", "A100")],
        ),
        (
            {"code": {"commit": "d" * 40, "dirty": True, "source_sha256": "b" * 64}},
            [("code", "commit", "a" * 40, "d" * 40)],
        ),
    ],
)
def test_a_difference_of_environments_is_named(changes: dict[str, Any], expected: list[Any]) -> None:
    assert found(manifest(ENVIRONMENT), manifest(ENVIRONMENT | changes)) == expected


@pytest.mark.parametrize(
    ("part", "value", "expected"),
    [
        ("sha256", {"data/train.jsonl": "9"}, ("data", "data/train.jsonl", "1", "9")),
        ("templates", {"chat template of policy": "9"}, ("template", "chat template of policy", "2", "9")),
        ("revisions", {"models/a/b@main": "9"}, ("revision", "models/a/b@main", "c" * 40, "9")),
        (
            "judges",
            {"judge": {"asked": "gpt-4.1", "answered": {"gpt-4.1-2026-01-01": 9}}},
            ("judge", "judge", "gpt-4.1-2025-04-14", "gpt-4.1-2026-01-01"),
        ),
    ],
)
def test_a_difference_of_what_went_in_is_named(part: str, value: Any, expected: Any) -> None:
    assert found(manifest(ENVIRONMENT), manifest(ENVIRONMENT, **{part: value})) == [expected]


def test_a_difference_of_one_stage_s_machine_names_that_stage() -> None:
    other = manifest(
        ENVIRONMENT,
        environments={"e": ENVIRONMENT, "f": ENVIRONMENT | {"cpu": "two"}},
        stages={"train": {"environment": "f"}, "judge": {"environment": "e"}},
    )
    (one,) = manifest_drift(manifest(ENVIRONMENT), other)
    assert (one.name, one.stages) == ("cpu", ("train",))


def test_fields_that_change_the_order_of_sums_are_named() -> None:
    config = compose(["experiment=lab", "reward_model=random"])
    [drift] = configuration_drift(config, changed(config, ["threads=4"]), {}, {})
    assert (drift.kind, drift.name, drift.first, drift.second) == ("configuration", "threads", 1, 4)


def test_another_name_for_the_same_content_is_no_difference() -> None:
    config = compose(["experiment=lab", "reward_model=random", "prompts.train=a.jsonl"])
    other = changed(config, ["prompts.train=b.jsonl"])
    hashes = [{"sha256": {"a.jsonl": "1"}}, {"sha256": {"b.jsonl": "1"}}, {"sha256": {"b.jsonl": "2"}}]
    assert configuration_drift(config, other, hashes[0], hashes[1]) == []
    (one,) = configuration_drift(config, other, hashes[0], hashes[2])
    assert (one.kind, one.name, one.second) == ("configuration", "prompts.train", "b.jsonl")


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Two equal runs of 40 prompts, whose stages are finished."""
    config = compose(["experiment=lab", "reward_model=random"])
    made = tmp_path / "a", tmp_path / "b"
    ids = [f"p{n}" for n in range(40)]
    for run in made:
        write_text(run / "config.yaml", freeze(config))
        write_json(run / "manifest.json", manifest(ENVIRONMENT))
        rows = [{"kind": "train", "step": n, "loss": n / 7, "seconds": n} for n in (1, 2, 3)]
        last = {"kind": "checkpoint", "step": 3, "kl": 4.0, "proxy_reward": 1.0, "gold_reward": 0.5}
        write_jsonl(run / "metrics.jsonl", [*rows, last | {"length_tokens": 20.0}])
        write_json(run / "stages/benchmark/results.json", {"judgebench": {"accuracy": 60.0}})
        write_text(run / "stages/train/policy/model.safetensors", "weights")
        for name in ("alpaca_eval", "arena_hard"):
            write_jsonl(
                run / f"stages/generate/{name}.jsonl", [{"prompt_id": i, "text": f"answer {i}"} for i in ids]
            )
            verdicts = [{"prompt_id": i, "game": 0, "key": i, "preference": n % 2} for n, i in enumerate(ids)]
            write_jsonl(run / f"stages/judge/{name}.jsonl", verdicts)
        scored = [
            {"evaluation": "alpaca_eval", "prompt_id": i, "value": n % 5 / 4} for n, i in enumerate(ids)
        ]
        write_jsonl(run / "stages/score/per_prompt.jsonl", scored)
        write_json(run / "stages/score/scores.json", {"alpaca_eval": {"win_rate": 50.0}})
        finish(run)
    return made


def finish(run: Path) -> None:
    for folder in (run / "stages").iterdir():
        files = [file for file in folder.rglob("*") if file.is_file() and file.name != "done.json"]
        outputs = {file.relative_to(folder).as_posix(): {"sha256": sha256_file(file)} for file in files}
        write_json(folder / "done.json", {"input_hash": "i", "outputs": outputs})


def edit(file: Path, change: Any) -> None:
    write_jsonl(file, [change(n, json.loads(line)) for n, line in enumerate(file.read_text().splitlines())])


def outcomes(runs: tuple[Path, Path]) -> dict[str, str]:
    finish(runs[1])
    return {stage.stage: stage.outcome for stage in compare_stages(*runs)}


def test_equal_runs_are_identical(runs: tuple[Path, Path]) -> None:
    comparison = compare_runs(*runs)
    assert set(outcomes(runs).values()) == {"identical"}
    assert comparison.words == "Identical, byte for byte: benchmark, train, generate, judge, score."
    assert comparison.scores == {"alpaca_eval.win_rate": (50.0, 50.0)}
    assert comparison.curves["kl"] == (4.0, 4.0)


@pytest.mark.parametrize(("accuracy", "outcome"), [(60.9, "within tolerance"), (61.1, "different")])
def test_a_benchmark_may_differ_by_a_point(runs: tuple[Path, Path], accuracy: float, outcome: str) -> None:
    write_json(runs[1] / "stages/benchmark/results.json", {"judgebench": {"accuracy": accuracy}})
    assert outcomes(runs)["benchmark"] == outcome


@pytest.mark.parametrize(("kl", "outcome"), [(4.3, "within tolerance"), (4.6, "different")])
def test_a_training_may_end_ten_percent_apart(runs: tuple[Path, Path], kl: float, outcome: str) -> None:
    write_text(runs[1] / "stages/train/policy/model.safetensors", "others")
    edit(
        runs[1] / "metrics.jsonl",
        lambda n, row: row | ({"kl": kl} if "kl" in row else {"loss": row["loss"] + (n == 1)}),
    )
    assert outcomes(runs)["train"] == outcome
    (stage,) = (stage for stage in compare_stages(*runs) if stage.stage == "train")
    assert stage.found.startswith("the curves part at step 2")
    assert compare_runs(*runs).first_change == "train"


@pytest.mark.parametrize(("more", "outcome"), [("", "identical"), (".", "different")])
def test_answers_of_another_length_differ(runs: tuple[Path, Path], more: str, outcome: str) -> None:
    edit(runs[1] / "stages/generate/alpaca_eval.jsonl", lambda n, row: row | {"text": row["text"] + more})
    assert outcomes(runs)["generate"] == outcome


def test_answers_of_the_same_length_are_within_tolerance(runs: tuple[Path, Path]) -> None:
    edit(runs[1] / "stages/generate/alpaca_eval.jsonl", lambda n, row: row | {"text": row["text"].upper()})
    assert outcomes(runs)["generate"] == "within tolerance"


@pytest.mark.parametrize(("turned", "outcome"), [(2, "within tolerance"), (3, "different")])
def test_a_judge_may_disagree_with_itself_on_a_twentieth(
    runs: tuple[Path, Path], turned: int, outcome: str
) -> None:
    file = runs[1] / "stages/judge/alpaca_eval.jsonl"
    edit(
        file, lambda n, row: row | {"preference": 1 - row["preference"] if n < turned else row["preference"]}
    )
    assert outcomes(runs)["judge"] == outcome


def test_verdicts_on_other_texts_are_not_compared(runs: tuple[Path, Path]) -> None:
    for name in ("alpaca_eval", "arena_hard"):
        edit(runs[1] / f"stages/judge/{name}.jsonl", lambda n, row: row | {"key": f"other {n}"})
    assert outcomes(runs)["judge"] == "not compared"


@pytest.mark.parametrize(("shift", "outcome"), [(0.01, "within tolerance"), (0.3, "different")])
def test_scores_may_differ_by_three_standard_errors(
    runs: tuple[Path, Path], shift: float, outcome: str
) -> None:
    """Half of the prompts move by `shift` + 0.2 and half by `shift` − 0.2: standard error 0.0320."""
    file = runs[1] / "stages/score/per_prompt.jsonl"
    edit(file, lambda n, row: row | {"value": row["value"] + shift + (0.2 if n % 2 else -0.2)})
    assert outcomes(runs)["score"] == outcome
    (stage,) = (stage for stage in compare_stages(*runs) if stage.stage == "score")
    assert f"{100 * shift:+.2f} points (standard error 3.20)" in stage.found


def test_an_unfinished_stage_is_not_compared(runs: tuple[Path, Path]) -> None:
    (runs[1] / "stages/score/done.json").unlink()
    stages = {stage.stage: stage for stage in compare_stages(*runs)}
    assert stages["score"].outcome == "not compared"
    assert str(runs[1]) in stages["score"].found


def test_without_a_manifest_it_is_said_that_nothing_was_recorded(runs: tuple[Path, Path]) -> None:
    (runs[1] / "manifest.json").unlink()
    write_text(runs[1] / "stages/train/policy/model.safetensors", "others")
    finish(runs[1])
    comparison = compare_runs(*runs)
    assert not comparison.recorded
    assert "not recorded" in comparison.words


def test_second_judges_count_too(runs: tuple[Path, Path]) -> None:
    for run, preference in zip(runs, (0.0, 1.0), strict=True):
        rows = [{"prompt_id": f"p{n}", "game": 0, "key": n, "preference": preference} for n in range(40)]
        write_jsonl(run / "stages/judge/other/alpaca_eval.jsonl", rows)
    finish(runs[0])
    assert outcomes(runs)["judge"] == "different"
    (stage,) = (stage for stage in compare_stages(*runs) if stage.stage == "judge")
    assert "other/alpaca_eval: 40 of 40 questions the same, 0 verdicts on them agree" in stage.found


@pytest.mark.parametrize("missing", ["gold", "prompts"])
def test_gold_scores_and_the_prompts_that_were_scored_count_too(
    runs: tuple[Path, Path], missing: str
) -> None:
    file = "stages/score/per_prompt.jsonl"
    for shift, run in enumerate(runs):
        edit(run / file, lambda n, row, shift=shift: row | {"gold": float(n % 3 + shift)})
    if missing == "prompts":
        write_jsonl(runs[1] / file, [])
    finish(runs[0])
    assert outcomes(runs)["score"] == "different"
    (stage,) = (stage for stage in compare_stages(*runs) if stage.stage == "score")
    said = {"gold": "alpaca_eval gold +1.00 (standard error 0.00)", "prompts": "of 40 / 0 prompts, 0 in both"}
    assert said[missing] in stage.found


def test_an_environment_that_was_not_recorded_is_a_difference(runs: tuple[Path, Path]) -> None:
    write_json(runs[1] / "manifest.json", manifest(ENVIRONMENT) | {"environments": {}})
    (one,) = compare_runs(*runs).drift
    assert (one.kind, one.first, one.second) == ("environment", "recorded", "not recorded")


def test_a_curve_that_one_run_lacks_is_not_compared(runs: tuple[Path, Path]) -> None:
    edit(runs[1] / "metrics.jsonl", lambda n, row: row | ({"gold_reward": None} if "kl" in row else {}))
    assert compare_runs(*runs).curves.keys() == {"step", "kl", "proxy_reward", "length_tokens"}


def test_work_taken_from_a_third_run_is_compared(runs: tuple[Path, Path]) -> None:
    done = runs[1] / "stages/generate/done.json"
    marker = json.loads(done.read_text())
    write_json(done, marker | {"taken_from": "c"})
    assert compare_stages(*runs)[2].outcome == "taken over"
    file = runs[1] / "stages/generate/alpaca_eval.jsonl"
    edit(file, lambda n, row: row | {"text": row["text"] * 2})
    outputs = marker["outputs"] | {"alpaca_eval.jsonl": {"sha256": sha256_file(file)}}
    write_json(done, marker | {"taken_from": "c", "outputs": outputs})
    assert compare_stages(*runs)[2].outcome == "different"
