"""What judging costs: estimated before the first paid call, counted on the way, capped by a budget."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_eval.config.schema import JudgeConfig
from rlhf_eval.errors import JudgeError
from rlhf_eval.judging.question import Question

CHARACTERS_PER_TOKEN = 4
"""Of English under the usual tokenizers, roughly: a hosted judge's own cannot be had."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the open questions will take.

    Attributes:
        input_tokens, output_tokens: estimated; the output of text verdicts by `judge.verdict_tokens`.
        money: in the currency of the prices; None where they are not given.
        longest: estimated tokens of the longest question with its answer.
    """

    calls: int
    input_tokens: int
    output_tokens: int
    money: float | None
    longest: int


def estimate(judge: JudgeConfig, questions: Sequence[Question]) -> Estimate:
    """The cost of questions that no verdict is known for."""
    inputs = [
        sum(len(message["content"]) for message in question.messages) // CHARACTERS_PER_TOKEN + 1
        for question in questions
    ]
    outputs = [min(judge.verdict_tokens, question.parameters["max_tokens"]) for question in questions]
    return Estimate(
        calls=len(questions),
        input_tokens=sum(inputs),
        output_tokens=sum(outputs),
        money=_money(judge, sum(inputs), sum(outputs)),
        longest=max(
            (i + question.parameters["max_tokens"] for i, question in zip(inputs, questions, strict=True)),
            default=0,
        ),
    )


def in_words(expected: Estimate) -> str:
    """What a user is told before the first call."""
    money = "" if expected.money is None else f", {expected.money:.2f}"
    tokens = f"about {expected.input_tokens:,} tokens in and {expected.output_tokens:,} out"
    return f"{expected.calls} calls, {tokens}{money}"


def require_affordable(judge: JudgeConfig, expected: Estimate) -> None:
    """Raises JudgeError if the estimate exceeds the budget, or a question the judge's context."""
    if judge.budget is not None and expected.money is not None and expected.money > judge.budget:
        raise JudgeError(
            f"{expected.calls} calls to judge '{judge.name}' will cost about {expected.money:.2f}, and "
            f"judge.budget is {judge.budget:.2f}.",
            "Raise judge.budget, choose a cheaper judge, or set prompts.<evaluation>.limit.",
        )
    if judge.context_tokens is not None and expected.longest > judge.context_tokens:
        raise JudgeError(
            f"The longest question with its verdict takes about {expected.longest} tokens, and "
            f"judge.context_tokens is {judge.context_tokens}.",
            "Choose a judge with more context, or lower judge.max_tokens or generation.max_tokens.",
        )


class Spending:
    """What has been paid in this process, by the tokens that the endpoint reports."""

    def __init__(self, judge: JudgeConfig) -> None:
        self.judge = judge
        self.calls = 0
        self.input_tokens = 0
        self.output_tokens = 0

    def add(self, response: Any) -> None:
        """Count one answered call."""
        self.calls += 1
        usage = response.get("usage") if isinstance(response, dict) else None
        if isinstance(usage, dict):
            self.input_tokens += usage.get("prompt_tokens") or 0
            self.output_tokens += usage.get("completion_tokens") or 0

    @property
    def money(self) -> float | None:
        """In the currency of the judge's prices; None without prices."""
        return _money(self.judge, self.input_tokens, self.output_tokens)

    def as_row(self) -> dict[str, Any]:
        """A line of `stages/judge/spent.jsonl`."""
        names = ("calls", "input_tokens", "output_tokens", "money")
        return {"judge": self.judge.name} | {name: getattr(self, name) for name in names}

    def require_left(self) -> None:
        """Raises JudgeError if the budget is used up."""
        spent = self.money
        if self.judge.budget is not None and spent is not None and spent >= self.judge.budget:
            raise JudgeError(
                f"Judge '{self.judge.name}' has cost {spent:.2f}; judge.budget is {self.judge.budget:.2f}.",
                "Raise judge.budget and give the same command again: verdicts are kept.",
            )


def _money(judge: JudgeConfig, input_tokens: int, output_tokens: int) -> float | None:
    if judge.input_price is None or judge.output_price is None:
        return None
    return (input_tokens * judge.input_price + output_tokens * judge.output_price) / 1e6
