"""Files survive kills: whole or not there, and at most the line being written is lost."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_eval import files
from rlhf_eval.errors import DataError

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)
ROWS = st.lists(st.dictionaries(st.text(min_size=1), JSON_VALUES, min_size=1, max_size=3), max_size=5)


def test_json_comes_back_as_written(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None], "a": "ünïcode \u2028 🐟"}
    files.write_json(tmp_path / "deep" / "value.json", value)
    assert files.read_json(tmp_path / "deep" / "value.json") == value
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "value.json"]


@given(rows=ROWS, next_row=st.dictionaries(st.text(min_size=1), JSON_VALUES, min_size=1), data=st.data())
def test_cut_anywhere_loses_at_most_one_line(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict], next_row: dict, data: st.DataObject
) -> None:
    """A segment cut at any byte reads as a prefix of its rows, and takes further rows."""
    path = tmp_path_factory.mktemp("segment") / "rows.jsonl"
    files.write_jsonl(path, rows)
    content = path.read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    whole_lines = content[:cut].count(b"\n")
    kept = files.read_jsonl(path)
    assert kept == rows[: len(kept)]
    assert whole_lines <= len(kept) <= whole_lines + 1
    files.append_jsonl(path, next_row)
    assert files.read_jsonl(path) == [*kept, next_row]


def test_long_torn_line_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    files.append_jsonl(path, {"n": 1})
    with path.open("a") as stream:
        stream.write('{"text": "' + "x" * 200_000)
    files.append_jsonl(path, {"n": 2})
    assert files.read_jsonl(path) == [{"n": 1}, {"n": 2}]


def test_malformed_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 1}\n{"n": \n{"n": 3}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl, line 2"):
        files.read_jsonl(path)


@pytest.mark.parametrize("content", [None, "{", "\x00\x00"])
def test_absent_or_malformed_json_is_a_data_error(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "value.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=r"value\.json"):
        files.read_json(path)


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    files.write_jsonl(path, [{"n": 1}])

    def rows():
        yield {"n": 2}
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        files.write_jsonl(path, rows())
    assert files.read_jsonl(path) == [{"n": 1}]
    assert list(tmp_path.iterdir()) == [path]


def test_reader_never_sees_half_a_file_while_a_killed_writer_replaces_it(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    program = (
        "import sys; from pathlib import Path; from rlhf_eval import files\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1; files.write_json(Path(sys.argv[1]), {'n': n, 'again': [n] * 5000})\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, str(path)])
    try:
        deadline = time.monotonic() + 20
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        for _ in range(100):
            value = files.read_json(path)
            assert value["again"] == [value["n"]] * 5000
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert files.read_json(path)["n"] > 0


@given(JSON_VALUES)
def test_json_hash_ignores_key_order(value) -> None:
    shuffled = json.loads(json.dumps(value, sort_keys=True))
    assert files.sha256_json(value) == files.sha256_json(shuffled)


def test_hashes_are_sha256(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert files.sha256_file(tmp_path / "empty") == empty
    assert files.sha256_json({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
