"""Annotators of the `alpaca-eval` package: which can be used; answers are read as its own parsers do."""

import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_eval.errors import ConfigError
from rlhf_eval.judging import annotators
from rlhf_eval.judging.question import JudgeAnswer, UnreadableAnswer

RANKED = "[{'model': 'model_1', 'rank': %s}, {'model': 'model_2', 'rank': 1}]"
TEXTS = [
    *(RANKED % rank for rank in ("1", "2", "3", "'1'", "None", "[1]", "2.0")),
    "[{'model': 'model_2', 'rank': 1}]",
    "[]",
    "{'model': 'model_1', 'rank': 1}",
    json.dumps([{"rank": 1, "model": "model_1"}]),
    "Sure! [{'model': 'model_1', 'rank': 1}]",
    "[" * 200,
    "Output (a)",
    "I would say\n Output (b)",
    "Output (a) Output (b)",
    "Output (a)\nOutput (a)",
    "The Output (a) is better.",
    "8 7",
    "7,8\nThe second.",
    "7 7\n",
    "8",
    "8 7 6",
    "eight seven",
    " ",
]


def answer(text: str = "m", **first_token: float) -> JudgeAnswer:
    return JudgeAnswer(text, first_token or None, "stop")


def share(name: str, given_answer: JudgeAnswer) -> float | None:
    try:
        return annotators.load(name).first_share(given_answer)
    except UnreadableAnswer:
        return None


@pytest.mark.parametrize(
    ("annotator", "parser"),
    [("alpaca_eval_gpt4", "ranking_parser"), ("gpt4", "regex_parser"), ("lmsys_gpt4", "lmsys_parser")],
)
def test_texts_are_read_as_the_package_reads_them(annotator, parser):
    parsers = pytest.importorskip("alpaca_eval.completion_parsers")
    matched = {1: r"(?:^|\n) ?Output \(a\)", 2: r"(?:^|\n) ?Output \(b\)"}
    for text in TEXTS:
        kwargs = {"outputs_to_match": dict(matched)} if parser == "regex_parser" else {}
        numbers = getattr(parsers, parser)(text, **kwargs)
        # 1 is the first, 2 the second, 0 a draw; more than one number, or NaN, is no annotation there.
        expected = {1: 1.0, 2: 0.0, 0: 0.5}.get(numbers[0]) if len(numbers) == 1 else None
        assert share(annotator, answer(text)) == expected, text


@given(first=st.floats(-60, 0) | st.none(), second=st.floats(-60, 0) | st.none(), other=st.floats(-60, 0))
@settings(max_examples=60)
@pytest.mark.parametrize("annotator", ["gpt4_turbo_logprob", "gpt4_turbo_clf"])
def test_tokens_are_read_as_the_package_reads_them(annotator, first, second, other):
    parsers = pytest.importorskip("alpaca_eval.completion_parsers")
    tokens = {
        token: value for token, value in {"A": first, "B": second, "The": other}.items() if value is not None
    }
    content = [{"top_logprobs": [{"token": token, "logprob": value} for token, value in tokens.items()]}]
    [number] = parsers.logprob_parser(
        {"logprobs": {"content": content}}, "A", ["A", "B"], is_binarize=annotator == "gpt4_turbo_clf"
    )
    found = share(annotator, JudgeAnswer("A", tokens, "length"))
    assert (found is None) == math.isnan(number)
    assert found is None or found == pytest.approx(2 - number, abs=1e-12)


@given(st.text(alphabet="[]{}'(),:-. 0123456789modelrank_\\\nx"))
def test_no_text_breaks_the_reading(text):
    for name in ("alpaca_eval_gpt4", "gpt4", "lmsys_gpt4"):
        assert share(name, answer(text)) in (None, 0.0, 0.5, 1.0)


def test_every_annotator_of_the_package_can_be_used_or_is_refused_with_its_reason():
    folder = annotators.package_file("evaluators_configs")
    names = {path.parent.name for path in folder.glob("*/configs.yaml")}
    usable, reasons = set(), {}
    for name in names:
        try:
            annotator = annotators.load(name)
        except ConfigError as error:
            reasons[name] = re.sub(r"^The annotator '.*' cannot be put to a judge here: ", "", error.what)
        else:
            usable.add(name)
            text = "".join(content for _, content in annotator.messages)
            assert all(f"{{{field}}}" in text for field in ("instruction", "output_1", "output_2"))
    assert {
        "weighted_alpaca_eval_gpt4_turbo",
        "weighted_alpaca_eval_gpt4_turbo_new",
        "weighted_alpaca_eval_gpt-4o-mini-2024-07-18",
        "weighted_alpaca_eval_vllm_llama3_70b",
        "alpaca_eval_gpt4",
        "alpaca_eval_llama3_70b_fn",
        "claude_3_opus_ranking",
        "mistral-large-2402_ranking",
    } <= usable
    assert reasons["alpaca_eval_cot_gpt4_turbo_fn"] == "it answers by a function call."
    assert reasons["weighted_alpaca_eval_cot_gpt4_turbo"].startswith("it reads log-probabilities at the end")
    assert reasons["alpaca_farm"] == "it is a pool of 13 annotators."
    assert reasons["alpaca_farm_greedy_gpt4"] == "it shows several comparisons in one prompt."
    assert reasons["claude"] == "its prompt is not written for a chat."


def test_an_unknown_annotator_gets_a_guess():
    with pytest.raises(ConfigError, match="Did you mean 'weighted_alpaca_eval_gpt4_turbo'"):
        annotators.load("weighted_alpaca_eval_gpt4_turbos")
