import csv
import gzip
import json
import math
import random
from pathlib import Path

import pytest

from rlhf_eval.config.schema import AlpacaEvalConfig, JudgeConfig
from rlhf_eval.errors import ConfigError, DataError
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
def test_the_package_itself_asks_the_same(real_set):
    """Prompt and order of the answers against the code of the installed package."""
    utils = pytest.importorskip("alpaca_eval.utils")
    import pandas as pd

    config, items = real_set
    template = (
        Path(utils.__file__).parent / "evaluators_configs/alpaca_eval_clf_gpt4_turbo/alpaca_eval_clf.txt"
    ).read_text()
    answers = {item.prompt.id: f"answer {n}\n" for n, item in enumerate(items)}
    for question, item in list(zip(alpaca_eval.questions(items, answers, config, JUDGE), items, strict=True))[
        ::20
    ]:
        switched = utils.random_seeded_choice(
            seed="is_switched_outputs" + item.prompt.instruction + "0", choices=[False, True]
        )
        outputs = [item.reference, answers[item.prompt.id]]
        first, second = reversed(outputs) if switched else outputs
        row = {"instruction": item.prompt.instruction, "output_1": first, "output_2": second}
        [text], _ = utils.make_prompts(pd.DataFrame([row]), template)
        assert question.messages == utils.prompt_to_chatml(text.strip())
        assert question.policy_first == switched
        assert question.parameters["max_tokens"] == 1
        assert question.parameters["top_logprobs"] == 5


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
    ("annotator", "said"),
    [
        ("weighted_alpaca_eval_gpt4_turbos", "Did you mean 'weighted_alpaca_eval_gpt4_turbo'"),
        ("alpaca_eval_gpt4", "does not answer with the single token"),
    ],
)
def test_an_annotator_that_cannot_be_used_is_refused(annotator, said):
    with pytest.raises(ConfigError, match=said):
        alpaca_eval.annotator_messages(annotator)
