import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rlhf_eval.errors import DataError, JudgeError
from rlhf_eval.judging.arena_hard_files import (
    NO_ANSWERS,
    TOO_FEW,
    pool_normalisation,
    score_judgments,
    score_models,
)
from rlhf_eval.judging.arena_hard_judgments import read_judgments
from rlhf_eval.judging.style_normalisation import write_normalisation

CATEGORIES = {"hard_prompt": ("o3-mini", 120), "creative_writing": ("gemini", 60)}
ROWS_OF_A = {"A>>B": [1.0] * 3, "A>B": [1.0], "A=B": [0.5], "B>A": [0.0], "B>>A": [0.0] * 3}
ROWS_OF_A |= {"B<<A": [1.0] * 3, "B<A": [1.0], "B=A": [0.5], "A<B": [0.0], "A<<B": [0.0] * 3}
Rows = list[dict]


def write(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answer(uid: str, model: str, text: str, tokens: int | None) -> dict:
    counts = {
        "header_count": {"h1": len(text) % 3, "h2": 0},
        "list_count": {"ordered": len(text) % 5, "unordered": len(text) % 2},
        "bold_count": {"**": len(text) % 7},
    }
    row = {"uid": uid, "model": model, "messages": [{"role": "assistant", "content": {"answer": text}}]}
    return row if tokens is None else row | {"metadata": {"token_len": tokens} | counts}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """arena-hard-auto's data folder: 180 questions, two models that like long answers, one judge."""
    rng = np.random.default_rng(0)
    questions = [
        {"uid": f"{category}-{n}", "category": category, "prompt": "?"}
        for category, (_, size) in CATEGORIES.items()
        for n in range(size)
    ]
    write(tmp_path / "question.jsonl", questions)
    lengths = {}
    for name in ("o3-mini", "gemini", "one", "org/two"):
        lengths[name] = {q["uid"]: int(rng.integers(5, 60)) for q in questions}
        rows = [answer(uid, name, "word" * n + "**b**", n) for uid, n in lengths[name].items()]
        write(tmp_path / "model_answer" / f"{Path(name).name}.jsonl", rows)
    for name, lean in (("one", -1.0), ("org/two", 0.5)):
        judged = []
        for q in questions:
            baseline = CATEGORIES[q["category"]][0]
            longer = np.log(lengths[name][q["uid"]] / lengths[baseline][q["uid"]])
            better = lean + longer + rng.logistic(size=2)
            labels = [
                ("A", "B") if (value > 0) == (game == 1) else ("B", "A") for game, value in enumerate(better)
            ]
            signs = [">>" if abs(value) > 1.5 else ">" if abs(value) > 0.2 else "=" for value in better]
            games = [
                {"score": f"{a}{sign}{b}", "judgment": {"answer": f"So: [[{a}{sign}{b}]]"}, "prompt": []}
                for (a, b), sign in zip(labels, signs, strict=True)
            ]
            judged.append(
                {"uid": q["uid"], "category": q["category"], "judge": "gpt-4.1", "model": name}
                | {"baseline": baseline, "games": games}
            )
        write(tmp_path / "model_judgment" / f"{Path(name).name}.jsonl", judged)
    return tmp_path


@pytest.fixture
def changed(folder: Path) -> Callable[[Callable[[Rows], object]], str]:
    """The judgments of `one`, with something done to the rows."""

    def change(edit: Callable[[Rows], object]) -> str:
        path = folder / "model_judgment" / "one.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        edit(rows)
        return str(write(path, rows))

    return change


def official_mean(path: Path, category: str) -> float:
    """arena-hard-auto's score before its bootstrap: the mean of all battle rows, in percent."""
    rows = []
    for line in path.read_text().splitlines():
        row = json.loads(line)
        if row["category"] == category:
            rows += ROWS_OF_A[row["games"][1]["score"]]
            rows += [1 - value for value in ROWS_OF_A[row["games"][0]["score"]]]
    return 100 * float(np.mean(rows))


def test_one_file_is_scored_by_category(folder):
    judgments = folder / "model_judgment" / "one.jsonl"
    scores = score_judgments(str(judgments), folder)
    assert (scores["model"], scores["judge"], scores["baseline"]) == ("one", "gpt-4.1", "gemini, o3-mini")
    assert (scores["n"], scores["failed"]) == (180, 0)
    for category, (baseline, size) in CATEGORIES.items():
        part = scores["categories"][category]
        assert (part["n"], part["failed"], part["baseline"]) == (size, 0, baseline)
        assert part["score"] == pytest.approx(official_mean(judgments, category), abs=1e-9)
        assert part["style_coefficients"]["length"] > 0
    parts = scores["categories"].values()
    assert scores["style_controlled_score"] == pytest.approx(
        sum(part["n"] * part["style_controlled_score"] for part in parts) / 180
    )
    assert 0 < scores["style_controlled_standard_error"] < 10
    assert "token_len" in scores["style_control"]
    assert "equal style" in scores["style_control"]
    assert json.loads(json.dumps(scores)) == scores
    assert score_judgments(str(judgments), folder) == scores


def test_without_answers_there_is_the_plain_score(folder):
    judgments = folder / "model_judgment" / "one.jsonl"
    with_answers = score_judgments(str(judgments), folder)
    shutil.rmtree(folder / "model_answer")
    scores = score_judgments(str(judgments), folder)
    assert (scores["style_controlled_score"], scores["style_control"]) == (None, NO_ANSWERS)
    assert (scores["score"], scores["standard_error"]) == (
        with_answers["score"],
        with_answers["standard_error"],
    )


def test_lengths_are_counted_one_way_for_all(folder):
    """One baseline without `token_len`: then nobody's is used."""
    path = folder / "model_answer" / "gemini.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write(path, [{name: row[name] for name in row if name != "metadata"} for row in rows])
    scores = score_judgments(str(folder / "model_judgment" / "one.jsonl"), folder)
    assert "UTF-8 bytes / 4" in scores["style_control"]
    assert scores["style_controlled_score"] is not None


def test_models_share_the_style_coefficients_and_the_frozen_constants(folder):
    answers: dict[str, str | None] = {
        name: str(folder / "model_answer" / f"{Path(name).name}.jsonl")
        for name in ("o3-mini", "gemini", "one", "org/two")
    }
    judged = [
        read_judgments(str(folder / "model_judgment" / f"{name}.jsonl"), str(folder / "question.jsonl"))
        for name in ("one", "two")
    ]
    one, two = score_models(judged, answers)
    assert (
        one["categories"]["hard_prompt"]["style_coefficients"]
        == (two["categories"]["hard_prompt"]["style_coefficients"])
    )
    assert "together: 2" in one["style_control"]
    assert two["style_controlled_score"] > one["style_controlled_score"]
    pool = pool_normalisation("pool of two", judged, {n: str(s) for n, s in answers.items()})
    write_normalisation(folder / "style.json", pool)
    [alone] = score_models(judged[:1], answers, str(folder / "style.json"))
    assert "pool of two" in alone["style_control"]
    [unshown, shown] = score_models(judged, answers | {"one": None})
    assert (unshown["style_controlled_score"], unshown["style_control"]) == (None, NO_ANSWERS)
    assert shown["style_controlled_score"] is not None
    with pytest.raises(DataError, match="one stands twice"):
        score_models([judged[0], judged[0]], answers)


def test_failed_games_are_counted_and_named(folder, changed):
    def fail(rows):
        rows[0]["games"][0] = None
        rows[1]["games"][1]["score"] = None
        rows[2]["games"][0]["score"] = "A"
        rows[3]["games"].pop()

    judgments = changed(fail)
    scores = score_judgments(judgments, folder)
    assert (scores["n"], scores["failed"]) == (176, 4)
    assert scores["categories"]["hard_prompt"]["failed"] == 4
    causes = "the game is missing; 1× no verdict label in the judge's answer; 1× unknown label 'A'"
    with pytest.raises(JudgeError, match=rf"4 of 360 comparisons \(1.1%, allowed are 1.0%\): 2× {causes}"):
        score_judgments(judgments, folder, max_failed_share=0.01)


def test_every_game_failed_is_no_score(folder, changed):
    judgments = changed(lambda rows: [row["games"].__setitem__(0, None) for row in rows])
    with pytest.raises(JudgeError, match=r"None of 180 .* on both games"):
        score_judgments(judgments, folder, max_failed_share=1)


def test_too_few_questions_are_not_style_controlled(folder, changed):
    questions = [json.loads(line) for line in (folder / "question.jsonl").read_text().splitlines()]
    write(folder / "question.jsonl", questions[:120] + questions[120:150])
    scores = score_judgments(changed(lambda rows: rows.__delitem__(slice(150, None))), folder)
    assert (scores["style_controlled_score"], scores["style_control"]) == (None, TOO_FEW)


def test_one_category_alone_may_be_judged(folder, changed):
    scores = score_judgments(changed(lambda rows: rows.__delitem__(slice(120, None))), folder)
    assert (list(scores["categories"]), scores["n"], scores["baseline"]) == (["hard_prompt"], 120, "o3-mini")


def test_the_order_of_the_rows_does_not_matter(folder, changed):
    before = score_judgments(str(folder / "model_judgment" / "one.jsonl"), folder)
    assert score_judgments(changed(lambda rows: rows.reverse()), folder) == before


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda rows: rows.__delitem__(slice(0, 3)),
            "3 of its 180 questions are not judged .such as hard_prompt-0",
        ),
        (lambda rows: rows[5].update(uid="stranger"), r"1 judged ones are not in it .* \(such as stranger\)"),
        (
            lambda rows: rows[5].update(category="creative_writing"),
            r"1 judged ones .* \(such as hard_prompt-5\)",
        ),
        (lambda rows: rows.append(rows[7]), "1 questions are judged more than once .* hard_prompt-7"),
        (lambda rows: rows[2].update(games=None), "Row 2 .* no list `games`"),
        (lambda rows: rows[2]["games"].append({}), "Row 2 .* no list `games` of two"),
        (lambda rows: rows[2].pop("baseline"), "Row 2 .* no text `baseline`"),
        (lambda rows: rows[2].update(uid=7), "Row 2 .* no text `uid`"),
        (lambda rows: rows[2].update(model="other"), "2 different values of `model`: one, other"),
        (lambda rows: rows[2].update(judge="other"), "2 different values of `judge`"),
        (lambda rows: rows[2].update(baseline="other"), "2 different values of `baseline`: o3-mini, other"),
        (lambda rows: rows.clear(), "0 different values of `judge`: none"),
    ],
)
def test_what_is_no_judgment_file_of_the_set_is_refused(folder, changed, edit, message):
    with pytest.raises(DataError, match=message):
        score_judgments(changed(edit), folder)


def test_without_questions_the_size_of_a_published_set_is_known(folder, changed):
    def one_category(name):
        return changed(lambda rows: [row.update(category=name, baseline="x") for row in rows])

    assert score_judgments(one_category("of my own"))["n"] == 180
    with pytest.raises(DataError, match=r"180 of 500 questions of arena-hard-v0\.1"):
        score_judgments(one_category("arena-hard-v0.1"))


def test_missing_pieces_are_named(folder):
    judgments = str(folder / "model_judgment" / "one.jsonl")
    path = folder / "model_answer" / "gemini.jsonl"
    write(path, [json.loads(line) for line in path.read_text().splitlines()][:-2])
    with pytest.raises(
        DataError, match=r"gemini.jsonl' lacks 2 of 60 questions, such as creative_writing-58"
    ):
        score_judgments(judgments, folder)
    (folder / "question.jsonl").unlink()
    with pytest.raises(DataError, match=r"holds no question.jsonl"):
        score_judgments(judgments, folder)


@pytest.mark.golden
def test_the_published_set_and_answers_are_read(golden, tmp_path):
    """All 750 questions of v2.0, o3-mini as the model's baseline; the model answers with another's words."""
    source = golden / "arena_hard"
    shutil.copy(source / "question-v2.0.jsonl.gz", tmp_path / "question.jsonl.gz")
    (tmp_path / "model_answer").mkdir()
    published = "answers-v2.0-o3-mini-2025-01-31.jsonl.gz"
    shutil.copy(source / published, tmp_path / "model_answer" / "o3-mini-2025-01-31.jsonl.gz")
    with gzip.open(source / published, "rt") as stream:
        answers = [json.loads(line) for line in stream]
    with gzip.open(source / "question-v2.0.jsonl.gz", "rt") as stream:
        questions = [json.loads(line) for line in stream]
    write(
        tmp_path / "model_answer" / "shifted.jsonl",
        [
            other | {"uid": row["uid"], "model": "shifted"}
            for row, other in zip(answers, [*answers[1:], answers[0]], strict=True)
        ],
    )
    games = [{"score": "A>B", "judgment": ""}, {"score": "A>>B", "judgment": ""}]
    rows = [
        {"uid": q["uid"], "category": q["category"], "judge": "j", "model": "shifted", "games": games}
        | {"baseline": "o3-mini-2025-01-31"}
        for q in questions
    ]
    scores = score_judgments(str(write(tmp_path / "shifted.jsonl", rows)), tmp_path)
    assert {name: part["n"] for name, part in scores["categories"].items()} == {
        "hard_prompt": 500,
        "creative_writing": 250,
    }
    assert scores["score"] == pytest.approx(75)  # game 1 wins three rows, game 0 loses one
    assert scores["style_controlled_score"] == pytest.approx(
        75, abs=1e-6
    )  # whatever the style, the same verdict
    assert scores["standard_error"] == pytest.approx(0)
