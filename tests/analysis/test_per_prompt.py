"""Scores prompt by prompt: read in bulk, the same as line by line."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf_eval.analysis.per_prompt import NUMBERS, read_per_prompt
from rlhf_eval.errors import DataError

number = st.none() | st.integers(-(10**6), 10**6) | st.floats(allow_infinity=False)
row = st.fixed_dictionaries(
    {"evaluation": st.sampled_from(["alpaca_eval", "arena_hard"]), "prompt_id": st.text(max_size=9)},
    optional={**dict.fromkeys(NUMBERS, number), "note": st.lists(st.text(max_size=3), max_size=2)},
)
rows = st.lists(row, max_size=20, unique_by=lambda row: (row["evaluation"], row["prompt_id"]))
TORN = '{"evaluation": "alpaca_eval", "prom'


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows, torn=st.booleans(), ascii=st.booleans())
def test_every_number_is_what_its_line_says(
    tmp_path: Path, rows: list[dict[str, Any]], torn: bool, ascii: bool
) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=ascii) + "\n" for row in rows)
    (tmp_path / "p.jsonl").write_text(lines + TORN * torn, "utf-8", newline="\n")
    found = read_per_prompt(tmp_path / "p.jsonl")
    assert list(found) == list(dict.fromkeys(row["evaluation"] for row in rows))
    for evaluation, scores in found.items():
        own = [row for row in rows if row["evaluation"] == evaluation]
        assert scores.prompt_ids == tuple(row["prompt_id"] for row in own)
        for name in NUMBERS:
            expected = [math.nan if row.get(name) is None else row[name] for row in own]
            np.testing.assert_array_equal(getattr(scores, name), np.array(expected, dtype=float))


LINE = '{"evaluation": "arena_hard", "prompt_id": "p1", "value": 0.5}\n'


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (LINE + '{"evaluation": "arena_h\n' + LINE, "line 2 is not JSON"),
        (LINE + LINE, "holds a prompt twice"),
        (LINE + '{"prompt_id": "p2", "value": 0.5}\n', "without evaluation or prompt_id"),
        (LINE + '{"evaluation": "arena_hard", "value": 0.5}\n', "without evaluation or prompt_id"),
        (LINE.replace("0.5", '"much"'), "does not hold the scores of prompts"),
        (LINE.replace("0.5", "[1]"), "does not hold the scores of prompts"),
        (LINE.replace('"p1"', "7"), "does not hold the scores of prompts"),
        ("[1]\n", "without evaluation or prompt_id"),
        (b"\xff" + LINE.encode(), "line 1 is not JSON"),
        (LINE.encode().replace(b"p1", b"\xff"), "line 1 is not JSON"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str | bytes, what: str) -> None:
    file = tmp_path / "p.jsonl"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError) as caught:
        read_per_prompt(file)
    assert str(file) in caught.value.what
    assert what in caught.value.what
    assert caught.value.cure


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"p\.jsonl does not exist"):
        read_per_prompt(tmp_path / "p.jsonl")
