"""Accuracy on pairs: hand-computed, ties and invalid scores wrong, and rows that cannot be used."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rlhf_eval.benchmarks.pairs import evaluate, load_pairs
from rlhf_eval.config.schema import BenchmarkConfig
from rlhf_eval.errors import DataError
from rlhf_eval.files import write_jsonl
from rlhf_eval.records import Comparison, Conversation, PreferenceBatch, ScoreBatch
from rlhf_eval.rewards.interface import PairwiseRewardModel, PointwiseRewardModel


class ScoreInText(PointwiseRewardModel):
    """A reward model whose score is the number that the answer consists of."""

    def score(self, conversations: Sequence[Conversation]) -> ScoreBatch:
        scores = np.array([float(conversation[-1].content) for conversation in conversations])
        return ScoreBatch(scores, np.isfinite(scores))


class LargerNumber(PairwiseRewardModel):
    """Compares the numbers, and cannot say how good one is."""

    name = "larger"

    def compare(self, comparisons: Sequence[Comparison]) -> PreferenceBatch:
        numbers = np.array([[float(c.completion_a), float(c.completion_b)] for c in comparisons])
        valid = np.asarray(np.isfinite(numbers).all(axis=1))
        wins = np.where(numbers[:, 0] == numbers[:, 1], 0.5, numbers[:, 0] > numbers[:, 1])
        return PreferenceBatch(np.where(valid, wins, np.nan), valid)


def row(number: int, chosen: str, rejected: str, **more: str) -> dict:
    return {"id": f"p{number}", "prompt": "Say a number.", "chosen": chosen, "rejected": rejected} | more


def benchmark(path: Path, rows: list[dict]) -> BenchmarkConfig:
    write_jsonl(path, rows)
    return BenchmarkConfig(name="numbers", pairs=str(path))


def test_accuracy_with_its_wilson_interval(tmp_path: Path) -> None:
    rows = [
        row(1, "2", "1", subset="easy"),
        row(2, "3", "1", subset="easy"),
        row(3, "1", "2", subset="hard"),
        row(4, "1", "1", subset="hard"),  # a tie prefers nothing
        row(5, "nan", "1", subset="hard"),  # and neither does an invalid score
        row(6, "5", "nan", subset="hard"),
    ]
    result = evaluate(ScoreInText(), benchmark(tmp_path / "p.jsonl", rows), tmp_path / "scores.csv")
    n, share, z = 6, 2 / 6, 1.959964
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    assert result["n"] == 6
    assert result["accuracy"] == pytest.approx(100 * share)
    assert (result["low"], result["high"]) == pytest.approx(
        (100 * (centre - half), 100 * (centre + half)), abs=1e-3
    )
    assert result["subsets"] == {"easy": 100.0, "hard": 0.0}
    with (tmp_path / "scores.csv").open() as stream:
        written = list(csv.DictReader(stream))
    assert [line["id"] for line in written] == ["p1", "p2", "p3", "p4", "p5", "p6"]
    assert (float(written[1]["chosen"]), float(written[1]["rejected"])) == (3.0, 1.0)


def test_a_prompt_may_be_a_conversation(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "One."},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "Two."},
    ]
    write_jsonl(tmp_path / "p.jsonl", [row(1, "2", "1") | {"prompt": turns}])
    [pair] = load_pairs(str(tmp_path / "p.jsonl"))
    assert [message.content for message in pair.prompt.answered(pair.chosen)] == ["One.", "1", "Two.", "2"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(1, "2", "1"), row(2, "2", "")], "row 2 lacks rejected"),
        ([row(1, "2", "1"), row(1, "3", "1")], "row 2 repeats the id 'p1'"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, rows: list[dict], message: str) -> None:
    write_jsonl(tmp_path / "p.jsonl", rows)
    with pytest.raises(DataError, match=message):
        load_pairs(str(tmp_path / "p.jsonl"))


def test_a_reward_model_that_only_compares_is_judged_by_its_preferences(tmp_path: Path) -> None:
    rows = [row(1, "2", "1"), row(2, "1", "2"), row(3, "1", "1"), row(4, "nan", "1"), row(5, "9", "4")]
    result = evaluate(LargerNumber(), benchmark(tmp_path / "p.jsonl", rows), tmp_path / "scores.csv")
    assert result["accuracy"] == pytest.approx(40)
    with (tmp_path / "scores.csv").open() as stream:
        written = [(float(line["chosen"]), float(line["rejected"])) for line in csv.DictReader(stream)]
    assert written[:3] == [(1, 0), (0, 1), (0.5, 0.5)]
