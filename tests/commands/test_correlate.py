"""`rlhf-eval correlate` as a user meets it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.cli import main

KEYS = {"estimate", "low", "high", "p", "leave_one_out_low", "leave_one_out_high", "most_influential"}
ROWS = "name,accuracy,score,family\n" + "".join(
    f"rm{i},{60 + i * i},{20 + 3 * i + i % 3},{'ab'[i % 2]}\n" for i in range(6)
)
Correlated = Callable[..., dict[str, Any]]


@pytest.fixture
def correlated(capsys: pytest.CaptureFixture[str]) -> Correlated:
    """A function: arguments → the JSON printed."""

    def run(*arguments: object) -> dict[str, Any]:
        assert main(["correlate", *map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "some table.csv"
    path.write_text(ROWS, "utf-8")
    return path


@pytest.mark.golden
def test_rewardbench2_against_ppo_and_best_of_n(golden: Path, correlated: Correlated) -> None:
    """golden/README.md: Pearson .72, Spearman −.04, .21 without model 12, −.72 without the weak; BoN .92."""
    file = golden / "published" / "rewardbench2_fig4_downstream.csv"
    axes = ("--table", file, "--x", "rewardbench2", "--y")
    ppo = correlated(*axes, "ppo_average", "--group", "group", "--label", "model_id")
    assert ppo["n"] == 17
    assert round(ppo["pearson"]["estimate"], 2) == 0.72
    assert round(ppo["spearman"]["estimate"], 2) == -0.04
    assert ppo["pearson"]["most_influential"] == "12"
    assert round(ppo["pearson"]["leave_one_out_low"], 2) == 0.21
    assert "hangs on one point" in ppo["warning"]
    without = {subset["label"]: subset for subset in ppo["groups"]}
    assert without["without on_policy_weak"]["n"] == 14
    assert round(without["without on_policy_weak"]["pearson"]["estimate"], 2) == -0.72
    best_of_n = correlated(*axes, "best_of_n_average")
    assert round(best_of_n["pearson"]["estimate"], 2) == 0.92
    assert correlated(*axes, "ppo_average")["pearson"]["most_influential"] == "12", "rows are numbered"


def test_the_json_of_a_table(table: Path, correlated: Correlated) -> None:
    found = correlated("--table", table, "--x", "accuracy", "--y", "score")
    assert found["n"] == 6
    for name in ("pearson", "spearman", "kendall"):
        assert set(found[name]) == KEYS
        assert found[name]["most_influential"].startswith("rm"), (
            "labelled by the first column of distinct text"
        )
    assert found["groups"] == []
    grouped = correlated("--table", table, "--x", "accuracy", "--y", "score", "--group", "family")
    labels = [subset["label"] for subset in grouped["groups"]]
    assert labels == ["without a", "without b", "within groups", "across groups"]


def test_two_rows_are_undefined_and_missing_cells_left_out(table: Path, correlated: Correlated) -> None:
    table.write_text("\n".join(["x,y", "1,2", "2,3", "3,NaN", ",4", "5,n/a"]), "utf-8-sig")
    found = correlated("--table", table, "--x", "x", "--y", "y")
    assert (found["n"], found["left_out"]) == (2, 3)
    assert set(found["pearson"].values()) == {None}
    assert "fewer than three" in found["warning"]


def test_the_terminal_says_what_is_known(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["correlate", "--table", str(table), "--x", "accuracy", "--y", "score", "--group", "family"])
        == 0
    )
    shown = capsys.readouterr().out
    for words in ("Pearson", "Kendall", "within groups", "without a", "Only 6 reward models", "0.81"):
        assert words in shown


@pytest.mark.parametrize(
    ("content", "arguments", "words"),
    [
        (ROWS, "--x acuracy --y score", "Did you mean 'accuracy'"),
        (ROWS, "--x accuracy --y score --label nam", "Did you mean 'name'"),
        (ROWS, "--x accuracy --y name", "holds no numbers"),
        (ROWS, "--x accuracy --y accuracy", "Both axes are the column"),
        (ROWS, "--x accuracy", "needs --x and --y"),
        (ROWS, "--x accuracy --y score --metric arena_hard.score", "--metric belongs to an experiment"),
        ("", "--x a --y b", "is empty"),
        ("a,b\n", "--x a --y b", "no row beside its header"),
        ("a,b\n1,2\n", "--x a --y b", "one row beside its header"),
        ("a,b\n1,\n,2\n3,\n", "--x a --y b", "a number in both"),
        ("a,b\nnan,1\nnan,2\n", "--x a --y b", "holds no numbers"),
        ("a,b\n1,2\n2,three\n3,4\n", "--x a --y b", "Row 2"),
        ("a,b\n1,2\n2\n", "--x a --y b", "has 1 cells, the header has 2"),
        ("a,a,b\n1,2,3\n2,3,4\n", "--x a --y b", "2 columns 'a'"),
        ("just words\nand more\n", "--x a --y b", "no comma that separates"),
        ('a,b\n"1,2\n', "--x a --y b", "is no CSV file"),
        (b"\x89PNG\xff\xfe\x00", "--x a --y b", "is no CSV file"),
    ],
)  # fmt: skip
def test_bad_tables_are_refused_with_a_cure(
    table: Path, capsys: pytest.CaptureFixture[str], content: str | bytes, arguments: str, words: str
) -> None:
    table.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["correlate", "--table", str(table), *arguments.split()]) in (1, 2)
    shown = capsys.readouterr().err
    assert words in shown
    assert len(shown.strip().splitlines()) == 2, "what is wrong, and the cure"


@pytest.mark.parametrize("arguments", [[], ["runs/lab", "--table", "x.csv"], ["runs/lab", "--x", "a"]])
def test_an_experiment_or_a_table(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["correlate", *arguments]) == 2
    assert "table" in capsys.readouterr().err


def test_no_such_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path / "absent.csv", tmp_path):
        assert main(["correlate", "--table", str(path), "--x", "a", "--y", "b"]) == 1
        assert "There is no file" in capsys.readouterr().err
