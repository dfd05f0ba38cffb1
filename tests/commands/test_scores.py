"""`rlhf-eval score` as a user meets it: published verdicts give the published numbers."""

import csv
import gzip
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from rlhf_eval.cli import main

KEYS = {
    "win_rate",
    "standard_error",
    "length_controlled_win_rate",
    "length_controlled_standard_error",
    "n",
    "judge",
    "regularised",
    "failed",
    "baseline",
    "mean_characters",
}


@pytest.fixture(scope="module")
def assets(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of local copies, named as on the hub."""
    folder = tmp_path_factory.mktemp("assets")
    for name in ("df_gamed.csv", "instruction_difficulty.csv", "alpaca_eval_gpt4_baseline.json.gz"):
        shutil.copy(golden / "alpaca_eval" / name, folder)
    return folder


@pytest.fixture(scope="module")
def published(golden: Path) -> dict[str, list[dict]]:
    """Model → its annotations in AlpacaEval's JSON format, with texts of the published length."""
    folder = golden / "alpaca_eval"
    with gzip.open(folder / "alpaca_eval_gpt4_baseline.json.gz", "rt") as stream:
        instructions = [row["instruction"] for row in json.load(stream)]
    models: dict[str, list[dict]] = {}
    with gzip.open(folder / "annotations.csv.gz", "rt") as stream:
        for row in csv.DictReader(stream):
            models.setdefault(row["model"], []).append(
                {
                    "instruction": instructions[int(row["prompt_index"])],
                    "output_1": "1" * int(row["output_1_chars"]),
                    "generator_1": "gpt4_1106_preview",
                    "output_2": "2" * int(row["output_2_chars"]),
                    "generator_2": row["model"],
                    "annotator": "weighted_alpaca_eval_gpt4_turbo",
                    "preference": float(row["preference"]),
                }
            )
    return models


@pytest.fixture
def scored(tmp_path: Path, assets: Path, capsys: pytest.CaptureFixture[str]):
    """A function: annotations, further arguments → the JSON printed."""

    def run(annotations: list[dict], *arguments: str) -> dict:
        file = tmp_path / "some place" / "annotations.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(annotations))
        options = arguments or ("--assets", str(assets))
        assert main(["score", "alpaca-eval", "--annotations", str(file), *options, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.mark.golden
def test_published_annotations_give_the_leaderboard(golden, published, scored):
    with (golden / "alpaca_eval" / "expected_leaderboard.csv").open() as stream:
        expected = {row["model"]: row for row in csv.DictReader(stream)}
    assert len(published) == len(expected) == 12
    exact = 0
    for model, annotations in published.items():
        found = scored(annotations)
        assert found.keys() >= KEYS
        assert (found["n"], found["failed"], found["regularised"]) == (805, 0, True)
        assert (found["judge"], found["baseline"]) == ("weighted_alpaca_eval_gpt4_turbo", "gpt4_1106_preview")
        assert found["win_rate"] == pytest.approx(float(expected[model]["win_rate"]), abs=1e-9)
        assert found["standard_error"] == pytest.approx(float(expected[model]["standard_error"]), abs=1e-9)
        assert int(found["mean_characters"]) == int(expected[model]["avg_length"])
        apart = abs(found["length_controlled_win_rate"] - float(expected[model]["length_controlled_winrate"]))
        assert apart <= 0.16, model
        exact += apart <= 1e-6
        # Its own row is left out, so the neighbours are those of the published list.
        assert found["leaderboard"]["of"] == 223
        assert scored(annotations) == found
    assert exact >= 10


@pytest.mark.golden
def test_a_shuffled_file_gives_identical_numbers(published, scored):
    annotations = published["claude-2.1"]
    assert scored(random.Random(4).sample(annotations, 805)) == scored(annotations)


@pytest.mark.golden
def test_a_lost_row_shifts_nothing(published, scored):
    annotations = published["claude-2.1"]
    whole, without_one = scored(annotations), scored(annotations[1:])
    assert (without_one["n"], without_one["failed"]) == (804, 1)
    values = [row["preference"] - 1 for row in annotations[1:]]
    assert without_one["win_rate"] == pytest.approx(100 * sum(values) / 804, abs=1e-9)
    as_null = [annotations[0] | {"preference": None}, *annotations[1:]]
    assert scored(as_null) == without_one
    # A join by position moves it by five points: FIELD_NOTES, 25.25 → 30.07.
    apart = without_one["length_controlled_win_rate"] - whole["length_controlled_win_rate"]
    assert abs(apart) < 0.3


@pytest.mark.golden
def test_another_annotator_is_named_and_not_regularised(published, scored, assets, tmp_path, capsys):
    annotations = [row | {"annotator": "my_judge"} for row in published["claude-2.1"]]
    found = scored(annotations)
    assert (found["judge"], found["regularised"]) == ("my_judge", False)
    assert found["length_control"] == "without regulariser, with difficulty"
    assert found["leaderboard"] is None
    file = str(tmp_path / "some place" / "annotations.json")
    assert main(["score", "alpaca-eval", "--annotations", file, "--assets", str(assets)]) == 0
    shown = capsys.readouterr()
    assert "without regulariser" in shown.out
    assert "note: the length-controlled fit has no regulariser" in shown.err


@pytest.mark.golden
def test_without_assets_it_scores_and_says_what_is_lacking(published, tmp_path, capsys):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(published["claude-2.1"]))
    assert main(["score", "alpaca-eval", "--annotations", str(file), "--json"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert found["regularised"] is False
    assert found["length_control"] == "without regulariser, without difficulty"
    assert "--assets" in shown.err


@pytest.mark.golden
def test_the_table_shows_the_neighbours(published, assets, tmp_path, capsys):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(published["claude-2.1"]))
    assert main(["score", "alpaca-eval", "--annotations", str(file), "--assets", str(assets)]) == 0
    shown = capsys.readouterr().out
    assert "rank 90 of 223 by length controlled win rate" in shown
    assert "FuseChat-Llama-3.2-1B-Instruct 25.27" in shown


@pytest.mark.golden
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda rows: rows[:700],
            "105 of 805 prompts (13.0%, allowed are 2.0%): 0 are null, 105 have no row",
        ),
        (
            lambda rows: [row | {"preference": None} for row in rows[:17]] + rows[17:],
            "17 of 805 prompts (2.1%, allowed are 2.0%): 17 are null, 0 have no row",
        ),
        (
            lambda rows: [row | {"instruction": row["instruction"] + " "} for row in rows[:3]] + rows[3:],
            "3 instructions are strange to them",
        ),
        (lambda rows: [*rows, rows[5]], "1 instructions stand more than once"),
        (lambda rows: [*rows[:-1], rows[-1] | {"preference": 2.01}], "Row 804"),
    ],
)
def test_bad_annotations_end_with_the_cause_and_a_cure(published, assets, tmp_path, capsys, spoil, said):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(spoil(published["alpaca-7b"])))
    assert main(["score", "alpaca-eval", "--annotations", str(file), "--assets", str(assets)]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    what, cure = shown.err.splitlines()
    assert said in what
    assert cure.startswith("  ")


@pytest.mark.golden
def test_a_higher_limit_lets_more_failures_pass(published, scored, assets):
    annotations = published["alpaca-7b"][:750]
    found = scored(annotations, "--assets", str(assets), "--max-failed-share", "0.1")
    assert (found["n"], found["failed"]) == (750, 55)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--annotations", "absent.json"], 1, "No file 'absent.json'"),
        ([], 2, "the following arguments are required: --annotations"),
        (["--annotations", "a.json", "--max-failed-share", "2"], 2, "'2' is no share from 0 to 1"),
        (["--annotation", "a.json", "--annotations", "a.json"], 2, "Did you mean '--annotations'"),
    ],
)
def test_wrong_arguments_are_explained(tmp_path, monkeypatch, capsys, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    assert main(["score", "alpaca-eval", *arguments]) == code
    assert said.lower() in capsys.readouterr().err.lower()


def test_a_missing_asset_is_named_with_the_way_to_get_it(tmp_path, capsys):
    file = tmp_path / "a.json"
    row = {"instruction": "a", "output_1": "b", "output_2": "c", "preference": 1.5}
    file.write_text(json.dumps([row]))
    assert main(["score", "alpaca-eval", "--annotations", str(file), "--assets", str(tmp_path)]) == 1
    shown = capsys.readouterr().err
    assert "There is no alpaca_eval_gpt4_baseline.json" in shown
    assert "hf download tatsu-lab/alpaca_eval" in shown


def judgments(labels: Sequence[tuple[str | None, str | None]]) -> str:
    """Arena-Hard's format, one question for each pair of labels; game 0 shows the baseline as A."""
    rows = [
        {
            "uid": f"q{number}",
            "category": "mine",
            "judge": "gpt-4.1",
            "model": "policy",
            "baseline": "base",
            "games": [{"score": label, "judgment": {"answer": f"[[{label}]]"}} for label in pair],
        }
        for number, pair in enumerate(labels)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_arena_hard_judgments_are_scored(tmp_path, capsys):
    file = tmp_path / "policy.jsonl"
    # Battle rows for the policy: 3 wins + 1 win; 1 loss + ½; 1 loss + 3 losses.
    file.write_text(judgments([("B>>A", "A>B"), ("A>B", "A=B"), ("A>B", "B>>A")]))
    assert main(["score", "arena-hard", "--judgments", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n"], found["failed"], found["judge"], found["baseline"]) == (3, 0, "gpt-4.1", "base")
    assert found["score"] == pytest.approx(100 * 4.5 / 10)
    assert main(["score", "arena-hard", "--judgments", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "45.00" in shown
    assert "mine" in shown


def test_failed_arena_hard_judgments_are_refused_above_the_limit(tmp_path, capsys):
    file = tmp_path / "policy.jsonl"
    file.write_text(judgments([("B>A", "A>B")] * 9 + [(None, "A>B")]))
    assert main(["score", "arena-hard", "--judgments", str(file)]) == 1
    assert "1 of 20" in capsys.readouterr().err
    options = ["--judgments", str(file), "--max-failed-share", "0.1", "--json"]
    assert main(["score", "arena-hard", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n"], found["failed"]) == (9, 1)
