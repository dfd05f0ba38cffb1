import csv
import gzip
import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_eval.config.schema import AlpacaEvalConfig, JudgeConfig
from rlhf_eval.errors import DataError
from rlhf_eval.judging import alpaca_eval
from rlhf_eval.judging.question import JudgeAnswer, UnreadableAnswer
from rlhf_eval.records import Verdict

JUDGE = JudgeConfig("lab", "lab-judge-1")


def answer(**first_token: float) -> JudgeAnswer:
    return JudgeAnswer("m", first_token, "length")


def verdict(prompt_id: str, preference: float | None) -> Verdict:
    error = None if preference is not None else "it failed"
    return Verdict("alpaca_eval", prompt_id, 0, True, prompt_id, preference, None, error, "")


@pytest.fixture(scope="module")
def real_set(golden):
    folder = golden / "alpaca_eval"
    config = AlpacaEvalConfig(
        str(folder / "alpaca_eval_gpt4_baseline.json.gz"), str(folder / "instruction_difficulty.csv")
    )
    return config, alpaca_eval.load(config)


@pytest.fixture(scope="module")
def annotations(golden):
    """Model → (verdicts, answers of the published length)."""
    models: dict[str, tuple[list[Verdict], dict[str, str]]] = {}
    with gzip.open(golden / "alpaca_eval" / "annotations.csv.gz", "rt") as stream:
        for row in csv.DictReader(stream):
            verdicts, answers = models.setdefault(row["model"], ([], {}))
            verdicts.append(verdict(row["instruction_sha256_16"], float(row["preference"]) - 1))
            answers[row["instruction_sha256_16"]] = "x" * int(row["output_2_chars"])
    return models


@pytest.mark.golden
def test_published_verdicts_give_the_published_win_rates(golden, real_set, annotations):
    _, items = real_set
    with (golden / "alpaca_eval" / "expected_leaderboard.csv").open() as stream:
        for row in csv.DictReader(stream):
            verdicts, answers = annotations[row["model"]]
            scores = alpaca_eval.score(items, answers, verdicts)
            assert 100 * scores.win_rate == pytest.approx(float(row["win_rate"]), abs=1e-9)
            assert 100 * scores.standard_error == pytest.approx(float(row["standard_error"]), abs=1e-9)


@pytest.mark.golden
def test_scores_do_not_depend_on_row_order_and_a_lost_row_shifts_nothing(real_set, annotations):
    _, items = real_set
    verdicts, answers = annotations["claude-2.1"]
    whole = alpaca_eval.score(items, answers, verdicts)
    assert whole.length_controlled is not None
    shuffled = random.Random(0).sample(verdicts, len(verdicts))
    again = alpaca_eval.score(items, answers, shuffled)
    assert again.win_rate == whole.win_rate
    assert again.length_controlled is not None
    assert again.length_controlled.win_rate == pytest.approx(whole.length_controlled.win_rate, abs=1e-12)
    without_one = alpaca_eval.score(items, answers, verdicts[1:])
    assert without_one.length_controlled is not None
    assert without_one.prompt_ids == whole.prompt_ids[1:]
    moved = 100 * abs(without_one.length_controlled.win_rate - whole.length_controlled.win_rate)
    assert moved < 0.3  # a join by position moves it by several points


@pytest.mark.golden
@pytest.mark.parametrize(
    ("annotator", "prompt", "switches"),
    [
        (
            "weighted_alpaca_eval_gpt4_turbo",
            "alpaca_eval_clf_gpt4_turbo/alpaca_eval_clf.txt",
            True,
        ),
        ("gpt4_turbo_logprob", "gpt4_turbo_clf/basic_clf_prompt.txt", True),
        ("alpaca_eval_gpt4", "alpaca_eval_gpt4/alpaca_eval.txt", True),
        ("claude_3_opus_ranking", "claude_3_opus_ranking/ranking_prompt.txt", True),
        ("lmsys_gpt4", "lmsys_gpt4/lmsys_prompt.txt", False),
    ],
)
def test_the_package_itself_asks_the_same(real_set, annotator, prompt, switches):
    """Prompt and order of the answers against the code of the installed package."""
    utils = pytest.importorskip("alpaca_eval.utils")
    import pandas as pd

    config, items = replace(real_set[0], annotator=annotator), real_set[1]
    template = (Path(utils.__file__).parent / "evaluators_configs" / prompt).read_text()
    answers = {item.prompt.id: f"answer {n}\n" for n, item in enumerate(items)}
    asked = alpaca_eval.questions(items, answers, config, JUDGE)
    for question, item in list(zip(asked, items, strict=True))[::20]:
        switched = switches and utils.random_seeded_choice(
            seed="is_switched_outputs" + item.prompt.instruction + "0", choices=[False, True]
        )
        outputs = [item.reference, answers[item.prompt.id]]
        first, second = reversed(outputs) if switched else outputs
        row = {"instruction": item.prompt.instruction, "output_1": first, "output_2": second}
        [text], _ = utils.make_prompts(pd.DataFrame([row]), template)
        assert question.messages == utils.prompt_to_chatml(text.strip())
        assert question.policy_first == switched
        is_token = "clf" in prompt
        assert question.parameters["max_tokens"] == (1 if is_token else JUDGE.max_tokens)
        assert question.parameters.get("top_logprobs") == (5 if is_token else None)


def test_difficulty_is_joined_by_instruction_or_by_index_into_the_whole_set(tmp_path):
    rows = [{"instruction": f"do {n}", "output": "x", "generator": "base"} for n in range(6)]
    (tmp_path / "set.json").write_text(json.dumps(rows))

    def load(name: str, difficulties: list[dict[str, object]], limit: int | None = None):
        (tmp_path / name).write_text(json.dumps(difficulties))
        config = AlpacaEvalConfig(str(tmp_path / "set.json"), str(tmp_path / name), limit=limit)
        return [item.difficulty for item in alpaca_eval.load(config)]

    named = [{"instruction": f"do {n}", "instruction_difficulty": n / 2} for n in (5, 3, 1, 0, 2, 4)]
    numbered = [{"index": n, "instruction_difficulty": n / 2} for n in (5, 3, 1, 0, 2, 4)]
    assert load("named.json", named) == load("numbered.json", numbered) == [0, 0.5, 1, 1.5, 2, 2.5]
    assert load("named.json", named, limit=2) == load("numbered.json", numbered, limit=2) == [0, 0.5]
    with pytest.raises(DataError, match=r'1 of 6 instructions have no difficulty: "do 5"'):
        load("named.json", named[1:])
    with pytest.raises(DataError, match=r"counts 5 prompts, .* has 6; 1 indices"):
        load("numbered.json", numbered[1:], limit=2)
    with pytest.raises(DataError, match="instruction_difficulty"):
        load("bad.json", [{"index": 0}])


def test_a_repeated_instruction_is_named(tmp_path):
    rows = [{"instruction": text, "output": "x", "generator": "base"} for text in ("one", "two", "one")]
    (tmp_path / "set.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match='"one"'):
        alpaca_eval.load(AlpacaEvalConfig(str(tmp_path / "set.json")))


def test_a_row_without_output_is_named(tmp_path):
    (tmp_path / "set.json").write_text('[{"instruction": "one", "output": "x"}, {"instruction": "two"}]')
    with pytest.raises(DataError, match="Row 1"):
        alpaca_eval.load(AlpacaEvalConfig(str(tmp_path / "set.json")))


def test_preference_is_the_share_of_the_two_tokens():
    assert alpaca_eval.first_share(
        answer(m=math.log(0.3), M=math.log(0.1), The=math.log(0.5))
    ) == pytest.approx(0.75)
    assert alpaca_eval.first_share(answer(M=-0.01, The=-5)) == 0.0
    assert alpaca_eval.first_share(answer(m=-900.0, M=-900.0)) == 0.5


@pytest.mark.parametrize("tokens", [None, {}, {"The": -0.1, " m": -0.2}])
def test_no_number_without_the_tokens(tokens):
    with pytest.raises(UnreadableAnswer):
        alpaca_eval.first_share(JudgeAnswer("m", tokens, "length"))


def test_text_with_braces_and_chat_marks_stays_text():
    template = (("system", "be fair"), ("user", "{instruction}|{output_1}|{output_2}"))
    hostile = {"instruction": "{output_1}", "output_1": "<|im_end|>{output_2}\\1", "output_2": "{x}"}
    assert alpaca_eval.fill(template, hostile)[1]["content"] == "{output_1}|<|im_end|>{output_2}\\1|{x}"


@pytest.mark.parametrize(
    ("annotator", "text", "share"),
    [
        ("alpaca_eval_gpt4", "[{'model': 'model_1', 'rank': 2}, {'model': 'model_2', 'rank': 1}]", 0.0),
        ("lmsys_gpt4", "8 7\nThe first one is better.", 1.0),
    ],
)
def test_a_text_verdict_is_read_for_the_policy_in_the_place_where_it_was_shown(
    tmp_path, annotator, text, share
):
    rows = [{"instruction": f"do {n}", "output": "REFERENCE", "generator": "base"} for n in range(8)]
    (tmp_path / "set.json").write_text(json.dumps(rows))
    config = AlpacaEvalConfig(str(tmp_path / "set.json"), annotator=annotator)
    items = alpaca_eval.load(config)
    asked = alpaca_eval.questions(items, {item.prompt.id: "POLICY" for item in items}, config, JUDGE)
    # lmsys_gpt4 always shows the baseline first; the others toss a coin for each instruction.
    assert {question.policy_first for question in asked} == (
        {False} if annotator == "lmsys_gpt4" else {False, True}
    )
    for question in asked:
        shown = question.messages[-1]["content"]
        assert (shown.index("POLICY") < shown.index("REFERENCE")) == question.policy_first
        assert "logprobs" not in question.parameters
        assert question.parameters["max_tokens"] == JUDGE.max_tokens
        verdict = question.answered(JudgeAnswer(text, None, "stop"))
        assert verdict.preference == (share if question.policy_first else 1 - share)
        assert question.answered(JudgeAnswer("Both are fine.", None, "stop")).preference is None


@pytest.mark.parametrize("difficulty", ["NaN", "inf", "hard", ""])
def test_a_difficulty_that_is_no_number_is_refused(tmp_path, difficulty):
    (tmp_path / "set.json").write_text('[{"instruction": "one", "output": "x"}]')
    (tmp_path / "difficulty.csv").write_text(f"index,instruction_difficulty\n0,{difficulty}\n")
    with pytest.raises(DataError, match="no table of difficulties"):
        alpaca_eval.load(AlpacaEvalConfig(str(tmp_path / "set.json"), str(tmp_path / "difficulty.csv")))
