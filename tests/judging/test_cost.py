"""What judging will cost and has cost, and the budget that stops it."""

import pytest

from rlhf_eval.config.schema import JudgeConfig
from rlhf_eval.errors import JudgeError
from rlhf_eval.files import read_jsonl
from rlhf_eval.judging import stage
from rlhf_eval.judging.cost import estimate, in_words, require_affordable
from rlhf_eval.judging.question import Question, Reading


def question(characters: int, max_tokens: int) -> Question:
    messages = [{"role": "user", "content": "x" * characters}]
    parameters = {"model": "m", "max_tokens": max_tokens}
    return Question("e", "p", 0, True, messages, parameters, (), lambda answer: Reading(1.0, None))


def test_the_estimate_by_hand() -> None:
    judge = JudgeConfig("j", "m", input_price=2.0, output_price=8.0, verdict_tokens=600)
    found = estimate(judge, [question(400, 1), question(4000, 16000)])
    assert (found.calls, found.input_tokens, found.output_tokens) == (2, 101 + 1001, 1 + 600)
    assert found.money == pytest.approx((1102 * 2 + 601 * 8) / 1e6)
    assert found.longest == 1001 + 16000
    assert in_words(found) == "2 calls, about 1,102 tokens in and 601 out, 0.01"
    assert estimate(JudgeConfig("j", "m"), []).money is None


def test_too_dear_or_too_long_is_refused_before_the_first_call() -> None:
    judge = JudgeConfig("j", "m", input_price=1000.0, output_price=0.0, budget=1.0, context_tokens=1500)
    with pytest.raises(JudgeError, match=r"2 calls .* cost about 1\.10, and judge\.budget is 1\.00"):
        require_affordable(judge, estimate(judge, [question(400, 1), question(4000, 1)]))
    few = JudgeConfig("j", "m", context_tokens=1000)
    with pytest.raises(JudgeError, match=r"about 1101 tokens.*context_tokens is 1000"):
        require_affordable(few, estimate(few, [question(4000, 100)]))
    require_affordable(judge, estimate(judge, [question(400, 1)]))


def test_the_budget_stops_the_run_and_what_was_paid_for_is_kept(
    judged_by, answers, endpoint, tmp_path
) -> None:
    def ask(budget: float) -> None:
        # Cheap by the estimate, which knows little, and dear by what the endpoint reports.
        prices = {"input_price": 0.001, "output_price": 1e6 / 50, "verdict_tokens": 1, "budget": budget}
        judge = judged_by(base_url=endpoint.address, concurrency=2, **prices)
        stage.judge(judge, answers, tmp_path / "judge", tmp_path / "cache", lambda done, total: None)

    with pytest.raises(JudgeError, match=r"has cost .*; judge\.budget is 5\.00"):
        ask(5.0)
    paid = endpoint.good
    assert 0 < paid < 100
    ask(1e9)
    assert endpoint.good == 100
    first, second = read_jsonl(tmp_path / "judge" / "spent.jsonl")
    assert (first["calls"], second["calls"]) == (paid, 100 - paid)
    for row in (first, second):
        money = (0.001 * row["input_tokens"] + 1e6 / 50 * row["output_tokens"]) / 1e6
        assert row["output_tokens"] > 0
        assert row["money"] == pytest.approx(money)
