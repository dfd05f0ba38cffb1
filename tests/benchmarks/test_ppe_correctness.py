"""PPE's correctness: pairs and best-of-K curves by hand and by enumeration, format, bad rows."""

import json
from collections.abc import Sequence
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from rlhf_eval.benchmarks.items import Item, Scores
from rlhf_eval.benchmarks.loading import version_warning
from rlhf_eval.benchmarks.ppe_correctness import (
    PPE_CORRECTNESS,
    ROWS,
    best_of_k_curve,
    load,
    summarise,
)
from rlhf_eval.errors import DataError
from rlhf_eval.files import write_jsonl
from rlhf_eval.records import user_prompt

NAN = float("nan")
CONFIG = Path(__file__).parents[2] / "conf" / "benchmark" / "ppe_correctness.yaml"
ALTERNATING = [n % 2 == 0 for n in range(32)]
"""Answers 0, 2, … are right, 1, 3, … wrong."""


def row(id: str, pairs: list[list[int]], **changes: object) -> dict[str, Any]:
    """A row with the columns that every set has."""
    return {
        "question_id": id,
        "model_name": "gpt-4o-mini",
        "scores": ALTERNATING,
        "mean_score": 0.5,
        "prompt": f"Question {id}?",
        **{f"response_{n}": f"answer {n}" for n in range(1, 33)},
        "conflict_pairs": [[a, b] for a in range(0, 32, 2) for b in range(1, 32, 2)],
        "sampled_conflict_pairs": pairs,
    } | changes


def item(part: str, id: str, labels: Sequence[float], pairs: Sequence[tuple[int, int]]) -> Item:
    """An item with pairs of (right, wrong)."""
    texts = tuple(f"answer {n}" for n in range(len(labels)))
    prompt = user_prompt(f"{part}/{id}", f"{part} {id}?")
    return Item(prompt.id, prompt, texts, tuple(labels), part, {"pairs": json.dumps(pairs)})


def random_items(scale: float = 1.0) -> tuple[list[Item], Scores]:
    """Six items of 8 answers in each of three sets, right ones scored a little higher."""
    rng = np.random.default_rng(3)
    items, scores = [], []
    for part in ("math", "gpqa", "ifeval"):
        for n in range(6):
            labels = rng.permutation([1.0] * (n + 1) + [0.0] * (7 - n))
            right, wrong = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
            pairs = [(int(rng.choice(right)), int(rng.choice(wrong))) for _ in range(5)]
            items.append(item(part, str(n), labels.tolist(), pairs))
            scores.append(np.round(scale * labels + rng.normal(size=8), 1))
    return items, scores


def test_accuracy_by_hand_from_the_published_format(tmp_path: Path) -> None:
    """The answers of the first row score 0, 1, 2, …, so that a right answer wins over any before it."""
    rows = {
        "mmlu_pro": [row("1", [[4, 1], [1, 4], [0, 1], [3, 6]])],  # right, the same again, wrong, right
        "gpqa": [row("1", [[2, 1]]), row("1", [[0, 1]], model_name="gemma-2-9b-it")],
    }
    for part, content in rows.items():
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(content), tmp_path / f"{part}.parquet")
    items = load({part: str(tmp_path / f"{part}.parquet") for part in rows})
    assert [x.id for x in items] == [
        "mmlu_pro/1/gpt-4o-mini",
        "gpqa/1/gpt-4o-mini",
        "gpqa/1/gemma-2-9b-it",
    ]
    assert json.loads(items[0].attributes["pairs"]) == [[4, 1], [4, 1], [0, 1], [6, 3]]
    assert items[0].completions[:2] == ("answer 1", "answer 2")
    assert items[0].labels == tuple(map(float, ALTERNATING))
    summary = summarise(items, [np.arange(32.0)] * 3)
    assert summary.right.tolist() == [0.75, 1.0, 0.0]
    assert summary.subsets == {"mmlu_pro": 75.0, "gpqa": 50.0}
    assert summary.accuracy == 62.5  # (75 + 50) / 2: every set weighs the same
    assert summary.n == 3


def test_equal_scores_are_no_win_and_an_item_without_pairs_does_not_count() -> None:
    items = [
        item("math", "1", (1, 0, 0), [(0, 1), (0, 2)]),
        item("math", "2", (1, 1, 1), []),
    ]
    summary = summarise(items, [np.array([1.0, 1.0, 0.0]), np.array([3.0, 2.0, 1.0])])
    assert summary.right.tolist() == [0.5, 0.0]
    assert summary.accuracy == 50.0
    # It counts in best of K: g(1) = (1/3 + 1)/2, and g(3) = (½ + 1)/2, a tie being decided by lot.
    assert summary.metrics["best of K: end score, %: math"] == pytest.approx(75.0)


def test_an_invalid_score_stands_on_the_wrong_side() -> None:
    items = [item("math", "1", (1, 1, 0, 0), [(0, 2), (1, 2), (0, 3), (1, 3)])]
    assert summarise(items, [np.array([3.0, NAN, 1.0, 0.0])]).right.tolist() == [0.5]
    assert summarise(items, [np.array([3.0, 2.0, NAN, 0.0])]).right.tolist() == [0.5]
    nothing = summarise(items, [np.full(4, NAN)])
    assert nothing.accuracy == 0.0
    assert nothing.metrics["best of K: end score, %: math"] == 0.0
    assert nothing.metrics["AUC, %: math"] == 0.0


def test_best_of_k_by_hand() -> None:
    """One right answer of three, ranked between the wrong ones."""
    labels, scores = np.array([[1.0, 0.0, 0.0]]), np.array([[2.0, 3.0, 1.0]])
    # K = 1: any of three. K = 2: right only beside the lower wrong one, 1 of 3 pairs. K = 3: never.
    assert best_of_k_curve(scores, labels) == pytest.approx([1 / 3, 1 / 3, 0])
    # A tie with the higher wrong one. K = 2: ½ of one pair, all of another, none of the third: (½ + 1 + 0)/3.
    assert best_of_k_curve(np.array([[2.0, 2.0, 1.0]]), labels) == pytest.approx([1 / 3, 1 / 2, 1 / 2])
    metrics = summarise([item("math", "1", (1, 0, 0), [(0, 1)])], [scores[0]]).metrics
    assert metrics["best of K: maximum score, %: math"] == pytest.approx(100 / 3)
    assert metrics["best of K: end score, %: mean"] == pytest.approx(0.0)
    # The best of K is right with probability 1/3, 2/3, 1: loss = (0 + 1/3 + 1)/3.
    assert metrics["best of K: loss, %: math"] == pytest.approx(400 / 9)
    assert metrics["AUC, %: math"] == pytest.approx(50.0)  # above one of two wrong ones


@given(
    answers=st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=7),
)
@settings(max_examples=60)
def test_best_of_k_is_the_mean_over_all_subsets(answers: list[tuple[int, bool]]) -> None:
    expected = []
    for k in range(1, len(answers) + 1):
        credits = []
        for subset in combinations(answers, k):
            highest = [right for score, right in subset if score == max(score for score, _ in subset)]
            credits.append(np.mean(highest))
        expected.append(np.mean(credits))
    scores, labels = np.array(answers, float).T
    assert best_of_k_curve(scores[None], labels[None]) == pytest.approx(expected)


def test_a_perfect_and_a_reversed_scorer() -> None:
    items, _ = random_items()
    labels = [np.array(x.labels) for x in items]
    perfect = summarise(items, labels)
    assert (perfect.accuracy, perfect.low, perfect.high) == (100.0, 100.0, 100.0)
    assert set(perfect.subsets) == {"math", "gpqa", "ifeval"}
    for metric, value in perfect.metrics.items():
        assert value == pytest.approx(0.0 if "loss" in metric else 100.0)
    reverse = summarise(items, [-label for label in labels])
    assert reverse.accuracy == 0.0
    assert reverse.metrics["AUC, %: mean"] == 0.0
    assert reverse.metrics["best of K: end score, %: mean"] == pytest.approx(0.0)
    rights = [1, 2, 3, 4, 5, 6]
    # With c of 8 right, the best of one is right with c/8.
    assert reverse.metrics["best of K: maximum score, %: mean"] == pytest.approx(100 * np.mean(rights) / 8)
    # Of K, one is right unless all are wrong, and all are right with C(c, K)/C(8, K).
    loss = [1 - comb(8 - c, k) / comb(8, k) - comb(c, k) / comb(8, k) for c in rights for k in range(1, 9)]
    assert reverse.metrics["best of K: loss, %: mean"] == pytest.approx(100 * np.mean(loss))


def test_auc_agrees_with_scikit_learn_over_all_prompts_of_a_set() -> None:
    items, scores = random_items()
    summary = summarise(items, scores)
    for part in ("math", "gpqa", "ifeval"):
        chosen = [n for n, x in enumerate(items) if x.subset == part]
        labels = np.concatenate([items[n].labels for n in chosen])
        expected = 100 * roc_auc_score(labels, np.concatenate([scores[n] for n in chosen]))
        assert summary.metrics[f"AUC, %: {part}"] == pytest.approx(expected)


@given(order=st.permutations(range(18)), scale=st.floats(0.1, 10), shift=st.floats(-5, 5))
@settings(max_examples=20)
def test_monotone_transforms_and_row_order_change_nothing(
    order: Sequence[int], scale: float, shift: float
) -> None:
    items, scores = random_items()
    summary = summarise(items, scores)
    changed = summarise([items[n] for n in order], [np.arctan(scale * scores[n]) + shift for n in order])
    assert changed.accuracy == pytest.approx(summary.accuracy)
    assert changed.subsets == pytest.approx(summary.subsets)
    assert changed.metrics == pytest.approx(summary.metrics)


def test_a_shift_per_prompt_changes_only_the_auc() -> None:
    items, scores = random_items(scale=2.0)
    shifted = [score + 100 * n for n, score in enumerate(scores)]
    before, after = summarise(items, scores), summarise(items, shifted)
    assert after.right.tolist() == before.right.tolist()
    for metric, value in before.metrics.items():
        assert (after.metrics[metric] == pytest.approx(value)) is not metric.startswith("AUC")


def test_the_published_version_and_the_parts_of_the_shipped_configuration() -> None:
    items = [item(part, str(n), (1, 0), [(0, 1)]) for part, rows in ROWS.items() for n in range(rows)]
    assert len(items) == 2555
    assert version_warning(items, PPE_CORRECTNESS.versions) is None
    warning = version_warning(items[1:], PPE_CORRECTNESS.versions)
    assert warning is not None
    assert "'mmlu_pro' has 511 and not 512" in warning
    assert set(yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["data"]) == set(ROWS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": ALTERNATING[:31]}, r"math.jsonl', row 1: `scores` are not 32 truth values"),
        ({"scores": [0.5, *ALTERNATING[1:]]}, r"math.jsonl', row 1: `scores` are not 32 truth values"),
        ({"sampled_conflict_pairs": [[0, 2]]}, r"row 1: the conflict pair \[0, 2\] is not of a right and"),
        ({"sampled_conflict_pairs": [[0, 33]]}, r"row 1: the conflict pair \[0, 33\] is not of a right and"),
        ({"sampled_conflict_pairs": [0, 1]}, r"row 1: the conflict pair 0 is not of a right and"),
        ({"response_32": None}, r"math.jsonl', row 1 lacks response_32"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_jsonl(tmp_path / "math.jsonl", [row("1", [[0, 1]], **changes)])
    with pytest.raises(DataError, match=message):
        load({"math": str(tmp_path / "math.jsonl")})


def test_a_repeated_answer_an_unknown_set_and_one_file_for_two_sets_are_refused(tmp_path: Path) -> None:
    source = str(tmp_path / "math.jsonl")
    write_jsonl(tmp_path / "math.jsonl", [row("1", [[0, 1]]), row("1", [[0, 1]])])
    with pytest.raises(DataError, match="row 2 repeats the id 'math/1/gpt-4o-mini'"):
        load({"math": source})
    with pytest.raises(DataError, match=r"no set 'maths'.*\n.*Did you mean 'math'\?"):
        load({"maths": source})
    with pytest.raises(DataError, match="Two of the sets math, gpqa are the same file"):
        load({"math": source, "gpqa": source})
