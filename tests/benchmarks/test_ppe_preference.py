"""PPE's human preferences: ties, rankings by hand and by a second computation, format, bad rows."""

import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_expit

from rlhf_eval.benchmarks import ppe_preference
from rlhf_eval.benchmarks.items import Item, Scores
from rlhf_eval.benchmarks.loading import version_warning
from rlhf_eval.benchmarks.ppe_preference import PPE_PREFERENCE, WINNERS, bradley_terry, load, summarise
from rlhf_eval.errors import DataError
from rlhf_eval.files import write_jsonl
from rlhf_eval.records import user_prompt

NAN = float("nan")
SPEARMAN = "Spearman correlation of model ranking, %"
KENDALL = "Kendall correlation of model ranking, %"
SEPARABILITY = "separability, % of model pairs"
SEPARABILITY_VOTES = "separability of the votes, % of model pairs"
AGREEMENT = "confidence agreement, % of pairs that the votes separate"
BRIER = "Brier score of model ranking"
Battle = tuple[str, str, str, float, float]
"""model_a, model_b, winner, score of the first response, of the second."""


def row(id: str, winner: str, **changes: object) -> dict[str, Any]:
    """A row with the columns of the split `test` that are read, and some that are not."""
    return {
        "question_id": id,
        "model_a": "gpt-4o",
        "model_b": "llama-3-8b",
        "winner": winner,
        "prompt": f"Question {id}?",
        "response_1": f"first {id}",
        "response_2": f"second {id}",
        "language": "English",
        "conv_metadata": {"turns": 1},
        "is_code": False,
        "is_refusal": False,
        "hard_prompt": False,
        "easy_prompt": False,
        "if_prompt": False,
        "math_prompt": False,
    } | changes


def battles(*played: Battle) -> tuple[list[Item], Scores]:
    items = [
        Item(
            str(number),
            user_prompt(str(number), f"Question {number}?"),
            ("first", "second"),
            WINNERS[winner],
            attributes={"model_a": a, "model_b": b},
        )
        for number, (a, b, winner, _, _) in enumerate(played)
    ]
    return items, [np.array(battle[3:], float) for battle in played]


def series(a: str, b: str, votes_for_a: int, preferred_a: int, games: int = 100) -> list[Battle]:
    """Battles of two models of which people gave so many to the first, and so did the reward model."""
    return [
        (a, b, "model_a" if n < votes_for_a else "model_b", float(n < preferred_a), float(n >= preferred_a))
        for n in range(games)
    ]


def test_ties_do_not_count_and_equal_or_invalid_scores_are_wrong(tmp_path: Path) -> None:
    rows = [
        row("1", "model_a", hard_prompt=True),
        row("2", "model_b", hard_prompt=True, math_prompt=True),
        row("3", "model_a", is_code=True),
        row("4", "model_b"),
        row("5", "tie", hard_prompt=True),
        row("6", "tie (bothbad)"),
    ]
    write_jsonl(tmp_path / "test.jsonl", rows)
    items = load({"test": str(tmp_path / "test.jsonl")})
    assert [item.labels for item in items] == [(1, 0), (0, 1), (1, 0), (0, 1), (0.5, 0.5), (0.5, 0.5)]
    scores = [[2, 1], [2, 1], [1, 1], [NAN, 5], [2, 1], [1, 2]]  # right, wrong, no strict winner, invalid
    summary = summarise(items, [np.array(score, float) for score in scores])
    assert summary.right.tolist() == [1, 0, 0, 0, 0, 0]
    assert summary.accuracy == 25.0  # 1 of the 4 votes that are no tie
    assert summary.subsets == {"hard prompts": 50.0, "math": 0.0, "coding": 0.0}  # 1/2, 0/1, 0/1
    assert (summary.n, summary.metrics["votes that are no tie"]) == (4, 4.0)
    assert summary.low < 25 < summary.high


def test_rankings_by_hand() -> None:
    """Votes: a > b > c, each 90 of 100. The reward model: a > c > b, as clearly. All intervals are apart."""
    played = [*series("a", "b", 90, 90), *series("a", "c", 90, 90), *series("b", "c", 90, 10)]
    metrics = summarise(*battles(*played)).metrics
    assert metrics[KENDALL] == pytest.approx(100 / 3)  # (2 pairs in order − 1 not) / 3
    assert metrics[SPEARMAN] == pytest.approx(50.0)  # 1 − 6·(0² + 1² + 1²) / (3·(3² − 1))
    assert metrics[SEPARABILITY] == metrics[SEPARABILITY_VOTES] == 100.0
    assert metrics[AGREEMENT] == pytest.approx(100 / 3)  # (1 + 1 − 1) / 3
    assert metrics[BRIER] == pytest.approx(1 / 3, abs=1e-3)  # (0 + 0 + 1) / 3: sure, and once wrong


def test_agreement_is_over_the_pairs_that_votes_separate() -> None:
    """Votes do not separate b and c (52 of 100): what the reward model says of them does not matter."""
    played = [*series("a", "b", 90, 90), *series("a", "c", 90, 90), *series("b", "c", 52, 10)]
    metrics = summarise(*battles(*played)).metrics
    assert metrics[SEPARABILITY] == 100.0
    assert metrics[SEPARABILITY_VOTES] == pytest.approx(200 / 3)
    assert metrics[AGREEMENT] == 100.0
    assert metrics[BRIER] == pytest.approx(1 / 3, abs=1e-3)  # the Brier score is over all pairs


def test_a_pair_that_the_reward_model_does_not_separate_agrees_with_nothing() -> None:
    played = [*series("a", "b", 90, 90), *series("a", "c", 90, 90), *series("b", "c", 90, 52)]
    metrics = summarise(*battles(*played)).metrics
    assert metrics[SEPARABILITY] == pytest.approx(200 / 3)
    assert metrics[AGREEMENT] == pytest.approx(200 / 3)  # (1 + 1 + 0) / 3


def test_the_brier_score_of_two_models_is_that_of_the_normal_approximation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reward model gives a 55 of 100 battles, the votes give it 10.

    The difference in strength is logit .55 = .201 with standard error 1/√(100·.55·.45) = .201. Each strength
    is half of it with half the error: P = Φ(.201 / (.201·√½)) = Φ(√2) = .921, and (P − 0)² = .849.
    """
    monkeypatch.setattr(ppe_preference, "DRAWS", 5000)  # 100 draws leave an error of .05
    metrics = summarise(*battles(*series("a", "b", 10, 55))).metrics
    assert metrics[BRIER] == pytest.approx(0.849, abs=0.02)


def test_an_invalid_score_is_a_game_against_the_vote() -> None:
    valid = [*series("a", "b", 90, 10), *series("b", "c", 90, 90), *series("a", "c", 90, 90)]
    against = [
        (a, b, winner, NAN, y) if n < 100 else (a, b, winner, x, y)
        for n, (a, b, winner, x, y) in enumerate(valid)
    ]
    opposite = [
        (a, b, winner, -float(winner == "model_a"), -float(winner == "model_b"))
        for a, b, winner, *_ in valid[:100]
    ]
    assert summarise(*battles(*against)).metrics == summarise(*battles(*opposite, *valid[100:])).metrics


RANDOM = np.random.default_rng(0).normal(size=(240, 2))


def random_battles(scores: np.ndarray) -> tuple[list[Item], Scores]:
    """240 battles of four models, of which the later in the alphabet is better; a fifth of them are ties."""
    rng = np.random.default_rng(1)
    played: list[Battle] = []
    for x, y in scores:
        a, b = rng.choice(4, size=2, replace=False)
        stronger = rng.random() < 1 / (1 + math.exp(float(b - a)))
        winner = "tie" if rng.random() < 0.2 else "model_a" if stronger else "model_b"
        played.append(("abcd"[a], "abcd"[b], winner, float(x), float(y)))
    return battles(*played)


def test_a_perfect_a_reversed_and_a_constant_scorer() -> None:
    items, _ = random_battles(RANDOM)
    perfect = summarise(items, [np.array(item.labels) for item in items])
    assert perfect.accuracy == 100.0
    assert (perfect.metrics[SPEARMAN], perfect.metrics[KENDALL]) == pytest.approx((100.0, 100.0))
    assert perfect.metrics[AGREEMENT] == 100.0
    assert perfect.metrics[SEPARABILITY] == perfect.metrics[SEPARABILITY_VOTES] > 0
    reverse = summarise(items, [-np.array(item.labels) for item in items])
    assert reverse.accuracy == 0.0
    assert (reverse.metrics[SPEARMAN], reverse.metrics[KENDALL]) == pytest.approx((-100.0, -100.0))
    assert reverse.metrics[AGREEMENT] < -50  # its draws are its own: a pair at the edge may be apart no more
    constant = summarise(items, [np.zeros(2) for _ in items])
    assert constant.accuracy == 0.0
    for metric in (SPEARMAN, KENDALL, SEPARABILITY, AGREEMENT):
        assert constant.metrics[metric] == 0.0
    assert constant.metrics[BRIER] == 0.25  # P = ½ for every pair


@given(order=st.permutations(range(240)), scale=st.floats(0.1, 10), shift=st.floats(-5, 5))
@settings(max_examples=20)
def test_monotone_transforms_and_row_order_change_nothing(
    order: Sequence[int], scale: float, shift: float
) -> None:
    items, scores = random_battles(RANDOM)
    summary = summarise(items, scores)
    changed = summarise([items[n] for n in order], [np.arctan(scale * scores[n]) + shift for n in order])
    assert changed.accuracy == pytest.approx(summary.accuracy)
    assert changed.metrics == pytest.approx(summary.metrics)


def test_bradley_terry_of_two_models_is_the_log_odds() -> None:
    """300 wins to 100: s₁ − s₂ = log 3, and s₁ + s₂ = 0."""
    wins = np.array([[[0.0, 300.0], [100.0, 0.0]]])
    assert bradley_terry(wins)[0] == pytest.approx([math.log(3) / 2, -math.log(3) / 2], abs=1e-4)


def test_bradley_terry_agrees_with_a_general_optimiser() -> None:
    wins = np.random.default_rng(2).integers(1, 60, size=(3, 6, 6)) / 2
    wins[:, range(6), range(6)] = 0
    for draw, found in zip(wins, bradley_terry(wins), strict=True):

        def loss(s: np.ndarray, draw: np.ndarray = draw) -> float:
            return -sum(
                draw[i, j] * log_expit(s[i] - s[j]) + draw[j, i] * log_expit(s[j] - s[i])
                for i, j in combinations(range(6), 2)
            )

        expected = minimize(loss, np.zeros(6), method="BFGS", options={"gtol": 1e-8}).x
        assert found == pytest.approx(expected - expected.mean(), abs=1e-4)


def test_a_model_that_wins_all_its_battles_has_a_finite_strength() -> None:
    wins = np.array([[[0.0, 50.0, 50.0], [0.0, 0.0, 25.0], [0.0, 25.0, 0.0]]])
    best, second, third = bradley_terry(wins)[0]
    assert second == pytest.approx(third)
    assert 5 < best - second < 30


def test_the_published_file_type_and_version(tmp_path: Path) -> None:
    rows = [row(str(n), "model_a", category_tag={"math_v0.1": {"math": True}}) for n in range(3)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "test-00000-of-00001.parquet")
    [first, *_] = items = load({"test": str(tmp_path / "test-00000-of-00001.parquet")})
    assert first.id == "0"
    assert first.prompt.instruction == "Question 0?"
    assert first.completions == ("first 0", "second 0")
    assert first.attributes == {"model_a": "gpt-4o", "model_b": "llama-3-8b"}
    warning = version_warning(items, PPE_PREFERENCE.versions)
    assert warning is not None
    assert "these 3 items are no published version (V1: 16038)" in warning
    assert version_warning([first] * 16038, PPE_PREFERENCE.versions) is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("1", "model_a"), row("2", "A")], r"test.jsonl', row 2: winner 'A' is unknown"),
        ([row("1", "model_a"), row("1", "model_b")], r"test.jsonl', row 2 repeats the id '1'"),
        ([row("1", "model_a", response_2=None)], r"test.jsonl', row 1 lacks response_2"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    write_jsonl(tmp_path / "test.jsonl", rows)
    with pytest.raises(DataError, match=message):
        load({"test": str(tmp_path / "test.jsonl")})
