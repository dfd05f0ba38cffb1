"""RMB: both sets by hand, the published folder and its copy on the hub, and rows out of form."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_eval.benchmarks.evaluate import load_benchmark, measure
from rlhf_eval.benchmarks.items import Item
from rlhf_eval.benchmarks.loading import content_hash
from rlhf_eval.benchmarks.rmb import BEST_OF_N, PAIRWISE, SCENARIOS, summarise
from rlhf_eval.cli import main
from rlhf_eval.config.benchmark_schema import BenchmarkConfig
from rlhf_eval.errors import DataError
from rlhf_eval.files import write_json, write_jsonl
from rlhf_eval.records import user_prompt

CODE = "Helpfulness/Code/Documentation"
DATA_MANAGEMENT = "Helpfulness/Code/Data Management"
CHAT = "Helpfulness/Chat/Discussion"
CRIMES = "Harmlessness/S1"


def answer(text: str) -> dict:
    return {"llm_name": "some model", "answer": text}


def turns(number: int) -> list[dict]:
    """The published conversations have up to five turns, and a language in all but some turns."""
    return [
        {"content": f"First {number}.", "language": "English", "role": "user"},
        {"content": "Yes?", "role": "assistant"},
        {"content": "Second.", "language": "English", "role": "user"},
    ]


def pair(number: int, scenario: str, **more: object) -> dict:
    """A row of Pairwise_set as published."""
    return {
        "pair_uid": str(number),
        "conversation_input": turns(number),
        "chosen": answer(f"good {number}"),
        "reject": answer(f"bad {number}"),
        "category_path": f"Pairwise_set/{scenario}",
    } | more


def listed(number: int, scenario: str, losers: int, **more: object) -> dict:
    """A row of BoN_set as published."""
    return {
        "conversation_input": turns(number),
        "bon_best": answer(f"best {number}"),
        "loser_list": [answer(f"loser {number}, {n}") for n in range(losers)],
        "bon_uid": str(number),
        "category_path": f"BoN_set/{scenario}",
    } | more


def published(folder: Path, rows: list[dict]) -> str:
    """Rows in the published layout, one file per scenario."""
    files: dict[str, list[dict]] = {}
    for row in rows:
        files.setdefault(row["category_path"], []).append(row)
    for path, content in files.items():
        file = folder / f"{path}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, content)
    return str(folder)


def copied(file: Path, rows: list[dict[str, Any]]) -> str:
    """Rows in the form of the copy on the hub, the best answer somewhere among the others."""
    table = []
    for number, row in enumerate(rows):
        others = row.get("loser_list") or [row["reject"]]
        best = number % (len(others) + 1)
        answers = [*others[:best], row.get("bon_best") or row["chosen"], *others[best:]]
        table.append(
            {
                "uid": row.get("bon_uid") or row["pair_uid"],
                "conversation": row["conversation_input"],
                "responses": answers,
                "preferred_index": best,
                "category_path": row["category_path"],
            }
        )
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), file)
    return str(file)


def item(number: int, scenario: str, others: int = 1) -> Item:
    labels = (1.0,) + (0.0,) * others
    texts = tuple(str(n) for n in range(others + 1))
    return Item(str(number), user_prompt(str(number), f"Question {number}"), texts, labels, scenario)


def test_pairs_by_hand(tmp_path: Path) -> None:
    given = [
        (CODE, (2, 1), 1),
        (CODE, (1, 1), 0),  # a tie is wrong
        (DATA_MANAGEMENT, (3, 1), 1),
        (CHAT, (np.nan, 1), 0),
        (CHAT, (1, np.nan), 0),
        (CRIMES, (5, 2), 1),
        (CRIMES, (4, 2), 1),
        (CRIMES, (3, 2), 1),
        (CRIMES, (1, 2), 0),
    ]
    folder = published(tmp_path, [pair(n, scenario) for n, (scenario, _, _) in enumerate(given)])
    loaded = load_benchmark(BenchmarkConfig("pairs", {"all": folder}, "rmb_pairwise"))
    assert loaded.items[0].subset == CRIMES  # files in order of their names
    by_id = {str(n): (np.array(score, dtype=float), right) for n, (_, score, right) in enumerate(given)}
    result = measure(loaded, [by_id[item.id][0] for item in loaded.items])
    assert result.summary.right.tolist() == [by_id[item.id][1] for item in loaded.items]
    shown = result.as_json()
    assert shown["subsets"] == pytest.approx(
        {
            "Helpfulness": 100 * 2 / 5,  # of five pairs, whatever their scenario
            "Harmlessness": 100 * 3 / 4,
            "Helpfulness/Code": 100 * 2 / 3,
            "Helpfulness/Chat": 0,
            "Harmlessness/S1": 100 * 3 / 4,
        }
    )
    assert shown["accuracy"] == pytest.approx(100 * (2 / 5 + 3 / 4) / 2)
    assert shown["metrics"] == pytest.approx({"micro accuracy over all items, %": 100 * 5 / 9})
    assert (shown["n"], shown["invalid"]) == (9, 2)
    assert shown["low"] < shown["accuracy"] < shown["high"]
    [note, _] = shown["notes"]
    assert "9 items are no published version (RMB pairwise: 17131)" in note


def test_the_best_of_n_beats_every_other(tmp_path: Path) -> None:
    given = [
        (CODE, (3, 1, 2), 1),
        (CODE, (3, 1, 3), 0),  # a tie with one of them
        (CODE, (2, 1, 3), 0),  # beats one of two
        (CRIMES, (9, 8, 7, 6, 5, 4, 3), 1),
        (CRIMES, (9, 8, 7, 6, 5, 4, 10), 0),
        (CRIMES, (9, 8, np.nan), 0),
        (CRIMES, (np.nan, 8, 7), 0),
    ]
    rows = [listed(n, scenario, len(score) - 1) for n, (scenario, score, _) in enumerate(given)]
    items = BEST_OF_N.load({"all": published(tmp_path, rows)})
    scores = [np.array(given[int(item.id)][1], dtype=float) for item in items]
    result = summarise(items, scores)
    assert result.right.tolist() == [given[int(item.id)][2] for item in items]
    assert result.accuracy == pytest.approx(100 * (1 / 3 + 1 / 4) / 2)


def test_the_published_conversations_and_answers(tmp_path: Path) -> None:
    [one] = BEST_OF_N.load({"all": published(tmp_path, [listed(4, CRIMES, 3)])})
    said = [(turn.role, turn.content) for turn in one.prompt.answered(one.completions[0])]
    assert said == [
        ("user", "First 4."),
        ("assistant", "Yes?"),
        ("user", "Second."),
        ("assistant", "best 4"),
    ]
    assert one.completions == ("best 4", "loser 4, 0", "loser 4, 1", "loser 4, 2")
    assert one.labels == (1, 0, 0, 0)
    [one] = PAIRWISE.load({"all": published(tmp_path / "pairs", [pair(4, CHAT)])})
    assert (one.id, one.completions, one.labels) == ("4", ("good 4", "bad 4"), (1, 0))


def test_the_copy_on_the_hub_holds_the_same_items(tmp_path: Path) -> None:
    pairs = [pair(n, CHAT) for n in range(4)]
    lists = [listed(n, CODE, 2 + n) for n in range(5)]
    for kind, rows in ((PAIRWISE, pairs), (BEST_OF_N, lists)):
        original = kind.load({"all": published(tmp_path / kind.versions[0].name, rows)})
        copy = kind.load({"all": copied(tmp_path / "copy.parquet", rows)})
        assert content_hash(copy) == content_hash(original)
        assert len(copy) == len(rows)


def test_the_published_sizes() -> None:
    """Totals and classes as in the tables of the published repository."""
    sums: dict[str, list[int]] = {}
    for scenario, (pairs, lists) in SCENARIOS.items():
        for name in (scenario.split("/")[0], "/".join(scenario.split("/")[:2])):
            total = sums.setdefault(name, [0, 0])
            total[0] += pairs
            total[1] += lists
    assert len(SCENARIOS) == 49
    assert (sums["Helpfulness"], sums["Harmlessness"]) == ([10067, 2109], [7064, 1677])
    assert (sums["Helpfulness/Generation"], sums["Helpfulness/Brainstorming"]) == ([1109, 225], [949, 187])
    assert sum(PAIRWISE.versions[0].rows.values()) == 17131
    assert sum(BEST_OF_N.versions[0].rows.values()) == 3786


def test_a_file_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(tmp_path / "S1.json", [listed(n, CRIMES, 2) for n in range(4)])
    rows = [{"id": str(n), "chosen": [5], "rejected": [n, 2]} for n in range(4)]
    rows[3]["rejected"] = [None, 2]  # an invalid score
    write_jsonl(tmp_path / "scores.jsonl", rows)
    command = ["benchmark", "benchmark=rmb_best_of_n", "--data", str(tmp_path / "S1.json"), "--json"]
    assert main([*command, "--scores", str(tmp_path / "scores.jsonl")]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["benchmark"], shown["accuracy"], shown["invalid"]) == ("rmb_best_of_n", 75, 1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([pair(1, CODE), pair(2, CODE, reject=None)], r"Documentation\.json', row 2 lacks reject"),
        ([pair(1, "Helpfulness/Codes/X")], "row 1: scenario 'Helpfulness/Codes/X' is unknown"),
        ([pair(1, CODE, chosen={"text": "good"})], "row 1 is not as published: KeyError 'answer'"),
        ([pair(1, CODE, chosen="good")], "row 1 is not as published: TypeError"),
        ([pair(1, CODE, chosen=answer(None))], "row 1 is not as published: TypeError None is no text"),  # type: ignore[arg-type]
        ([pair(1, CODE, conversation_input=[{"role": "user"}])], "row 1: the prompt is neither"),
        ([pair(1, CODE), pair(1, CHAT)], r"row 1 repeats the id '1'"),
        ([pair(1, CODE, reject=[])], r"row 1 \('1'\) has no prompt with two completions or more"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, rows: list[dict], message: str) -> None:
    folder = published(tmp_path, rows)
    with pytest.raises(DataError, match=message):
        PAIRWISE.load({"all": folder})


def test_a_copy_out_of_form_and_a_folder_without_data(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"There is no \.json file in .*empty"):
        PAIRWISE.load({"all": str(tmp_path / "empty")})
    file = tmp_path / "copy.parquet"
    row = {"uid": "1", "conversation": turns(1), "preferred_index": 2, "category_path": f"x/{CODE}"}
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist([row | {"responses": [answer("a"), answer("b")]}]), file
    )
    with pytest.raises(DataError, match=r"copy\.parquet', row 1 is not as published: IndexError"):
        PAIRWISE.load({"all": str(file)})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), file)
    with pytest.raises(DataError, match=r"copy\.parquet', row 1 lacks responses"):
        PAIRWISE.load({"all": str(file)})


LISTS = st.lists(
    st.tuples(st.sampled_from([CODE, CHAT, CRIMES]), st.lists(st.integers(-3, 3), min_size=2, max_size=5)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=50)
@given(LISTS)
def test_only_the_order_of_scores_counts(batch: list[tuple[str, list[int]]]) -> None:
    items = [item(n, scenario, len(score) - 1) for n, (scenario, score) in enumerate(batch)]
    scores = [np.array(score, dtype=float) for _, score in batch]
    plain = summarise(items, scores)
    bent = summarise(items, [np.exp(score) - 5 for score in scores])
    assert (plain.accuracy, plain.subsets) == (bent.accuracy, bent.subsets)
    back = summarise(items[::-1], scores[::-1])
    assert back.subsets == pytest.approx(plain.subsets)
    goals: dict[str, list[bool]] = {}
    for scenario, (best, *others) in batch:
        goals.setdefault(scenario[:4], []).append(best > max(others))
    shares = [sum(right) / len(right) for right in goals.values()]
    assert plain.accuracy == pytest.approx(100 * sum(shares) / len(shares))
    assert plain.low <= plain.accuracy <= plain.high


def test_a_perfect_scorer_and_a_reversed_one() -> None:
    items = [item(n, scenario, 1 + n % 5) for n, scenario in enumerate(SCENARIOS)]
    best = [np.array(one.labels) for one in items]
    perfect = summarise(items, best)
    assert perfect.accuracy == 100
    assert set(perfect.subsets.values()) == {100}
    assert summarise(items, [-score for score in best]).accuracy == 0
