import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_eval.config.schema import ArenaHardConfig, JudgeConfig
from rlhf_eval.errors import DataError, JudgeError
from rlhf_eval.judging import arena_hard
from rlhf_eval.judging.question import JudgeAnswer, UnreadableAnswer
from rlhf_eval.judging.style_features import OWN_LENGTH
from rlhf_eval.judging.style_normalisation import Constants, Normalisation, write_normalisation
from rlhf_eval.records import Verdict, user_prompt

LABELS = ("A>>B", "A>B", "A=B", "B>A", "B>>A")
MIRRORED = dict(zip(("B<<A", "B<A", "B=A", "A<B", "A<<B"), LABELS, strict=True))
JUDGE = JudgeConfig("lab", "lab-judge-1")
no_brackets = st.text().filter(lambda text: "[" not in text and "]" not in text)


@given(no_brackets, st.lists(st.tuples(st.sampled_from(LABELS), no_brackets), min_size=1))
def test_the_last_label_wins(before, labels):
    text = before + "".join(f"[[{label}]]{after}" for label, after in labels)
    assert arena_hard.parse_label(text) == labels[-1][0]
    assert arena_hard.parse_label(text.lower()) == labels[-1][0]
    assert arena_hard.parse_label(text + " x[b] = a[A>B]") == labels[-1][0]
    assert arena_hard.parse_label(text.replace("[[", "[").replace("]]", "]")) == labels[-1][0]


@given(st.text(alphabet="AB<>=[]ab x", max_size=40))
def test_only_known_labels_come_out(text):
    assert arena_hard.parse_label(text) in (*LABELS, *MIRRORED, None)


@pytest.mark.parametrize(("mirrored", "label"), MIRRORED.items())
def test_a_label_written_the_other_way_round_says_the_same(mirrored, label):
    """arena-hard-auto knows both writings (`load_judgments`)."""
    items, verdicts = games((mirrored, label), (label, mirrored))
    _, plain = games((label, label), (label, label))
    assert [v.preference for v in verdicts] == [v.preference for v in plain]
    assert arena_hard.score(items, verdicts).score == arena_hard.score(items, plain).score


@pytest.mark.parametrize("text", ["", "a[b] = B[A]", "[[A]]", "[[C>D]]", "A>B", "[[A>B", "[[A>>>B]]"])
def test_what_is_no_label_is_none(text):
    assert arena_hard.parse_label(text) is None
    with pytest.raises(UnreadableAnswer, match="cut off"):
        arena_hard.read(JudgeAnswer(text, None, "length"), policy_first=True)


@given(st.sampled_from(LABELS))
def test_swapping_the_sides_swaps_the_preference(label):
    readings = [arena_hard.read(JudgeAnswer(f"[[{label}]]", None, "stop"), first) for first in (True, False)]
    assert readings[0].preference + readings[1].preference == 1
    assert readings[0].preference == {"A": 1.0, "B": 0.0}[label[0]] or label == "A=B"


def games(*labels: tuple[str, str]) -> tuple[list[arena_hard.Item], list[Verdict]]:
    """Items and verdicts from (label of game 0, label of game 1) per question."""
    items = [arena_hard.Item(user_prompt(f"q{n}", "?"), "", "base") for n in range(len(labels))]
    verdicts = []
    for n, pair in enumerate(labels):
        for game, label in enumerate(pair):
            reading = arena_hard.read(JudgeAnswer(f"[[{label}]]", None, "stop"), policy_first=game == 1)
            verdicts.append(
                Verdict(
                    "arena_hard", f"q{n}", game, game == 1, f"{n}{game}", reading.preference, label, None, ""
                )
            )
    return items, verdicts


@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=30))
def test_score_is_the_mean_of_battle_rows_and_of_the_question_values(labels):
    items, verdicts = games(*labels)
    # The official definition written out: game 0 has A = baseline, a clear win is three rows.
    rows = []
    for first, second in labels:
        rows += {"A>>B": [0] * 3, "A>B": [0], "A=B": [0.5], "B>A": [1], "B>>A": [1] * 3}[first]
        rows += {"A>>B": [1] * 3, "A>B": [1], "A=B": [0.5], "B>A": [0], "B>>A": [0] * 3}[second]
    scores = arena_hard.score(items, verdicts)
    assert scores.score == pytest.approx(np.mean(rows))
    assert scores.values.mean() == pytest.approx(np.mean(rows))
    assert 0 <= scores.score <= 1


def test_with_equal_weights_a_question_is_worth_its_own_mean():
    items, verdicts = games(("B>A", "A>B"), ("B>A", "B>A"), ("A>B", "A=B"))
    assert arena_hard.score(items, verdicts).values == pytest.approx([1.0, 0.5, 0.25])


def test_the_standard_error_resamples_questions():
    """Games of one question agree, so the error is that of questions: twice the rows bring nothing."""
    random = np.random.default_rng(0)
    items, verdicts = games(*[("B>A", "A>B") if win else ("A>B", "B>A") for win in random.random(400) < 0.3])
    scores = arena_hard.score(items, verdicts)
    expected = np.sqrt(scores.score * (1 - scores.score) / 400)
    assert scores.standard_error == pytest.approx(expected, rel=0.1)
    assert scores.values.std(ddof=1) / 20 == pytest.approx(expected, rel=0.02)


def test_the_spread_of_the_values_is_the_error_of_the_ratio():
    random = np.random.default_rng(1)
    items, verdicts = games(*[tuple(random.choice(LABELS, 2)) for _ in range(500)])
    scores = arena_hard.score(items, verdicts)
    assert scores.values.std(ddof=1) / np.sqrt(500) == pytest.approx(scores.standard_error, rel=0.1)


def test_a_question_with_a_failed_game_is_left_out_whole():
    items, verdicts = games(("B>A", "A>B"), ("A>B", "B>A"))
    failed = Verdict("arena_hard", "q1", 1, True, "k", None, None, "HTTP 500", "")
    assert arena_hard.score(items, [*verdicts[:3], failed]).prompt_ids == ["q0"]


@pytest.mark.golden
@pytest.mark.parametrize(
    ("version", "model", "n"), [("v0.1", "gpt-4-0314", 500), ("v2.0", "o3-mini-2025-01-31", 750)]
)
def test_the_published_files_load_and_show_the_baseline_first(golden, version, model, n):
    folder = golden / "arena_hard"
    config = ArenaHardConfig(
        str(folder / f"question-{version}.jsonl.gz"), str(folder / f"answers-{version}-{model}.jsonl.gz")
    )
    items = arena_hard.load(config)
    assert len(items) == n
    assert arena_hard.baseline(items) == model
    assert all(item.baseline_answer and item.prompt.instruction for item in items)
    first, second = arena_hard.questions(items[:1], {items[0].prompt.id: "the policy's answer"}, JUDGE)
    shown = first.messages[1]["content"]
    assert shown.startswith(f"<|User Prompt|>\n{items[0].prompt.instruction}\n\n<|The Start of Assistant A's")
    assert shown.index(items[0].baseline_answer) < shown.index("the policy's answer")
    shown = second.messages[1]["content"]
    assert shown.index(items[0].baseline_answer) > shown.index("the policy's answer")
    assert (first.policy_first, second.policy_first) == (False, True)
    assert all(f"[[{label}]]" in first.messages[0]["content"] for label in LABELS)


def test_the_judge_prompt_can_be_replaced(tmp_path):
    (tmp_path / "official.txt").write_text("Judge them.\n")
    judge = JudgeConfig("lab", "m", arena_hard_prompt=str(tmp_path / "official.txt"))
    assert arena_hard.system_prompt(judge) == "Judge them."
    assert arena_hard.system_prompt(judge, "creative_writing") == "Judge them."


def test_the_judge_prompt_can_be_replaced_by_category(tmp_path):
    source = tmp_path / "official.json"
    source.write_text(json.dumps({"hard_prompt": "Solve it first.\n", "creative_writing": "Read them."}))
    judge = JudgeConfig("lab", "m", arena_hard_prompt=str(source))
    items = [
        arena_hard.Item(user_prompt(category, "?"), "!", "base", category)
        for category in ("hard_prompt", "creative_writing")
    ]
    asked = arena_hard.questions(items, {"hard_prompt": "a", "creative_writing": "b"}, judge)
    systems = [question.messages[0]["content"] for question in asked]
    assert systems == ["Solve it first.", "Solve it first.", "Read them.", "Read them."]
    with pytest.raises(DataError, match=r"official.json' has no instructions for the category math"):
        arena_hard.system_prompt(judge, "math")


def test_creative_writing_has_instructions_of_its_own():
    hard, creative = (arena_hard.system_prompt(JUDGE, c) for c in ("hard_prompt", "creative_writing"))
    assert all(f"[[{label}]]" in prompt for label in LABELS for prompt in (hard, creative))
    assert "your own answer" in hard
    assert "your own answer" not in creative


def test_identical_answers_are_a_tie_that_nobody_is_asked_for():
    item = arena_hard.Item(user_prompt("q", "?"), "the same", "base")
    same = arena_hard.questions([item], {"q": "the same"}, JUDGE)
    verdicts = [question.verdict(question.settled, "") for question in same if question.settled]
    assert [verdict.preference for verdict in verdicts] == [0.5, 0.5]
    assert arena_hard.score([item], verdicts).score == 0.5
    assert [q.settled for q in arena_hard.questions([item], {"q": "another"}, JUDGE)] == [None, None]


def test_no_question_with_two_verdicts_is_an_error():
    items, verdicts = games(("B>A", "A>B"))
    with pytest.raises(JudgeError, match="None of 1 Arena-Hard questions"):
        arena_hard.score(items, verdicts[:1])


def categorised(sizes: dict[str, int], seed: int) -> tuple[list[arena_hard.Item], list[Verdict]]:
    random = np.random.default_rng(seed)
    items, verdicts = games(*[tuple(random.choice(LABELS, 2)) for _ in range(sum(sizes.values()))])
    kinds = [category for category, size in sizes.items() for _ in range(size)]
    texts = ["word " * int(n) for n in random.integers(5, 50, len(items))]
    return [
        replace(item, category=category, baseline_answer=text)
        for item, category, text in zip(items, kinds, texts, strict=True)
    ], verdicts


def test_scores_stand_by_category():
    items, verdicts = categorised({"hard_prompt": 60, "creative_writing": 20}, 0)
    scores = arena_hard.score(items, verdicts)
    assert {name: part.questions for name, part in scores.categories.items()} == {
        "hard_prompt": 60,
        "creative_writing": 20,
    }
    for category, part in scores.categories.items():
        alone = [item for item in items if item.category == category]
        expected = arena_hard.score(alone, verdicts)
        assert (part.score, part.standard_error) == (expected.score, expected.standard_error)


def test_a_run_is_style_controlled_by_category():
    config = ArenaHardConfig("-", "-")
    items, verdicts = categorised({"hard_prompt": 100, "creative_writing": 60}, 1)
    answers = {item.prompt.id: "word " * (5 + n % 40) for n, item in enumerate(items)}
    controlled = arena_hard.style_controlled(items, answers, verdicts, config)
    assert controlled is not None
    parts = controlled.categories
    expected = (100 * parts["hard_prompt"].score + 60 * parts["creative_writing"].score) / 160
    assert controlled.score == pytest.approx(expected)
    assert list(controlled.values) == [item.prompt.id for item in items]
    values = np.array(list(controlled.values.values()))
    assert values.mean() == pytest.approx(controlled.score)
    assert values.std(ddof=1) / np.sqrt(160) == pytest.approx(controlled.standard_error, rel=0.15)
    alone = [item for item in items if item.category == "hard_prompt"]
    only = arena_hard.style_controlled(alone, answers, verdicts[:200], config)
    assert only is not None
    assert only.score == parts["hard_prompt"].score
    assert arena_hard.style_controlled(items[:120], answers, verdicts[:240], config) is None


def test_a_run_reads_frozen_style_constants(tmp_path):
    items, verdicts = categorised({"hard_prompt": 100}, 2)
    answers = {item.prompt.id: "word " * (5 + n % 40) for n, item in enumerate(items)}
    frozen = Constants((0.3, 0.0, 0.0, 0.0), (0.2, 0.01, 0.01, 0.01))
    write_normalisation(tmp_path / "style.json", Normalisation("pool", OWN_LENGTH, {"hard_prompt": frozen}))
    config = ArenaHardConfig("-", "-")
    named = replace(config, style_normalisation=str(tmp_path / "style.json"))
    equal, pool = (arena_hard.style_controlled(items, answers, verdicts, c) for c in (config, named))
    assert equal is not None
    assert pool is not None
    assert abs(equal.score - pool.score) > 1e-4
    other = [replace(item, category="math") for item in items]
    with pytest.raises(DataError, match="'pool' are of the categories hard_prompt"):
        arena_hard.style_controlled(other, answers, verdicts, named)


def written(tmp_path, questions, answers) -> ArenaHardConfig:
    for name, rows in (("q.jsonl", questions), ("a.jsonl", answers)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ArenaHardConfig(str(tmp_path / "q.jsonl"), str(tmp_path / "a.jsonl"))


def test_missing_and_repeated_questions_are_named(tmp_path):
    asked = [{"uid": f"q{n}", "prompt": "?"} for n in range(3)]
    said = [{"uid": f"q{n}", "messages": [{"role": "assistant", "content": "!"}]} for n in range(2)]
    with pytest.raises(DataError, match="lacks 1 of 3 questions, such as q2"):
        arena_hard.load(written(tmp_path, asked, said))
    with pytest.raises(DataError, match=r"more than once .* q0"):
        arena_hard.load(written(tmp_path, [*asked[:2], asked[0]], said))
    with pytest.raises(DataError, match=r"Row 0 .* `messages`"):
        arena_hard.load(written(tmp_path, asked[:1], [{"uid": "q0"}]))
    with pytest.raises(DataError, match=r"q0 .* is no text"):
        arena_hard.load(
            written(tmp_path, asked[:1], [{"uid": "q0", "messages": [{"role": "assistant", "content": 3}]}])
        )


def test_a_category_can_have_its_own_baseline(tmp_path):
    asked = [{"uid": f"{kind}{n}", "prompt": "?", "category": kind} for kind in "hc" for n in range(2)]
    config = written(tmp_path, asked, [said(f"h{n}", "base") for n in range(2)])
    rows = [said(f"c{n}", "poet") for n in range(2)]
    (tmp_path / "poet.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = replace(config, category_baseline_answers={"c": str(tmp_path / "poet.jsonl")})
    items = arena_hard.load(config)
    assert [(item.prompt.id, item.baseline, item.category) for item in items] == [
        ("h0", "base", "h"),
        ("h1", "base", "h"),
        ("c0", "poet", "c"),
        ("c1", "poet", "c"),
    ]
    assert arena_hard.baseline(items) == "base, poet"
    assert len(arena_hard.load(replace(config, limit=2))) == 2
    wrong = replace(config, category_baseline_answers={"cc": "x.jsonl"})
    with pytest.raises(DataError, match=r"no questions of the category cc(.|\n)*Known: c, h"):
        arena_hard.load(wrong)


def test_the_answers_of_a_run_can_be_the_baseline(tmp_path):
    """The policy base: the untrained control's `stages/generate/arena_hard.jsonl`, as it stands."""
    config = written(tmp_path, [{"uid": f"q{n}", "prompt": "?"} for n in range(2)], [])
    file = tmp_path / "untrained--base" / "stages" / "generate" / "arena_hard.jsonl"
    file.parent.mkdir(parents=True)
    rows = [{"prompt_id": f"q{n}", "text": "so", "tokens": 1, "finish": "stop"} for n in range(2)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = arena_hard.load(replace(config, baseline_answers=str(file)))
    assert [(item.baseline, item.baseline_answer) for item in items] == [("untrained--base", "so")] * 2
    file.write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(DataError, match="lacks 1 of 2 questions, such as q1"):
        arena_hard.load(replace(config, baseline_answers=str(file)))


def said(uid: str, model: str) -> dict:
    return {"uid": uid, "model": model, "messages": [{"role": "assistant", "content": "!"}]}
