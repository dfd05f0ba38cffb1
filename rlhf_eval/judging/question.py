"""One call to a judge: what is asked, and how its answer becomes a verdict."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rlhf_eval.config.schema import JudgeConfig
from rlhf_eval.files import sha256_json
from rlhf_eval.records import Verdict


class UnreadableAnswer(Exception):
    """The judge answered, but what it said is no verdict; the message is the cause."""


@dataclass(frozen=True, slots=True)
class JudgeAnswer:
    """What came back from one call.

    Attributes:
        text: the answer's text.
        first_token: natural log-probabilities of the likeliest first tokens; None if the judge gave none.
        finish: why the answer ended, such as "stop" or "length".
    """

    text: str
    first_token: dict[str, float] | None
    finish: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer says: the policy's preference in [0, 1], and the label if the judge gave one."""

    preference: float
    label: str | None


@dataclass(frozen=True)
class Question:
    """One comparison as one judge is asked for it.

    Attributes:
        policy_first: whether the policy's answer is shown first.
        messages: the chat messages, as the API takes them.
        parameters: model name and sampling parameters, as the API takes them.
        endpoint: which judge answers where the model name does not say it (the `serve` command).
        read: turns an answer into a reading, or raises `UnreadableAnswer`.
        settled: the reading where no judge is needed (identical answers), else None.
    """

    evaluation: str
    prompt_id: str
    game: int
    policy_first: bool
    messages: list[dict[str, str]]
    parameters: dict[str, Any]
    endpoint: tuple[str, ...]
    read: Callable[[JudgeAnswer], Reading]
    settled: Reading | None = None

    @cached_property
    def key(self) -> str:
        """Content hash of everything that decides the answer; the messages hold template, texts and order."""
        return sha256_json(
            {
                "evaluation": self.evaluation,
                "prompt_id": self.prompt_id,
                "policy_first": self.policy_first,
                "messages": self.messages,
                "parameters": self.parameters,
                "endpoint": self.endpoint,
            }
        )

    def answered(self, answer: JudgeAnswer) -> Verdict:
        """The verdict that an answer holds; a failed one if it cannot be read."""
        try:
            return self.verdict(self.read(answer), answer.text)
        except UnreadableAnswer as cause:
            return self.failed(str(cause), answer.text)

    def verdict(self, reading: Reading, text: str) -> Verdict:
        """The verdict with a preference."""
        return self._record(reading.preference, reading.label, None, text)

    def failed(self, cause: str, text: str = "") -> Verdict:
        """The verdict of a call that brought none."""
        return self._record(None, None, cause, text)

    def _record(self, preference: float | None, label: str | None, error: str | None, text: str) -> Verdict:
        return Verdict(
            self.evaluation,
            self.prompt_id,
            self.game,
            self.policy_first,
            self.key,
            preference,
            label,
            error,
            text,
        )


def sampling(judge: JudgeConfig) -> dict[str, Any]:
    """The request parameters that every evaluation shares."""
    return {"model": judge.model, "temperature": judge.temperature, "max_tokens": judge.max_tokens}
