"""RewardBench 2: ties for the maximum, the score of `Ties` by hand and by its formula, format, bad rows."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_eval.benchmarks.items import Item, Scores
from rlhf_eval.benchmarks.loading import version_warning
from rlhf_eval.benchmarks.rewardbench2 import REWARDBENCH2, ROWS, load, summarise
from rlhf_eval.benchmarks.statistics import weighted_accuracy
from rlhf_eval.errors import DataError
from rlhf_eval.files import write_jsonl
from rlhf_eval.records import user_prompt

NAN = float("nan")
Pair = tuple[Sequence[float], Sequence[float], Sequence[float], Sequence[float]]
"""Scores of the right and wrong answers of `tied:N`, then of `ref:N`."""


def row(subset: str, id: str, right: int = 1, wrong: int = 3, **changes: object) -> dict:
    """A row with the columns of the split `test`."""
    return {
        "id": id,
        "prompt": f"{subset} {id}?",
        "chosen": [f"right {n}" for n in range(right)],
        "rejected": [f"wrong {n}" for n in range(wrong)],
        "num_correct": right,
        "num_incorrect": wrong,
        "total_completions": right + wrong,
        "models": ["human"] * (right + wrong),
        "subset": subset,
        "additional_metadata": {"category": None, "index": 1.0},
    } | changes


def item(subset: str, id: str, right: int = 1, wrong: int = 3) -> Item:
    variant, _, pair = id.partition(":")
    attributes = {"variant": variant, "pair": pair} if pair else {}
    completions = tuple(f"answer {n}" for n in range(right + wrong))
    labels = (1.0,) * right + (0.0,) * wrong
    return Item(id, user_prompt(id, f"{subset} {id}?"), completions, labels, subset, attributes)


def ties(pairs: Sequence[Pair]) -> tuple[list[Item], Scores]:
    items, scores = [], []
    for number, (right, wrong, ref_right, ref_wrong) in enumerate(pairs):
        for variant, good, bad in (("ref", ref_right, ref_wrong), ("tied", right, wrong)):
            items.append(item("Ties", f"{variant}:{number}", len(good), len(bad)))
            scores.append(np.array([*good, *bad], float))
    return items, scores


def full() -> list[Item]:
    """As many items of every subset as published."""
    return [
        item(subset, f"{('ref', 'tied')[n % 2]}:{n // 2}", 1 + n % 2, 2)
        if subset == "Ties"
        else item(subset, f"{subset} {n}")
        for subset, count in ROWS.items()
        for n in range(count)
    ]


def test_a_tie_for_the_maximum_is_shared() -> None:
    cases = [
        ([3, 2, 1, 0], 1),
        ([2, 3, 1, 0], 0),
        ([3, 3, 1, 0], 1 / 2),
        ([3, 3, 0, 3], 1 / 3),
        ([3, 3, 3, 3], 1 / 4),
        ([1, 3, 3, 0], 0),  # a tie without the right answer
        ([3, 2, NAN, 0], 0),
        ([NAN, 2, 1, 0], 0),
    ]
    items = [item("Math", str(n)) for n in range(len(cases))]
    summary = summarise(items, [np.array(scores, float) for scores, _ in cases])
    assert summary.right.tolist() == pytest.approx([credit for _, credit in cases])
    assert summary.accuracy == pytest.approx(100 * (1 + 1 / 2 + 1 / 3 + 1 / 4) / 8)


def test_subsets_weigh_the_same_whatever_their_size() -> None:
    items = [item("Focus", str(n)) for n in range(9)] + [item("Math", "9")]
    summary = summarise(items, [np.array([1.0, 0, 0, 0])] * 9 + [np.array([0.0, 1, 0, 0])])
    assert summary.subsets == {"Math": 0, "Focus": 100}
    assert (summary.accuracy, summary.n) == (50, 10)


@pytest.mark.parametrize(
    ("pair", "credit"),
    [
        # d = .5, c_tied = 1.5, c_ref = 3: everything is right, and the smaller margin is 3 times d.
        (([3, 2.5], [1, 0], [4], [1]), 0.3 + 0.3 + 0.2 + 0.2 + 0.01 * math.tanh(3 - 1)),
        # d = 3, c_tied = 1, c_ref = −.5: only `tied` is right, and not by more than d.
        (([5, 2], [1], [2], [2.5]), 0.3 + 0.01 * math.tanh(-0.5 / 3 - 1)),
        # d = 1, c_tied = 2, c_ref = .5: both are right, c_tied > d, but the smaller margin is not.
        (([4, 3], [1], [1.5], [1]), 0.3 + 0.3 + 0.2 + 0.01 * math.tanh(0.5 / 1 - 1)),
        # c = d = 1 is not more than d.
        (([3, 2], [1], [2], [1]), 0.3 + 0.3 + 0.01 * math.tanh(0)),
        # d = 0: the ratio is +∞, −∞ or 0/0, which counts 0.
        (([2, 2], [1], [2], [1]), 1.01),
        (([2, 2], [3], [2], [3]), -0.01),
        (([2, 2], [2], [2], [2]), 0),
        # An invalid score: its prompt is wrong, and so is whatever is made of it.
        (([3, 2.5], [1], [4], [NAN]), 0.3 + 0.2),
        (([3, NAN], [1], [4], [1]), 0.3),
        (([3, 2.5], [NAN], [4], [1]), 0.3),
    ],
)
def test_the_credit_of_a_pair_by_hand(pair: Pair, credit: float) -> None:
    summary = summarise(*ties([pair]))
    assert summary.right.tolist() == pytest.approx([credit, credit], abs=1e-12)
    assert summary.subsets == pytest.approx({"Ties": 100 * credit}, abs=1e-12)


numbers = st.integers(-4, 4)
several = st.lists(numbers, min_size=2, max_size=5)
some = st.lists(numbers, min_size=1, max_size=4)
tied_pairs = st.lists(st.tuples(several, some, st.tuples(numbers), some), min_size=1, max_size=8)


@settings(max_examples=60)
@given(pairs=tied_pairs)
def test_the_score_of_ties_is_its_published_formula(pairs: list[Pair]) -> None:
    """Term by term over all prompts, as the formula stands, not pair by pair."""
    n = len(pairs)
    d = [max(right) - min(right) for right, *_ in pairs]
    c_tied = [min(right) - max(wrong) for right, wrong, *_ in pairs]
    c_ref = [min(right) - max(wrong) for *_, right, wrong in pairs]
    c_both = [min(pair) for pair in zip(c_tied, c_ref, strict=True)]
    ratio = [math.tanh(c / s - 1) if s else float(np.sign(c)) for c, s in zip(c_both, d, strict=True)]
    score = (
        0.3 * sum(c > 0 for c in c_tied) / n
        + 0.3 * sum(c > 0 for c in c_ref) / n
        + 0.2 * sum(c > s for c, s in zip(c_tied, d, strict=True)) / n
        + 0.2 * sum(c > s for c, s in zip(c_both, d, strict=True)) / n
        + 0.01 * sum(ratio) / n
    )
    items, scores = ties(pairs)
    summary = summarise(items, scores)
    assert summary.subsets["Ties"] == pytest.approx(100 * score, abs=1e-9)
    assert summary.accuracy == pytest.approx(100 * score, abs=1e-9)
    # Margins are compared with one another, so zero and unit of the scores do not matter.
    assert summarise(items, [8 * s - 5 for s in scores]).subsets == pytest.approx(summary.subsets, abs=1e-9)


def test_the_interval_draws_both_variants_of_a_pair_together() -> None:
    rng = np.random.default_rng(3)
    drawn = rng.normal([1, 1, 1, 0, 0, 1, 0, 0], 1, (40, 8)).tolist()
    pairs = [(x[:3], x[3:5], x[5:6], x[6:]) for x in drawn]
    summary = summarise(*ties(pairs))
    once = summary.right[::2]
    *expected, _ = weighted_accuracy(once, ["Ties"] * 40, {"Ties": 1.0}, range(40))
    assert (summary.accuracy, summary.low, summary.high) == pytest.approx(expected)
    assert summary.low < summary.accuracy < summary.high


def test_of_a_pair_without_its_other_variant_the_one_left_stands_for_both() -> None:
    items, scores = ties([([3, 2.5], [1], [4], [1]), ([5, 2], [1], [2], [2.5])])
    # `ref:0` has one right answer, d = 0; `tied:1` has d = 3, c = 1.
    summary = summarise([items[0], items[3]], [scores[0], scores[3]])
    assert summary.right.tolist() == pytest.approx([1.01, 0.6 + 0.01 * math.tanh(1 / 3 - 1)])


four = st.lists(st.tuples(*[numbers] * 4), min_size=10, max_size=10)


@settings(max_examples=25)
@given(fours=four, order=st.permutations(range(10)))
def test_outside_ties_only_the_order_of_scores_counts(fours: list[tuple], order: list[int]) -> None:
    subsets = [name for name in ROWS if name != "Ties"] * 2
    items = [item(subset, str(n)) for n, subset in enumerate(subsets)]
    scores = [np.array(values, float) for values in fours]
    first = summarise(items, scores)
    again = summarise([items[n] for n in order], [np.exp(scores[n]) for n in order])
    assert again.subsets == pytest.approx(first.subsets)
    assert again.accuracy == pytest.approx(first.accuracy)
    assert list(again.subsets) == subsets[:5]


def test_a_perfect_scorer_and_its_reverse_stand_at_the_ends() -> None:
    items = full()
    for sign, rest, tied in ((1, 100, 101), (-1, 0, -1)):
        summary = summarise(items, [sign * np.array(item.labels) for item in items])
        expected: Mapping[str, float] = dict.fromkeys(ROWS, rest) | {"Ties": tied}
        assert summary.subsets == pytest.approx(expected)
        assert summary.accuracy == pytest.approx((5 * rest + tied) / 6)


def test_the_published_file_is_read(tmp_path: Path) -> None:
    rows = [row("Factuality", "0"), row("Ties", "ref:7", 1, 2), row("Ties", "tied:7", 3, 2)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "test.parquet")
    first, ref, tied = load({"test": str(tmp_path / "test.parquet")})
    assert (first.id, first.subset, first.prompt.instruction) == ("0", "Factuality", "Factuality 0?")
    assert first.completions == ("right 0", "wrong 0", "wrong 1", "wrong 2")
    assert (first.labels, first.attributes) == ((1, 0, 0, 0), {})
    assert (tied.id, tied.labels) == ("tied:7", (1, 1, 1, 0, 0))
    assert ref.attributes == {"variant": "ref", "pair": "7"}
    assert tied.attributes == {"variant": "tied", "pair": "7"}


def test_the_published_size_is_known() -> None:
    items = full()
    assert len(items) == 1865
    assert version_warning(items, REWARDBENCH2.versions) is None
    other = version_warning(items[:-1], REWARDBENCH2.versions)
    assert other is not None
    assert "'Ties' has 101 and not 102" in other


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (row("Math", "1", prompt=None), r"row 2 lacks prompt"),
        (row("Math", "0"), r"row 2 repeats the id '0'"),
        (row("Maths", "1"), r"row 2: subset 'Maths' is unknown[\s\S]*Did you mean 'Math'"),
        (row("Math", "1", chosen="one text"), r"row 2: `chosen` and `rejected` are not lists"),
        (row("Math", "1", wrong=0), r"row 2: `chosen` and `rejected` are not lists with an answer in each"),
        (row("Math", "1", right=2), r"row 2 \('1'\) has 2 chosen answers"),
        (row("Ties", "12", right=2), r"row 2: '12' is no id of Ties[\s\S]*`ref:N` and `tied:N`"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, wrong: dict, message: str) -> None:
    write_jsonl(tmp_path / "test.jsonl", [row("Math", "0"), wrong])
    with pytest.raises(DataError, match=message):
        load({"test": str(tmp_path / "test.jsonl")})
