"""`rlhf-eval frontier` as a user meets it."""

import json
from dataclasses import replace
from math import exp, log
from pathlib import Path

import pytest

from rlhf_eval.cli import main
from rlhf_eval.config.compose import compose, run_path
from rlhf_eval.files import append_jsonl, write_json, write_jsonl
from rlhf_eval.runs.directory import RunDirectory

KLS = (0.0, 0.25, 1.0, 4.0, 9.0)


def write_run(output: Path, reward_model: str, seed: int, alpha: float, beta: float) -> None:
    """A finished run whose gold reward follows √KL (α − β log √KL) from 0.5 on; proxy rises with √KL."""
    config = compose(["experiment=lab", f"reward_model={reward_model}", f"seed={seed}"])
    config = replace(config, output=str(output))
    directory = RunDirectory.open(run_path(config), config)
    for place, kl in enumerate(KLS):
        d = kl**0.5
        gold = 0.5 + (d * (alpha - beta * log(d)) if d else 0.0)
        row = {"kind": "checkpoint", "step": 10 * place, "kl": kl, "proxy_reward": d, "gold_reward": gold}
        append_jsonl(directory.metrics_file, row | {"length_tokens": 9.0})
    score = directory.stage("score")
    score.begin("a")
    write_json(score.path / "scores.json", {})
    write_jsonl(score.path / "per_prompt.jsonl", [])
    score.finish([score.path / "scores.json", score.path / "per_prompt.jsonl"])


@pytest.fixture
def folder(tmp_path: Path) -> str:
    for seed in (0, 1):
        write_run(tmp_path, "lab_clean", seed, 0.6 + 0.1 * seed, 0.3)
        write_run(tmp_path, "lab_noisy", seed, 0.2, -0.1)
    write_run(tmp_path, "random", 0, 0.0, 0.0)
    return str(tmp_path / "lab")


def strict(text: str) -> dict:
    """JSON without NaN and Infinity, which other readers refuse."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    return json.loads(text, parse_constant=refuse)


def test_json(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["frontier", folder, "--json"]) == 0
    shown = strict(capsys.readouterr().out)
    assert list(shown) == ["frontiers", "equal_kl"]
    clean, noisy, random = shown["frontiers"]
    assert list(clean) == (
        "reward_model control policy algorithm form seeds points gold proxy overoptimisation words".split()
    )
    assert clean["gold"]["fit"]["alpha"] == pytest.approx(0.65)
    assert [clean["gold"]["by_seed"][seed]["alpha"] for seed in "01"] == pytest.approx([0.6, 0.7])
    assert clean["overoptimisation"]["distance"] == pytest.approx(exp(0.65 / 0.3 - 1))
    assert clean["overoptimisation"]["extrapolated"] is True
    assert (noisy["overoptimisation"], random["control"], random["gold"]["fit"]["r_squared"]) == (
        None,
        True,
        None,
    )
    (compared,) = shown["equal_kl"]
    assert (compared["kl"], [row["rank"] for row in compared["rows"]]) == (9, [1, 2, 3])
    assert compared["rows"][0]["reward_model"] == "lab_clean"
    assert compared["rows"][0]["gold"]["mean"] == pytest.approx(3 * (0.65 - 0.3 * log(3)))


def test_the_table_says_what_the_numbers_do_not(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["frontier", folder, "--kl", "4"]) == 0
    shown = capsys.readouterr().out
    for text in (
        "R = d (α − β log d)",
        "random (control)",
        "(extrapolated)",
        "lab_noisy: No overoptimisation seen",
        "Compared at a KL of 4 nats per completion (√KL 2).",
        "2 of 2",
    ):
        assert text in shown
    assert "nan" not in shown
    assert "inf" not in shown


def test_only_the_untrained_policy_has_no_frontier(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, "untrained", 0, 0.0, 0.0)
    assert main(["frontier", str(tmp_path / "lab")]) == 0
    assert "there is no frontier" in capsys.readouterr().out


def test_help_and_bad_input(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["frontier", "--help"])
    assert end.value.code == 0
    assert "rlhf-eval frontier runs/lab --kl 4 --json" in capsys.readouterr().out
    assert main(["frontier", str(tmp_path / "nowhere")]) == 1
    assert "no experiment folder" in capsys.readouterr().err
    assert main(["frontier", folder, "--kl", "-1"]) == 2
    assert "'-1' is no number from 0 on" in capsys.readouterr().err
