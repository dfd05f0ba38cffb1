"""Accuracy on pairs: hand-computed, ties and invalid scores wrong, and rows that cannot be used."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_eval.benchmarks.evaluate import load_benchmark, measure
from rlhf_eval.benchmarks.items import Item
from rlhf_eval.benchmarks.pairs import load, summarise
from rlhf_eval.config.benchmark_schema import BenchmarkConfig
from rlhf_eval.errors import DataError
from rlhf_eval.files import write_jsonl
from rlhf_eval.records import user_prompt


def row(number: int, **more: object) -> dict:
    return {"id": f"p{number}", "prompt": f"Say {number}.", "chosen": "right", "rejected": "wrong"} | more


def test_accuracy_with_its_wilson_interval(tmp_path: Path) -> None:
    subsets = ("easy", "easy", "hard", "hard", "hard", "hard")
    write_jsonl(tmp_path / "p.jsonl", [row(n, subset=subset) for n, subset in enumerate(subsets)])
    loaded = load_benchmark(BenchmarkConfig("numbers", {"all": str(tmp_path / "p.jsonl")}))
    # Right, right, wrong; a tie prefers nothing, and neither does an invalid score on either side.
    scores = [(2, 1), (3, 1), (1, 2), (1, 1), (np.nan, 1), (5, np.nan)]
    result = measure(loaded, [np.array(pair, dtype=float) for pair in scores]).as_json()
    n, share, z = 6, 2 / 6, 1.959964
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    assert (result["benchmark"], result["n"], result["invalid"]) == ("numbers", 6, 2)
    assert result["accuracy"] == pytest.approx(100 * share)
    assert (result["low"], result["high"]) == pytest.approx(
        (100 * (centre - half), 100 * (centre + half)), abs=1e-3
    )
    assert result["subsets"] == {"easy": 100.0, "hard": 0.0}


def test_a_prompt_may_be_a_conversation(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "One."},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "Two."},
    ]
    write_jsonl(tmp_path / "p.jsonl", [row(1, prompt=turns)])
    [item] = load({"all": str(tmp_path / "p.jsonl")})
    conversation = item.prompt.answered(item.completions[0])
    assert [message.content for message in conversation] == ["One.", "1", "Two.", "right"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(1), row(2, rejected=None)], "row 2 lacks rejected"),
        ([row(1), row(1)], "row 2 repeats the id 'p1'"),
        ([row(1, prompt=[])], r"row 1 \('p1'\) has no prompt"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, rows: list[dict], message: str) -> None:
    write_jsonl(tmp_path / "p.jsonl", rows)
    with pytest.raises(DataError, match=message):
        load({"all": str(tmp_path / "p.jsonl")})


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=40))
def test_accuracy_is_that_of_any_monotone_transform_of_the_scores(pairs: list[tuple[int, int]]) -> None:
    items = [Item(str(n), user_prompt(str(n), str(n % 7)), ("a", "b"), (1.0, 0.0)) for n in range(len(pairs))]
    plain = summarise(items, [np.array(pair, dtype=float) for pair in pairs])
    bent = summarise(items, [np.exp(np.array(pair, dtype=float)) - 5 for pair in pairs])
    turned = summarise(items, [-np.array(pair, dtype=float) for pair in pairs])
    ties = 100 * sum(a == b for a, b in pairs) / len(pairs)
    assert plain.accuracy == bent.accuracy == pytest.approx(100 - ties - turned.accuracy)
    assert 0 <= plain.low <= plain.accuracy <= plain.high <= 100
