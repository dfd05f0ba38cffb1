"""RewardBench: weights and sections by hand and as published, prior sets, the published format, bad rows."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_eval.benchmarks.items import Item, Scores
from rlhf_eval.benchmarks.loading import version_warning
from rlhf_eval.benchmarks.rewardbench import LEGACY, PRIOR_SETS, REWARDBENCH, ROWS, SECTIONS, load, summarise
from rlhf_eval.errors import DataError
from rlhf_eval.files import write_jsonl
from rlhf_eval.records import Message, user_prompt


def row(subset: str, number: int = 0, **changes: object) -> dict:
    """A row with the columns of the split `filtered`."""
    texts = {"prompt": f"{subset} {number}?", "chosen": "good", "rejected": "bad"}
    return texts | {"chosen_model": "a", "rejected_model": "b", "subset": subset, "id": number} | changes


def prior_row(number: int = 0, **changes: object) -> dict:
    """A row with the columns of the prior sets."""
    prompt = [{"content": f"Question {number}", "role": "user"}]
    return {"prompt": prompt, "chosen": "good", "rejected": "bad", "subset": "base", "id": number} | changes


def items_of(rows: Mapping[str, int]) -> list[Item]:
    """So many items of each subset."""
    return [
        Item(
            f"{subset}/{n}",
            user_prompt(f"{subset}/{n}", f"{subset} {n}?"),
            ("good", "bad"),
            (1.0, 0.0),
            subset,
        )
        for subset, count in rows.items()
        for n in range(count)
    ]


def winning(right: Mapping[str, int], items: list[Item]) -> Scores:
    """Scores with which the first so many items of each subset are right."""
    return [np.array([float(int(i.id.split("/")[1]) < right[i.subset]), 0.5]) for i in items]


def test_sections_weigh_subsets_by_published_rows_and_mathematics_as_much_as_code() -> None:
    rows = {
        "alpacaeval-easy": 2,
        "mt-bench-med": 1,
        "llmbar-natural": 1,
        "donotanswer": 2,
        "xstest-should-respond": 1,
        "math-prm": 4,
        "hep-cpp": 1,
    }
    right = rows | {"alpacaeval-easy": 1, "donotanswer": 0, "math-prm": 1}
    items = items_of(rows)
    summary = summarise(items, winning(right, items))
    by_hand = {
        "Chat": 100 * (100 * 1 / 2 + 40) / 140,  # 64.29
        "Chat Hard": 100,
        "Safety": 100 * (136 * 0 + 250) / 386,  # 64.77
        "Reasoning": 100 * (984 * 1 / 4 + 164) / 1148,  # 35.71
    }
    assert {name: summary.subsets[name] for name in by_hand} == pytest.approx(by_hand)
    assert summary.subsets["math-prm"] == pytest.approx(25)
    assert summary.accuracy == pytest.approx(sum(by_hand.values()) / 4)
    assert summary.low < summary.accuracy < summary.high
    assert (summary.n, summary.metrics) == (12, {})


def test_the_subsets_add_up_to_the_published_sections() -> None:
    rows = {section: sum(ROWS[name] for name in subsets) for section, subsets in SECTIONS.items()}
    assert rows == {"Chat": 358, "Chat Hard": 456, "Safety": 740, "Reasoning": 1431}
    code = [name for name in SECTIONS["Reasoning"] if name.startswith("hep-")]
    assert sum(ROWS[name] for name in code) == SECTIONS["Reasoning"]["math-prm"] == 984


@pytest.mark.parametrize(
    ("percent", "section"),
    [  # table 5 of the paper: MT-Bench hard, LLMBar natural, neighbor, GPTInst, GPTOut, manual → Chat Hard
        ((86.5, 93.0, 67.9, 77.2, 66.0, 69.6), 76.8),  # ArmoRM-Llama3-8B-v0.1
        ((67.6, 71.0, 83.6, 62.0, 46.8, 71.7), 70.2),  # Qwen1.5-14B-Chat
        ((91.9, 91.0, 31.3, 39.1, 76.6, 47.8), 57.2),  # Starling-RM-34B
    ],
)
def test_published_subsets_give_the_published_section(percent: tuple[float, ...], section: float) -> None:
    rows = {name: ROWS[name] for name in SECTIONS["Chat Hard"]}
    right = {name: round(p * rows[name] / 100) for name, p in zip(rows, percent, strict=True)}
    items = items_of(rows)
    summary = summarise(items, winning(right, items))
    assert [round(summary.subsets[name], 1) for name in rows] == list(percent)
    assert round(summary.subsets["Chat Hard"], 1) == section


def test_published_sections_and_prior_sets_give_the_published_legacy_score() -> None:
    # Table 2 of the paper, ArmoRM-Llama3-8B-v0.1: 96.9, 76.8, 92.2, 97.3, prior sets 74.3, score 89.0.
    right = {"alpacaeval-easy": 969, "llmbar-natural": 768, "donotanswer": 922, "math-prm": 973}
    right |= {"anthropic_helpful": 643, "anthropic_hhh": 843, "shp": 743, "summarize": 743}
    items = items_of(dict.fromkeys(right, 1000))
    summary = summarise(items, winning(right, items))
    assert summary.subsets["Prior Sets"] == pytest.approx(74.3)
    assert round(summary.metrics[LEGACY], 1) == 89.0
    assert summary.accuracy == pytest.approx((96.9 + 76.8 + 92.2 + 97.3) / 4)
    assert (summary.n, len(summary.right)) == (4000, 8000)


def test_prior_sets_leave_the_official_score_and_its_interval_alone() -> None:
    rng = np.random.default_rng(0)
    items = items_of(dict.fromkeys([*ROWS, *PRIOR_SETS], 5))
    scores = [rng.normal(size=2) for _ in items]
    both = summarise(items, scores)
    own = [n for n, item in enumerate(items) if item.subset in ROWS]
    alone = summarise([items[n] for n in own], [scores[n] for n in own])
    assert (alone.accuracy, alone.low, alone.high, alone.n) == (both.accuracy, both.low, both.high, both.n)
    assert LEGACY in both.metrics
    assert alone.metrics == {}
    three = [n for n, item in enumerate(items) if item.subset != "shp"]
    assert summarise([items[n] for n in three], [scores[n] for n in three]).metrics == {}


def test_ties_and_invalid_scores_are_wrong() -> None:
    items = items_of({"math-prm": 4})
    scores = [np.array(pair) for pair in ((1.0, 1.0), (np.nan, 0.0), (1.0, np.nan), (1.0, 0.0))]
    assert summarise(items, scores).right.tolist() == [0, 0, 0, 1]


pairs = st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=27, max_size=27)


@settings(max_examples=25)
@given(pairs=pairs, order=st.permutations(range(27)))
def test_only_the_order_of_two_scores_counts(pairs: list[tuple[int, int]], order: list[int]) -> None:
    items = items_of(dict.fromkeys([*ROWS, *PRIOR_SETS], 1))
    scores = [np.array(pair, float) for pair in pairs]
    summary = summarise(items, scores)
    # Another way to the same number: the mean of the four weighted averages.
    sections = [
        np.average(
            [
                chosen > rejected
                for item, (chosen, rejected) in zip(items, pairs, strict=True)
                if item.subset in w
            ],
            weights=list(w.values()),
        )
        for w in SECTIONS.values()
    ]
    assert summary.accuracy == pytest.approx(100 * np.mean(sections))
    stretched = summarise([items[n] for n in order], [np.exp(scores[n]) - 3 for n in order])
    assert stretched.accuracy == pytest.approx(summary.accuracy)
    assert stretched.metrics == pytest.approx(summary.metrics)
    assert stretched.subsets == pytest.approx(summary.subsets)


def test_a_perfect_scorer_gets_everything_and_its_reverse_nothing() -> None:
    items = items_of(ROWS | PRIOR_SETS)
    for scores, expected in (([1.0, 0.0], 100), ([0.0, 1.0], 0)):
        summary = summarise(items, [np.array(scores)] * len(items))
        assert summary.accuracy == pytest.approx(expected)
        assert summary.metrics[LEGACY] == pytest.approx(expected)
        assert set(np.round(list(summary.subsets.values()), 9)) == {expected}
        assert len(summary.subsets) == 23 + 4 + 4 + 1


def test_the_published_files_are_read(tmp_path: Path) -> None:
    filtered = [row("alpacaeval-easy", 0), row("hep-go", 0, prompt="func")]  # ids repeat between subsets
    turns = [
        {"content": "One.", "role": "user"},
        {"content": "1", "role": "assistant"},
        {"content": "Two.", "role": "user"},
    ]
    sources = {"filtered": filtered, "shp": [prior_row(0)], "anthropic_helpful": [prior_row(0, prompt=turns)]}
    data = {part: str(tmp_path / f"{part}-00000-of-00001.parquet") for part in sources}
    for part, rows in sources.items():
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), data[part])
    items = {item.id: item for item in load(data)}
    assert list(items) == ["alpacaeval-easy/0", "hep-go/0", "shp/0", "anthropic_helpful/0"]
    assert items["hep-go/0"].prompt.messages == (Message("user", "func"),)
    assert items["hep-go/0"].completions == ("good", "bad")
    assert items["anthropic_helpful/0"].subset == "anthropic_helpful"  # not the column `subset`
    assert items["anthropic_helpful/0"].prompt.messages == (
        Message("user", "One."),
        Message("assistant", "1"),
        Message("user", "Two."),
    )
    assert [item.subset for item in load({"filtered": data["filtered"]})] == ["alpacaeval-easy", "hep-go"]


def test_both_published_sizes_are_known() -> None:
    assert sum(ROWS.values()) == 2985
    for rows in (ROWS, ROWS | PRIOR_SETS):
        assert version_warning(items_of(rows), REWARDBENCH.versions) is None
    fewer = version_warning(items_of(ROWS)[1:], REWARDBENCH.versions)
    assert fewer is not None
    assert "'alpacaeval-easy' has 99 and not 100" in fewer


@pytest.mark.parametrize(
    ("part", "rows", "message"),
    [
        ("filtered", [row("hep-go"), row("hep-go", 1, chosen=None)], r"filtered\.jsonl', row 2 lacks chosen"),
        ("filtered", [row("hep-go"), row("hep-go")], r"filtered\.jsonl', row 2 repeats the id 'hep-go/0'"),
        ("filtered", [row("hep-gp")], r"row 1: subset 'hep-gp' is unknown[\s\S]*Did you mean 'hep-"),
        ("shp", [prior_row(prompt=["Hello"])], r"shp\.jsonl', row 1: the prompt is no text and no list"),
        (
            "shp",
            [prior_row(0), prior_row(1, prompt=[{"content": "Hi"}, {"content": "Hello"}])],
            r"shp\.jsonl', row 2: the prompt is no text and no list of turns that ends with the user's",
        ),
    ],
)
def test_a_row_that_cannot_be_used_is_named(
    tmp_path: Path, part: str, rows: list[dict], message: str
) -> None:
    data = {name: str(tmp_path / f"{name}.jsonl") for name in ("filtered", "shp")}
    for name, source in data.items():
        write_jsonl(Path(source), rows if name == part else [])
    with pytest.raises(DataError, match=message):
        load(data)


def test_prior_sets_alone_are_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "shp.jsonl", [prior_row()])
    with pytest.raises(DataError, match=r"no part but shp[\s\S]*`filtered`"):
        load({"shp": str(tmp_path / "shp.jsonl")})
