"""`rlhf-eval table` as a user meets it."""

import io
import json
from pathlib import Path

import pandas as pd
import pytest

from rlhf_eval.analysis import runs_table
from rlhf_eval.cli import main
from rlhf_eval.config.compose import compose, freeze, run_name
from rlhf_eval.files import write_json, write_jsonl, write_text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two runs: one scored, one that has failed with a message that is awkward in a table."""
    for reward_model in ("lab_clean", "random"):
        config = compose(["experiment=lab", f"reward_model={reward_model}"])
        path = tmp_path / "lab" / run_name(config)
        write_text(path / "config.yaml", freeze(config))
        row = {"kind": "checkpoint", "kl": 1 / 3, "proxy_reward": 1.0, "gold_reward": None}
        write_jsonl(path / "metrics.jsonl", [row | {"step": step, "length_tokens": 9.5} for step in (0, 10)])
        if reward_model == "random":
            write_json(path / "status.json", {"state": "failed", "error": 'a | "b",\nc'})
            continue
        write_json(path / "stages/score/scores.json", {"alpaca_eval": {"win_rate": 200 / 3, "n": 3}})
        write_jsonl(path / "stages/score/per_prompt.jsonl", [])
        write_json(path / "stages/score/done.json", {})
    return tmp_path / "lab"


def shown(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["table", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_csv_is_the_default_and_keeps_every_digit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.read_csv(io.StringIO(shown(capsys, folder)))
    assert list(table) == list(runs_table(folder))
    assert table["reward_model"].tolist() == ["lab_clean", "lab_clean", "random", "random"]
    assert table["kl"].tolist() == [1 / 3] * 4
    assert table["alpaca_eval.win_rate"].tolist()[1] == 200 / 3
    assert table["state"].tolist()[3] == 'failed: a | "b",\nc'


def test_json_is_a_list_of_rows_with_null_for_what_is_missing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    rows = json.loads(shown(capsys, folder, "--format", "json"), parse_constant=refuse)
    assert [row["step"] for row in rows] == [0, 10, 0, 10]
    assert (rows[1]["alpaca_eval.win_rate"], rows[1]["alpaca_eval.n"], rows[1]["final"]) == (200 / 3, 3, True)
    assert rows[0]["alpaca_eval.win_rate"] is None
    assert list(rows[0]) == list(runs_table(folder))


def test_markdown_has_one_line_a_row(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header, rule, *rows = shown(capsys, folder, "--format", "md").splitlines()
    columns = len(runs_table(folder).columns)
    assert header.count("|") == rule.count("|") == columns + 1
    assert len(rows) == 4
    assert all(row.replace("\\|", "").count("|") == columns + 1 for row in rows)
    assert 'failed: a \\| "b", c' in rows[3]


@pytest.mark.parametrize("format", ["csv", "json", "md", "parquet"])
def test_a_file_holds_what_is_shown(folder: Path, capsys: pytest.CaptureFixture[str], format: str) -> None:
    output = folder.parent / "new" / f"runs.{format}"
    assert shown(capsys, folder, "--format", format, "--output", output) == ""
    assert [file.name for file in output.parent.iterdir()] == [output.name]
    if format == "parquet":
        pd.testing.assert_frame_equal(pd.read_parquet(output), runs_table(folder))
    else:
        assert output.read_text() == shown(capsys, folder, "--format", format)


def test_columns_are_described(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(shown(capsys, folder, "--columns", "--format", "json"))
    assert [row["column"] for row in rows] == list(runs_table(folder))
    kl = next(row for row in rows if row["column"] == "kl")
    assert (kl["dtype"], kl["unit"], kl["of"]) == ("Float64", "nats", "checkpoint")


def test_errors_name_their_cure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [
        (2, [str(folder), "--format", "parquet"], "--output runs.parquet"),
        (2, [str(folder), "--format", "xlsx"], "invalid choice: 'xlsx'"),
        (2, [str(folder), "--output", str(folder)], "is a folder"),
        (1, [str(folder.parent / "labb")], "Known: lab"),
        (1, [str(folder / "shared")], "Known:"),
    ]
    for code, arguments, message in cases:
        assert main(["table", *arguments]) == code
        assert message in capsys.readouterr().err
