"""`rlhf-eval checkpoints` as a user meets it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_eval.cli import main
from rlhf_eval.config.compose import compose, run_path
from rlhf_eval.files import append_jsonl, write_json, write_jsonl
from rlhf_eval.runs.directory import RunDirectory

GRID = "grid={algorithm.kl_coefficient:[0.1,0.5]}"


def write_run(
    output: Path,
    reward_model: str,
    kls: list[float],
    *overrides: str,
    gold: bool = True,
    finished: bool = True,
) -> None:
    """Gold reward is highest at the second checkpoint; proxy rises by one each."""
    config = compose(["experiment=lab", f"reward_model={reward_model}", *overrides])
    config = replace(config, output=str(output))
    directory = RunDirectory.open(run_path(config), config)
    for number, kl in enumerate(kls):
        row = {"kind": "checkpoint", "step": 10 * number, "kl": kl, "proxy_reward": float(number)}
        row |= {"gold_reward": 1.0 - abs(number - 1) / 4 if gold else None, "length_tokens": 9.0}
        append_jsonl(directory.metrics_file, row, {"kind": "train", "step": 10 * number + 1, "loss": 0.1})
    if finished:
        score = directory.stage("score")
        score.begin("a")
        write_json(score.path / "scores.json", {})
        write_jsonl(score.path / "per_prompt.jsonl", [])
        score.finish([score.path / "scores.json", score.path / "per_prompt.jsonl"])


def shown_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict]:
    assert main(["checkpoints", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_json_has_a_row_for_each_run_and_null_for_what_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, "lab_clean", [0, 4, 8])
    write_run(tmp_path, "lab_noisy", [0, 3, 6], gold=False)
    write_run(tmp_path, "random", [0, 0.1, 0.2])
    write_run(tmp_path, "lab_contaminated", [0, 1], finished=False)
    write_run(tmp_path, "untrained", [])
    rows = {row["reward_model"]: row for row in shown_json(capsys, str(tmp_path / "lab"))}
    clean = rows["lab_clean"]
    expected = "run policy algorithm reward_model control seed finished grid chosen last peak equal_kl"
    expected += " training_steps no_gradient_steps warning"
    assert list(clean) == expected.split()
    assert (clean["seed"], clean["finished"], clean["grid"], clean["chosen"]) == (0, True, {}, None)
    assert clean["last"] == {
        "step": 20,
        "kl": 8,
        "proxy_reward": 2.0,
        "gold_reward": 0.75,
        "length_tokens": 9.0,
    }
    assert (clean["peak"]["step"], clean["peak"]["gold_reward"]) == (10, 1.0)
    # Both trained runs reach 6; the control and the unfinished run have no say in it.
    assert (clean["equal_kl"]["step"], clean["equal_kl"]["gold_reward"]) == (15, 0.875)
    assert (rows["lab_noisy"]["equal_kl"]["step"], rows["lab_noisy"]["peak"]["step"]) == (20, 20)
    assert rows["lab_noisy"]["last"]["gold_reward"] is None
    assert rows["random"]["equal_kl"] is None
    assert rows["lab_contaminated"]["finished"] is False
    assert [rows["untrained"][place] for place in ("last", "peak", "equal_kl")] == [None] * 3


def test_another_kl_can_be_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, "lab_clean", [0, 4, 8])
    folder = str(tmp_path / "lab")
    assert [row["equal_kl"]["step"] for row in shown_json(capsys, folder, "--kl", "2")] == [5]
    assert [row["equal_kl"] for row in shown_json(capsys, folder, "--kl", "8.5")] == [None]
    for wrong in ("-1", "inf", "much"):
        assert main(["checkpoints", folder, "--kl", wrong]) == 2
        assert f"'{wrong}' is no number from 0 on" in capsys.readouterr().err


def test_the_table_shows_grid_choice_and_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, "lab_clean", [0, 4, 8], GRID)
    write_run(tmp_path, "lab_clean", [0, 2], GRID, "algorithm.kl_coefficient=0.5")
    write_run(tmp_path, "random", [0, 0.1], GRID)
    chosen = {
        (row["reward_model"], *row["grid"].values()): row["chosen"]
        for row in shown_json(capsys, str(tmp_path / "lab"))
    }
    assert chosen == {("lab_clean", 0.1): True, ("lab_clean", 0.5): False, ("random", 0.1): True}
    assert main(["checkpoints", str(tmp_path / "lab")]) == 0
    shown = capsys.readouterr().out
    for text in (
        "kl coefficient",
        "lab_clean (chosen)",
        "random (control, chosen)",
        "0.5",
        "Equal KL: 2 nats",
    ):
        assert text in shown
    assert "best held-out gold reward at the peak: lab_clean algorithm.kl_coefficient=0.1" in shown
    assert (
        "The grid of random is incomplete, no finished run at algorithm.kl_coefficient=0.5 seed 0." in shown
    )


def test_algorithms_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, "lab_clean", [0, 4])
    folder = str(tmp_path / "lab")
    assert main(["checkpoints", folder]) == 0
    assert "algorithm" not in capsys.readouterr().out
    write_run(tmp_path, "lab_clean", [0, 3], "algorithm=ppo_lab")
    assert main(["checkpoints", folder]) == 0
    shown = capsys.readouterr().out
    for name in ("algorithm", "grpo_lab", "ppo_lab"):
        assert name in shown
    assert {row["algorithm"] for row in shown_json(capsys, folder)} == {"grpo_lab", "ppo_lab"}


def test_only_controls_have_no_common_kl(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, "random", [0, 1])
    assert main(["checkpoints", str(tmp_path / "lab")]) == 0
    assert "name one with --kl" in capsys.readouterr().out


def test_help_and_an_absent_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["checkpoints", "--help"])
    assert end.value.code == 0
    assert "rlhf-eval checkpoints runs/lab --kl 4 --json" in capsys.readouterr().out
    assert main(["checkpoints", str(tmp_path / "nowhere")]) == 1
    assert "no experiment folder" in capsys.readouterr().err
