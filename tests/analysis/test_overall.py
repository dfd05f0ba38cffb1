"""Several metrics and settings together: the aggregate, and whether the ranking holds in each."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from rlhf_eval.analysis.experiment import load_runs
from rlhf_eval.analysis.overall import load_settings, overall
from rlhf_eval.analysis.overall_tables import agreement_table, best_of_n_table, cells_table
from rlhf_eval.analysis.ranking import rank
from rlhf_eval.cli import main
from rlhf_eval.errors import DataError
from tests.analysis.conftest import write_run

QUALITY = {"good": 0.7, "fair": 0.6, "poor": 0.45, "worse": 0.3}
BOTH = {"alpaca_eval.win_rate": 1.0, "arena_hard.score": 3.0}


def write_setting(
    folder: Path, policy: str, algorithm: str, shift: float = 0.0, kind: str = "grpo", skip: str = ""
) -> Path:
    """Four reward models of known order, two seeds, and the untrained policy."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(policy + algorithm))
    hardness = np.random.default_rng(0).normal(0, 0.1, 120)
    parts: dict[str, Any] = {"policy": {"name": policy}, "algorithm": {"name": algorithm, "kind": kind}}
    if kind == "best_of_n":
        parts["algorithm"] |= {"samples": 8, "max_completion_tokens": 32}
    for name, quality in QUALITY.items():
        for seed in range(2):
            if name != skip:
                values = np.clip(quality + shift + hardness + rng.normal(0, 0.1, 120), 0, 1)
                arena = np.clip(values - 0.1, 0, 1)
                write_run(folder, name, seed, values, arena, name == "worse", gold=quality, **parts)
    write_run(
        folder, "untrained", 0, np.clip(0.5 + hardness, 0, 1), None, True, "untrained", kl=None, **parts
    )
    return folder


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    base = tmp_path_factory.mktemp("runs")
    return [
        write_setting(base / "eight", "llama_8b", "grpo"),
        write_setting(base / "seventy", "llama_70b", "grpo", 0.1),
        write_setting(base / "best", "llama_8b", "best_of_n", -0.05, "best_of_n"),
    ]


def test_one_setting_and_metric_is_its_own_ranking(three: list[Path]) -> None:
    found = overall(load_settings(three[:1]), {"arena_hard.score": 2.0})
    assert found.as_json() == rank(load_runs(three[0]), "arena_hard.score").as_json()
    assert len(found.cells) == 1


def test_the_aggregate_is_the_weighted_mean_of_metrics_and_the_plain_mean_of_settings(
    three: list[Path],
) -> None:
    found = overall(load_settings(three[:2]), BOTH)
    assert found.weights == {"alpaca_eval.win_rate": 0.25, "arena_hard.score": 0.75}
    of = {(cell.setting, cell.metric.name): cell.ranking for cell in found.cells}
    assert len(of) == 4
    for row in found.ranking.rows:
        expected = 0.0
        for (_, metric), ranking in of.items():
            own = next(one.score for one in ranking.rows if one.reward_model == row.reward_model)
            expected += own * found.weights[metric] / 2
        assert row.score == pytest.approx(expected)
        assert row.low < row.score < row.high
    assert [row.reward_model for row in found.ranking.rows] == list(QUALITY)
    assert any(
        "25% AlpacaEval win rate, 75% Arena-Hard score, settings alike" in n for n in found.ranking.notes
    )


def test_two_settings_say_more_than_one(three: list[Path]) -> None:
    one = overall(load_settings(three[:1]), {"alpaca_eval.win_rate": 1})
    two = overall(load_settings(three[:2]), {"alpaca_eval.win_rate": 1})
    rows = (one.as_json()[0], two.as_json()[0])
    width = [row["difference_high"] - row["difference_low"] for row in rows]
    assert width[1] < width[0]


def test_kendall_says_whether_the_ranking_holds(three: list[Path]) -> None:
    found = overall(load_settings(three[:2]), BOTH)
    assert found.agreement == pytest.approx(
        np.ones((4, 4))
    )  # the same order of the three candidates everywhere


def test_leads_over_best_of_n_need_the_same_policy_base(three: list[Path]) -> None:
    found = overall(load_settings(three), {"alpaca_eval.win_rate": 1})
    assert {lead.setting for lead in found.best_of_n} == {"llama_8b · grpo"}
    assert [lead.reward_model for lead in found.best_of_n] == sorted(QUALITY)
    for lead in found.best_of_n:
        assert lead.low < lead.estimate < lead.high
        assert lead.estimate == pytest.approx(5, abs=2.5)


def test_reward_models_that_a_setting_lacks_are_named(tmp_path: Path) -> None:
    folders = [
        write_setting(tmp_path / "a", "one", "grpo"),
        write_setting(tmp_path / "b", "two", "grpo", skip="fair"),
    ]
    found = overall(load_settings(folders), {"alpaca_eval.win_rate": 1})
    assert found.left_out == ("fair",)
    assert [row.reward_model for row in found.ranking.rows] == ["good", "poor", "worse"]
    assert any("not in the aggregate: fair" in note for note in found.ranking.notes)


@pytest.mark.parametrize(
    ("part", "value"),
    [("judge", {"model": "another-judge"}), ("prompts", {"name": "other", "train": "x.jsonl"})],
)
def test_settings_of_another_judge_or_other_prompts_are_refused_by_name(
    tmp_path: Path, part: str, value: Any
) -> None:
    one = write_setting(tmp_path / "a", "one", "grpo")
    other = tmp_path / "b"
    write_run(other, "good", policy={"name": "two"}, **{part: value})
    with pytest.raises(DataError, match=rf"cannot be averaged; they differ in {part}\."):
        load_settings([one, other])


def test_one_experiment_of_two_policies_and_algorithms_is_taken_apart(tmp_path: Path) -> None:
    """As a sweep over policy=… leaves it: everything in one folder."""
    folder = write_setting(tmp_path / "a", "one", "grpo")
    other = write_setting(tmp_path / "b", "two", "grpo", 0.1)
    for path in other.iterdir():
        path.rename(folder / path.name.replace("lab_policy", "two"))
    settings = load_settings([folder])
    assert [setting.name for setting in settings] == ["one · grpo", "two · grpo"]
    found = overall(settings, {"alpaca_eval.win_rate": 1})
    assert [row.reward_model for row in found.ranking.rows] == list(QUALITY)
    assert found.ranking.untrained is not None
    apart = [cell.ranking.rows[0].score for cell in found.cells]
    assert found.ranking.rows[0].score == pytest.approx(sum(apart) / 2)


def test_an_experiment_counts_once(three: list[Path]) -> None:
    with pytest.raises(DataError, match="is named twice"):
        load_settings([three[0], three[0].parent / "eight"])


def test_one_name_is_one_reward_model(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "good", policy={"name": "one"})
    write_run(tmp_path / "b", "good", policy={"name": "two"}, reward_model={"model": "other/weights"})
    with pytest.raises(DataError, match=r"differ in reward_model\.model"):
        load_settings([tmp_path / "a", tmp_path / "b"])


def test_tables_show_every_setting(three: list[Path]) -> None:
    found = overall(load_settings(three), {"alpaca_eval.win_rate": 1})
    console = Console(width=220, file=io.StringIO())
    for table in (cells_table(found), agreement_table(found), best_of_n_table(found)):
        console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("llama_70b · grpo") == 2
    assert "Lead over best-of-N" in text


def test_the_command_takes_folders_and_weights(three: list[Path], capsys: Callable) -> None:
    folders = [str(folder) for folder in three[:2]]
    assert main(["rank", *folders, "--metric", "alpaca_eval.win_rate,arena_hard.score=3", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)  # type: ignore[attr-defined]
    assert [row["reward_model"] for row in rows] == list(QUALITY)
    assert len(rows[0]["cells"]) == 4
    assert main(["rank", *folders, "--metric", "arena_hard.score=0"]) == 2
    assert "has no weight above 0" in capsys.readouterr().err  # type: ignore[attr-defined]


def test_the_report_compares_settings(three: list[Path], tmp_path: Path) -> None:
    folders = [str(folder) for folder in three]
    assert main(["report", *folders, "--output", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "llama_70b · grpo, AlpacaEval win rate" in page
    assert "Does the ranking hold?" in page
    assert "over the best of N samples" in page
    rows = (tmp_path / "page_tables" / "best_of_n.csv").read_text().splitlines()
    assert len(rows) == 1 + len(QUALITY)
