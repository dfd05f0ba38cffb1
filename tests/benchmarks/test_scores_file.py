"""Scores that somebody already has: every form, and every mistake named by row."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rlhf_eval.benchmarks.items import Item
from rlhf_eval.benchmarks.scores_file import read_scores
from rlhf_eval.errors import DataError
from rlhf_eval.files import write_jsonl
from rlhf_eval.records import user_prompt

PAIRS = [
    Item("p1", user_prompt("p1", "?"), ("x", "y"), (1.0, 0.0)),
    Item("p2", user_prompt("p2", "!"), ("x", "y"), (0.0, 1.0)),
]
FOUR = [Item("q", user_prompt("q", "?"), ("a", "b", "c", "d"), (1.0, 0.0, 0.0, 1.0))]


def values(scores: object) -> list[list[float]]:
    return [list(score) for score in scores]  # type: ignore[attr-defined]


def test_the_forms_of_a_pair(tmp_path: Path) -> None:
    file = tmp_path / "scores.csv"
    file.write_text("pair_id,source,score_A,score_B\np2,x,3,4\np1,y,1,2\n")
    assert values(read_scores(str(file), PAIRS)) == [[1, 2], [3, 4]]
    file.write_text("id,chosen,rejected\np1,1,2\np2,3,4\n")  # p2's right answer stands second
    assert values(read_scores(str(file), PAIRS)) == [[1, 2], [4, 3]]
    write_jsonl(tmp_path / "s.jsonl", [{"id": "p1", "scores": [1, None]}, {"id": "p2", "scores": [3, 4]}])
    found = read_scores(str(tmp_path / "s.jsonl"), PAIRS)
    assert found[0][0] == 1
    assert np.isnan(found[0][1])  # a null is an invalid score, said in so many words


def test_an_id_may_stand_with_its_subset(tmp_path: Path) -> None:
    items = [Item("easy/0", user_prompt("a", "?"), ("x", "y"), (1.0, 0.0))]
    (tmp_path / "s.csv").write_text("subset,id,chosen,rejected\neasy,0,1,2\n")
    assert values(read_scores(str(tmp_path / "s.csv"), items)) == [[1, 2]]


def test_the_forms_of_more_completions(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("id,score_1,score_2,score_4,score_3\nq,1,2,4,3\n")
    assert values(read_scores(str(tmp_path / "s.csv"), FOUR)) == [[1, 2, 3, 4]]
    write_jsonl(tmp_path / "s.jsonl", [{"id": "q", "chosen": [1, 2], "rejected": [3, 4]}])
    assert values(read_scores(str(tmp_path / "s.jsonl"), FOUR)) == [[1, 3, 4, 2]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,chosen,rejected\np1,1,2\n", "no scores for 1 of 2 items: p2"),
        ("id,chosen,rejected\np1,1,2\np1,1,2\n", "row 2 repeats the id 'p1'"),
        ("id,chosen,rejected\np1,1,2\np3,1,2\n", "row 2: the benchmark has no item 'p3'"),
        ("id,chosen,rejected\np1,nan,2\n", r"row 1 \('p1'\): the score is nan"),
        ("id,chosen,rejected\np1,inf,2\n", r"row 1 \('p1'\): the score is inf"),
        ("id,chosen,rejected\np1,good,2\n", r"row 1 \('p1'\): what stands for a score is no number"),
        ("id,chosen,rejected\np1,,2\n", r"row 1 \('p1'\): what stands for a score is no number"),
        ("id,chosen,rejected\n,1,2\n", "row 1 has no `pair_id` or `id`"),
        ("id,better,worse\np1,1,2\n", r"row 1 \('p1'\) has no scores in a known form"),
        ("id,score_1,score_2,score_3\np1,1,2,3\n", r"row 1 \('p1'\) has 3 scores for 2 completions"),
    ],
)
def test_a_mistake_is_named_by_row(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_scores(str(tmp_path / "s.csv"), PAIRS)


def test_shapes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    def refused(**row: object) -> str:
        write_jsonl(tmp_path / "s.jsonl", [{"id": "p1"} | row, {"id": "p2", "scores": [1, 2]}])
        with pytest.raises(DataError) as error:
            read_scores(str(tmp_path / "s.jsonl"), PAIRS)
        return error.value.what

    assert "other numbers of chosen and rejected" in refused(chosen=[2, 3], rejected=[1])
    assert "no scores in a known form" in refused(score_3=1, score_7=2)
    assert "true and false" in refused(scores=[True, False])
    assert "secret" not in refused(chosen="a secret text", rejected="another secret text")


def test_a_malformed_line_is_named_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text('{"id": "p1", "scores": [1, 2]}\n{"id": "p2", "scores": [1,\n')
    with pytest.raises(DataError, match="line 2 is malformed"):
        read_scores(str(tmp_path / "s.jsonl"), PAIRS)


def test_a_number_from_scores_needs_no_torch(tmp_path: Path) -> None:
    """The whole command with torch made impossible to import."""
    rows = [{"id": f"p{n}", "prompt": f"{n}?", "chosen": "a", "rejected": "b"} for n in range(4)]
    write_jsonl(tmp_path / "d.jsonl", rows)
    write_jsonl(tmp_path / "s.jsonl", [{"id": row["id"], "scores": [2, 1]} for row in rows])
    program = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.split('.')[0] in ('torch', 'transformers', 'datasets', 'trl'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from rlhf_eval.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = ["benchmark", "benchmark=private", "--data", "d.jsonl", "--scores", "s.jsonl", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", program, *command], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"] == 100
