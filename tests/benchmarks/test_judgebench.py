"""JudgeBench: the published numbers from the published raw scores, both orders, files of other versions."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rlhf_eval.benchmarks.evaluate import score_items
from rlhf_eval.benchmarks.items import Item
from rlhf_eval.benchmarks.judgebench import JUDGEBENCH, load, summarise
from rlhf_eval.cli import main
from rlhf_eval.config.reward_schema import GroupConfig
from rlhf_eval.errors import DataError
from rlhf_eval.files import write_jsonl
from rlhf_eval.records import Comparison, PreferenceBatch, user_prompt
from rlhf_eval.rewards.interface import PairwiseRewardModel
from rlhf_eval.sources import read_rows

PUBLISHED = {
    "Skywork_Skywork-Reward-Llama-3.1-8B": (62.29, 59.09, 64.29, 76.79, 50.00),
    "internlm_internlm2-7b-reward": (59.43, 56.49, 61.22, 71.43, 50.00),
}
FILE = "judgebench/gpt-4o-2024-05-13.jsonl.gz"


@pytest.mark.golden
@pytest.mark.parametrize("model", PUBLISHED)
def test_published_raw_scores_give_the_published_numbers(
    golden: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = golden / "judgebench" / f"reward_scores-{model}.csv"
    command = ["benchmark", "benchmark=judgebench", "--data", str(golden / FILE), "--scores", str(scores)]
    assert main([*command, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    overall, *categories = PUBLISHED[model]
    assert round(shown["accuracy"], 2) == overall
    names = ("knowledge", "reasoning", "math", "coding")
    assert {name: round(value, 2) for name, value in shown["subsets"].items()} == dict(
        zip(names, categories, strict=True)
    )
    assert (shown["benchmark"], shown["n"], shown["notes"]) == ("judgebench", 350, [])
    assert shown["low"] < overall < shown["high"]
    macro = shown["metrics"]["macro accuracy over categories, %"]
    assert macro == pytest.approx(np.mean(categories), abs=0.01)


@pytest.mark.golden
def test_data_of_another_version_are_named(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = read_rows(str(golden / FILE))

    def notes(changed: list[dict]) -> list[str]:
        write_jsonl(tmp_path / "data.jsonl", changed)
        write_jsonl(tmp_path / "scores.jsonl", [{"id": r["pair_id"], "scores": [1, 0]} for r in changed])
        command = ["benchmark", "benchmark=judgebench", "--data", str(tmp_path / "data.jsonl")]
        assert main([*command, "--scores", str(tmp_path / "scores.jsonl"), "--json"]) == 0
        return json.loads(capsys.readouterr().out)["notes"]

    assert notes(rows[::-1]) == []  # the order of rows is no other version
    [fewer] = notes(rows[:-1])
    assert "349 items are no published version" in fewer
    assert "has" in fewer
    [edited] = notes([rows[0] | {"response_A": "Something else."}, *rows[1:]])
    assert "texts, labels or ids are others" in edited


class FirstIsBetter(PairwiseRewardModel):
    """A judge that prefers whatever stands first, unless an answer says `best`."""

    name = "first"
    group = GroupConfig()

    def compare(self, comparisons: Sequence[Comparison]) -> PreferenceBatch:
        first = self.compare_as_shown(comparisons).probabilities
        second = self.compare_as_shown([c.swap() for c in comparisons]).probabilities
        return PreferenceBatch((first + 1 - second) / 2, np.isfinite(first + second))

    def compare_as_shown(self, comparisons: Sequence[Comparison]) -> PreferenceBatch:
        answers = [
            np.nan
            if "unreadable" in (c.completion_a, c.completion_b)
            else 0.2
            if c.completion_b == "best"
            else 0.9
            for c in comparisons
        ]
        return PreferenceBatch(np.array(answers), np.isfinite(answers))


def test_a_judge_is_right_if_it_wins_more_games_than_it_loses() -> None:
    pairs = [
        ("best", "x", (1.0, 0.0)),  # wins both games
        ("x", "best", (1.0, 0.0)),  # loses both
        ("y", "x", (1.0, 0.0)),  # wins one: ±1 each, the sum is 0, not right
        ("x", "best", (0.0, 1.0)),
        ("unreadable", "best", (1.0, 0.0)),
    ]
    items = [
        Item(str(n), user_prompt(str(n), f"Question {n}"), (a, b), labels, "math")
        for n, (a, b, labels) in enumerate(pairs)
    ]
    scores = score_items(FirstIsBetter(), items, JUDGEBENCH.both_orders)
    assert [list(score) for score in scores[:4]] == [[2, 0], [0, 2], [1, 1], [0, 2]]
    assert np.isnan(scores[4]).all()
    assert summarise(items, scores).right.tolist() == [1, 0, 0, 1, 0]


def test_an_unknown_source_or_label_is_named(tmp_path: Path) -> None:
    row = {"pair_id": "1", "source": "mmlu-pro-law", "question": "?", "response_A": "a", "response_B": "b"}
    for wrong in ({"label": "A>>B"}, {"label": "A>B", "source": "trivia"}):
        write_jsonl(tmp_path / "d.jsonl", [row | wrong])
        with pytest.raises(DataError, match=r"row 1: source '.*' or label '.*' is unknown"):
            load({"gpt": str(tmp_path / "d.jsonl")})
