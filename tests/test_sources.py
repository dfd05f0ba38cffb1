"""Data named in a configuration: formats, compression, and what a malformed file says."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_eval.config.compose import compose
from rlhf_eval.errors import ConfigError, DataError
from rlhf_eval.sources import localise, read_rows

ROWS = [{"id": "1", "text": "Ünïcode\u2028 in one line"}, {"id": "2", "text": 'quotes "and", commas\nlines'}]


def write(path: Path, rows: list[dict]) -> Path:
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[1]
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    if kind == "json":
        text = json.dumps(rows)
    elif kind == "jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        import csv
        import io

        table = io.StringIO()
        writer = csv.DictWriter(table, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        text = table.getvalue()
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize(
    "name", ["a.json", "a.jsonl", "a.csv", "a.parquet", "a.json.gz", "a.jsonl.gz", "a.csv.gz"]
)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    assert read_rows(str(write(tmp_path / name, ROWS))) == ROWS


@given(
    rows=st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.none(), min_size=1), max_size=5)
)
def test_any_json_lines_come_back(tmp_path_factory: pytest.TempPathFactory, rows: list[dict]) -> None:
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    assert read_rows(str(write(path, rows))) == rows


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"id": 1}\n{"id": \n', r"a\.jsonl', line 2 is malformed JSON"),
        ("a.jsonl", '{"id": 1}\n[1]\n', r"line 2 is no JSON object"),
        ("a.json", '{"id": 1}', "does not hold a JSON list"),
        ("a.yaml", "id: 1", r"known file type[\s\S]*\.parquet"),
    ],
)
def test_a_malformed_file_is_named_by_place(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_rows(str(tmp_path / name))


def test_an_absent_file_is_named_with_the_folder_looked_in(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nix\.jsonl' \(looked in /"):
        read_rows(str(tmp_path / "nix.jsonl"))


def test_the_hub_out_of_reach_names_data_set_and_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"'a/b\.json' of the hub data set org/name@abc123 could not be had"):
        read_rows("hf://datasets/org/name@abc123/a/b.json")


def test_only_the_executed_copy_names_paths_of_this_machine(tmp_path: Path) -> None:
    config = compose(["experiment=lab", "reward_model=lab_flipped"])
    here = localise(config, tmp_path)
    assert here.policy.model == f"{tmp_path}/policy"
    assert here.reward_model.inner is not None
    assert here.reward_model.inner.model.startswith(str(tmp_path))
    assert here.benchmarks["lab_public"].data["all"] == f"{tmp_path}/data/benchmarks/public.jsonl"
    assert str(tmp_path) not in repr(config)
    with pytest.raises(ConfigError, match=r"lab:policy.*no `lab` section"):
        localise(config.policy, None)
