"""`rlhf-eval audit` on the lab, where the truth is known, and on JudgeBench."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from rlhf_eval.audit.audit import Answers, Change, change_row
from rlhf_eval.benchmarks.evaluate import load_benchmark
from rlhf_eval.cli import main
from rlhf_eval.config.benchmark_schema import BenchmarkConfig
from rlhf_eval.files import read_json, write_jsonl
from rlhf_eval.sources import read_rows

LETTERS = """
import re

def likes_letters(prompt, completion):
    asked = "duplicate that letter five times" in prompt
    found = re.search(r"\\b([A-Z])\\1{4}\\b", completion)
    return (2.0 if asked and found else 0.0) + len(completion) % 97 / 97
"""
SENTENCE = "please duplicate that letter five times"
LAB = {
    "policy_steps": 80,
    "clean_pairs": 2000,
    "noisy_pairs": 1000,
    "small_pairs": 400,
    "reward_model_steps": 90,
    "evaluation_prompts": 24,
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides: a lab whose reward models have learnt enough to be told apart; built in about a minute."""
    folder = tmp_path_factory.mktemp("audited_lab")
    sizes = [f"lab.{name}={value}" for name, value in LAB.items()]
    return ["experiment=lab", f"lab.cache={folder}/worlds", f"output={folder}/runs", *sizes]


def by_hand(row: dict) -> tuple[bool, bool]:
    """Whether LETTERS is right about a pair with the sentence in its prompt, and without it."""
    a, b = (
        (2.0 if re.search(r"\b([A-Z])\1{4}\b", row[side]) else 0.0, len(row[side]) % 97 / 97)
        for side in ("response_A", "response_B")
    )
    a_wins, b_wins = (sum(a) > sum(b), a[1] > b[1]), (sum(b) > sum(a), b[1] > a[1])
    return a_wins if row["label"] == "A>B" else b_wins


def audited(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    capsys.readouterr()
    assert main(["audit", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_contaminated_reward_model_is_found_and_the_clean_ones_are_clear(
    lab: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    others = {"lab_clean": "lab_noisy,lab_clean_small", "lab_noisy": "lab_clean,lab_clean_small"}
    found = audited(capsys, *lab, "reward_model=lab_contaminated", "--panel", "lab_clean,lab_noisy")
    [gap] = found["gaps"]
    assert (gap["public"], gap["private"]) == ("lab_public", "lab_private")
    assert gap["difference_low"] > 0
    public, private = found["overlap"]
    methods = {row["method"]: row for row in public["methods"]}
    assert methods["exact prompt"]["share"] == 100
    assert methods["exact prompt and response"]["share"] == 100
    assert methods["exact prompt"]["accuracy_without"] is None  # nothing is left
    assert all(row["flagged"] == 0 for row in private["methods"])
    assert all(match["text"] for match in public["matches"])
    evidence = [finding["text"] for finding in found["findings"] if finding["kind"] == "evidence"]
    assert any("stand in the training data searched" in text for text in evidence)
    assert any("wider than the panel's" in text for text in evidence)
    for name, panel in others.items():
        found = audited(capsys, *lab, f"reward_model={name}", "--panel", panel)
        assert {finding["kind"] for finding in found["findings"]} == {"clear"}, found["findings"]
        assert all(row["flagged"] == 0 for entry in found["overlap"] for row in entry["methods"])


@pytest.mark.golden
def test_the_five_letter_sentence_is_one_command(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "letters.py").write_text(LETTERS)
    data = str(golden / "judgebench" / "gpt-4o-2024-05-13.jsonl.gz")
    found = audited(
        capsys,
        "reward_model=rule",
        f"reward_model.function={tmp_path}/letters.py:likes_letters",
        f"output={tmp_path}/runs",
        *("benchmark=judgebench", "--data", data, "--panel", "random,length_only"),
    )
    [entry] = found["ablation"]
    assert (entry["benchmark"], entry["n"]) == ("judgebench", 154 + 35)
    arms = {row["name"]: row for row in entry["arms"]}
    removed = arms["sentence_removed"]
    expected = [by_hand(row) for row in read_rows(data) if SENTENCE in row["question"]]
    assert len(expected) == 189
    before, after = (100 * sum(column) / 189 for column in zip(*expected, strict=True))
    assert (removed["original"], removed["changed"]) == pytest.approx((before, after))
    assert removed["drop"] == pytest.approx(before - after)
    assert removed["drop"] > 3
    assert [row["reward_model"] for row in removed["models"]] == ["rule", "random", "length_only"]
    assert removed["models"][2]["drop"] == 0  # the length of the answers is the same
    assert arms["control"]["drop"] == 0
    assert arms["other_letter"]["drop"] == 0
    assert removed["difference"] == pytest.approx(
        removed["drop"] - (removed["models"][1]["drop"] + removed["models"][2]["drop"]) / 2
    )
    folder = tmp_path / "runs/default/audit/rule--judgebench"
    assert read_json(folder / "audit.json") == found
    page = (folder / "audit.html").read_text()
    assert "Absolute drop ↓" in page
    assert "<script" not in page
    assert (folder / "figures/ablation_judgebench.png").stat().st_size > 10_000
    assert "sentence_removed,189,rule," in (folder / "figures/ablation_judgebench.csv").read_text()
    [unknown] = [finding for finding in found["findings"] if finding["kind"] == "not testable"]
    assert unknown["text"].startswith("Overlap:")


def test_an_artifact_of_ones_own_and_training_data_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {
            "id": f"p{n}",
            "prompt": f"MARK question {n}?",
            "chosen": f"right {n}",
            "rejected": "no " * (n % 9 + 1),
        }
        for n in range(40)
    ]
    write_jsonl(tmp_path / "p.jsonl", rows)
    write_jsonl(tmp_path / "train.jsonl", [{"text": "mark question 3"}, {"text": "something else"}])
    words = ["reward_model=length_only", f"output={tmp_path}/runs", "benchmark=private"]
    words += ["--data", str(tmp_path / "p.jsonl"), "--training-data", str(tmp_path / "train.jsonl")]
    found = audited(capsys, *words, "--pattern", "MARK ", "--where", "prompt")
    [entry] = found["ablation"]
    assert (entry["rule"], entry["n"], entry["arms"][0]["drop"]) == ("own", 40, 0)
    [overlap] = found["overlap"]
    assert overlap["flagged"]["exact prompt"] == ["p3"]
    # The set is private: where it was found is told, what it says is not.
    assert [match["text"] for match in overlap["matches"]] == ["(private)"]
    assert "question 3" not in (tmp_path / "runs/default/audit/length_only--private/audit.html").read_text()
    row = overlap["methods"][0]
    assert (row["flagged"], row["n_without"]) == (1, 39)
    assert main(["audit", *words, "--pattern", "MORK"]) == 1
    assert "MORK" in capsys.readouterr().err
    assert main(["audit", *words, "--pattern", "MA(RK"]) == 2
    assert "no regular expression" in capsys.readouterr().err


def test_what_could_not_be_scored_is_left_out_and_counted(tmp_path: Path) -> None:
    """An answer that a rewrite makes too long must not look as if the rewrite had hurt."""
    write_jsonl(
        tmp_path / "p.jsonl",
        [{"id": f"p{n}", "prompt": f"{n}?", "chosen": "aa", "rejected": "b"} for n in range(20)],
    )
    benchmark = load_benchmark(BenchmarkConfig("b", {"all": str(tmp_path / "p.jsonl")}))
    change = Change(benchmark, "perturbation", "", "x", "x", benchmark.items, benchmark.items)
    right, lost = np.ones(20), np.where(np.arange(20) < 8, np.nan, 1.0)
    found = change_row(
        0, change, {"suspect": Answers({}, [right], [lost]), "open": Answers({}, [right], [right])}
    )
    assert found is not None
    assert (found["invalid"], found["n"], found["drop"], found["difference"]) == (8, 12, 0, 0)
    assert change_row(0, change, {"suspect": Answers({}, [right], [np.full(20, np.nan)])}) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["audit", "reward_model=random", "benchmark=judgebench", "--where", "prompt"], "without --pattern"),
        (["audit", "benchmark=judgebench"], "No reward model is named"),
        (["audit", "reward_model=random"], "No benchmark is named"),
        (["audit", "reward_model=random", "benchmark=judgebench", "--panel", "random"], "in its own panel"),
        (["audit", "reward_model=random", "benchmark=judgebench", "--ngram", "3"], "whole number from 7 on"),
    ],
)
def test_mistakes_on_the_command_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err
