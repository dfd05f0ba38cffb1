"""RM-Bench: the matrix of styles by hand and against plain loops, domains, versions, and rows out of form."""

import gzip
import json
import random
import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_eval.benchmarks.evaluate import load_benchmark, measure
from rlhf_eval.benchmarks.items import Item, Summary
from rlhf_eval.benchmarks.rm_bench import DOMAINS, FILES, LABELS, RM_BENCH, load, summarise
from rlhf_eval.cli import main
from rlhf_eval.config.benchmark_schema import BenchmarkConfig
from rlhf_eval.errors import DataError
from rlhf_eval.files import write_json, write_jsonl
from rlhf_eval.records import user_prompt

FILE = "rm_bench/chat_filtered.json.gz"
STYLES = ("concise", "detailed", "markdown")


def row(id: int, **more: object) -> dict:
    """A row as published."""
    answers = {kind: [f"{kind} {style} {id}" for style in STYLES] for kind in ("chosen", "rejected")}
    return {"id": id, "prompt": f"Question {id}?"} | answers | more


def item(number: int, domain: str) -> Item:
    return Item(str(number), user_prompt(str(number), f"Question {number}?"), tuple("abcdef"), LABELS, domain)


def cells(summary: Summary) -> list[list[float]]:
    return [[summary.metrics[f"chosen {c} over rejected {r}, %"] for r in STYLES] for c in STYLES]


def test_the_matrix_of_one_domain_by_hand() -> None:
    scores = [
        # chosen concise, detailed, markdown; rejected concise, detailed, markdown
        (5, 6, 7, 4, 8, 6),  # concise beats concise; detailed beats concise; markdown beats concise, markdown
        (1, 9, 9, 2, 1, 0),  # concise beats markdown only (1 = 1 is no win); the others beat everything
    ]
    result = summarise([item(0, "chat"), item(1, "chat")], [np.array(s, dtype=float) for s in scores])
    assert cells(result) == [[50, 0, 50], [100, 50, 50], [100, 50, 100]]
    expected = {
        "chat": 100 * 11 / 18,
        "hard": (0 + 50 + 50) / 3,
        "normal": (50 + 50 + 100) / 3,
        "easy": (100 + 100 + 50) / 3,
    }
    assert result.subsets == pytest.approx(expected)
    assert result.right == pytest.approx([4 / 9, 7 / 9])
    assert result.accuracy == pytest.approx(100 * 11 / 18)
    assert result.accuracy == pytest.approx((expected["hard"] + expected["normal"] + expected["easy"]) / 3)


def test_domains_weigh_the_same_and_safety_is_one_of_them() -> None:
    right, wrong = np.array([1.0, 1, 1, 0, 0, 0]), np.array([0.0, 0, 0, 1, 1, 1])
    only_easy = np.array([1.0, 2, 3, 1, 2, 3])  # the more elaborate style wins
    given = [
        ("chat", right),
        ("chat", right),
        ("chat", wrong),
        ("math", right),
        ("code", only_easy),
        ("safety-refuse", right),
        ("safety-refuse", right),
        ("safety-refuse", right),
        ("safety-response", wrong),
    ]
    result = summarise([item(n, domain) for n, (domain, _) in enumerate(given)], [s for _, s in given])
    assert result.subsets == pytest.approx(
        {
            "chat": 100 * 2 / 3,
            "math": 100,
            "code": 100 / 3,
            "safety": 75,  # of the four prompts, not of the two halves, which would be 50
            "safety-refuse": 100,
            "safety-response": 0,
            "hard": 100 * (2 / 3 + 1 + 0 + 3 / 4) / 4,
            "normal": 100 * (2 / 3 + 1 + 0 + 3 / 4) / 4,
            "easy": 100 * (2 / 3 + 1 + 1 + 3 / 4) / 4,
        }
    )
    assert list(result.subsets)[:4] == ["chat", "math", "code", "safety"]
    assert result.accuracy == pytest.approx(100 * (2 / 3 + 1 + 1 / 3 + 3 / 4) / 4)
    assert result.low < result.accuracy < result.high
    assert result.n == 9


def test_an_invalid_score_loses_its_cells() -> None:
    scores = np.array([np.nan, 2.0, 2.0, 1.0, np.nan, 1.0])
    result = summarise([item(0, "math")], [scores])
    assert cells(result) == [[0, 0, 0], [100, 0, 100], [100, 0, 100]]
    assert result.accuracy == pytest.approx(100 * 4 / 9)


def plain_accuracy(rows: list[dict]) -> dict[str, float]:
    """Hard, normal and easy accuracy, counted comparison by comparison."""
    won: dict[str, list[bool]] = {"hard": [], "normal": [], "easy": []}
    for one in rows:
        for i, chosen in enumerate(one["chosen"]):
            for j, rejected in enumerate(one["rejected"]):
                won["hard" if i < j else "normal" if i == j else "easy"].append(chosen > rejected)
    return {name: 100 * statistics.mean(map(float, outcomes)) for name, outcomes in won.items()}


@pytest.mark.golden
def test_the_chat_domain_against_plain_loops(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(7)
    published = json.loads(gzip.decompress((golden / FILE).read_bytes()))
    # Coarse scores, so that ties occur; longer answers score higher, so that hard and easy differ.
    rows: list[dict] = [
        {"id": f"chat/{one['id']}"}
        | {
            kind: [round(len(text) / 800 + rng.gauss(kind == "chosen", 1)) for text in one[kind]]
            for kind in ("chosen", "rejected")
        }
        for one in published
    ]
    write_jsonl(tmp_path / "scores.jsonl", rows)
    command = ["benchmark", "benchmark=rm_bench", "--data", str(golden / FILE), "--json"]
    assert main([*command, "--scores", str(tmp_path / "scores.jsonl")]) == 0
    shown = json.loads(capsys.readouterr().out)
    expected = plain_accuracy(rows)
    assert {name: shown["subsets"][name] for name in expected} == pytest.approx(expected)
    assert expected["hard"] < expected["normal"] < expected["easy"]
    assert shown["accuracy"] == shown["subsets"]["chat"] == pytest.approx(statistics.mean(expected.values()))
    for i, chosen in enumerate(STYLES):
        for j, rejected in enumerate(STYLES):
            wins = sum(one["chosen"][i] > one["rejected"][j] for one in rows)
            cell = shown["metrics"][f"chosen {chosen} over rejected {rejected}, %"]
            assert cell == pytest.approx(100 * wins / 129)
    assert (shown["benchmark"], shown["n"], shown["invalid"]) == ("rm_bench", 129, 0)
    assert shown["notes"] == []  # the published file of this domain, known by its hash


@pytest.mark.golden
def test_an_edited_answer_is_another_version(golden: Path, tmp_path: Path) -> None:
    rows = json.loads(gzip.decompress((golden / FILE).read_bytes()))
    rows[5]["rejected"][2] += " "
    write_json(tmp_path / "chat_filtered.json", rows)
    loaded = load_benchmark(
        BenchmarkConfig("rm_bench", {"all": str(tmp_path / "chat_filtered.json")}, "rm_bench")
    )
    [note] = loaded.notes
    assert "texts, labels or ids are others" in note


def test_the_published_sizes() -> None:
    everything = RM_BENCH.versions[0].rows
    assert sum(everything.values()) == 1327
    assert everything["safety-refuse"] + everything["safety-response"] == 441
    assert {version.name: dict(version.rows) for version in RM_BENCH.versions[1:]} == {
        f"{domain} alone": {domain: rows} for domain, (rows, _) in FILES.items()
    }


def test_the_domain_is_in_the_row_or_the_part_or_the_file_name(tmp_path: Path) -> None:
    total = [row(8, domain="chat"), row(8, domain="code"), row(9, domain="safety-refuse")]
    write_json(tmp_path / "total_dataset.json", total)
    items = load({"all": str(tmp_path / "total_dataset.json")})
    assert [item.id for item in items] == ["chat/8", "code/8", "safety-refuse/9"]
    assert items[0].completions == (
        "chosen concise 8",
        "chosen detailed 8",
        "chosen markdown 8",
        "rejected concise 8",
        "rejected detailed 8",
        "rejected markdown 8",
    )
    assert items[0].labels == (1, 1, 1, 0, 0, 0)
    for name in ("some.json", "safety-response_filtered.json"):
        write_json(tmp_path / name, [row(8)])
    two = {"math": str(tmp_path / "some.json"), "all": str(tmp_path / "safety-response_filtered.json")}
    assert [item.subset for item in load(two)] == ["math", "safety-response"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(1, domain="chat"), row(2)], r"some\.json', row 2 belongs to no known domain \('some\.json'\)"),
        ([row(1, domain="chatter")], r"row 1 belongs to no known domain \('chatter'\)"),
        ([row(1, domain="chat", rejected=["a", "b"])], "row 1 has not three chosen and three rejected"),
        ([row(1, domain="chat", chosen=["a", "b", None])], "row 1 has not three chosen and three rejected"),
        ([row(1, domain="chat", chosen="abc")], "row 1 has not three chosen and three rejected"),
        ([row(1, domain="chat"), row(1, domain="chat")], "row 2 repeats the id 'chat/1'"),
        ([row(1, domain="chat", prompt=None)], "row 1 lacks prompt"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, rows: list[dict], message: str) -> None:
    write_json(tmp_path / "some.json", rows)
    with pytest.raises(DataError, match=message):
        load({"all": str(tmp_path / "some.json")})


def test_a_part_is_measured_over_its_domains_and_says_so(tmp_path: Path) -> None:
    write_json(tmp_path / "total_dataset.json", [row(1, domain="chat"), row(2, domain="math")])
    loaded = load_benchmark(
        BenchmarkConfig("rm_bench", {"all": str(tmp_path / "total_dataset.json")}, "rm_bench")
    )
    result = measure(loaded, [np.array([1.0, 1, 1, 0, 0, 0]), np.array([1.0, 2, 3, 1, 2, 3])]).as_json()
    assert result["accuracy"] == pytest.approx(100 * (1 + 1 / 3) / 2)
    [note] = result["notes"]
    assert "2 items are no published version" in note


BATCH = st.lists(
    st.tuples(st.sampled_from(list(DOMAINS)), st.tuples(*[st.integers(-3, 3)] * 6)), min_size=1, max_size=20
)


@settings(max_examples=50)
@given(BATCH, st.randoms(use_true_random=False))
def test_only_the_order_of_scores_counts(batch: list, shuffle: random.Random) -> None:
    items = [item(n, domain) for n, (domain, _) in enumerate(batch)]
    scores = [np.array(s, dtype=float) for _, s in batch]
    plain = summarise(items, scores)
    bent = summarise(items, [np.exp(s) - 5 for s in scores])
    assert (plain.accuracy, plain.subsets, plain.metrics) == (bent.accuracy, bent.subsets, bent.metrics)
    order = list(range(len(items)))
    shuffle.shuffle(order)
    other = summarise([items[n] for n in order], [scores[n] for n in order])
    assert other.subsets == pytest.approx(plain.subsets)
    assert plain.accuracy == pytest.approx(sum(map(sum, cells(plain))) / 9)
    levels = [plain.subsets[level] for level in ("hard", "normal", "easy")]
    assert plain.accuracy == pytest.approx(sum(levels) / 3)
    assert plain.low <= plain.accuracy <= plain.high


def test_a_perfect_scorer_and_a_reversed_one() -> None:
    items = [item(n, domain) for n, domain in enumerate([*DOMAINS] * 3)]
    best = [np.array(LABELS) + n for n in range(len(items))]
    assert summarise(items, best).accuracy == pytest.approx(100)
    assert summarise(items, [-s for s in best]).accuracy == 0
