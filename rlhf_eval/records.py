"""The nouns that every part of the project shares. Read this first.

A *prompt* is a conversation that ends with the user's turn; a *completion* is what a policy answered;
a *comparison* sets two completions of one prompt side by side; a *verdict* is what a judge said of one.
Everything is text: token ids belong to one model and never cross a module border.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


Conversation = tuple[Message, ...]
"""Turns in order. A conversation to be scored ends with the assistant's turn."""


def as_messages(content: Any) -> Conversation:
    """A user's turn given as text, or turns given as a list of `{"role", "content"}`."""
    if isinstance(content, str):
        return (Message("user", content),)
    return tuple(Message(message["role"], message["content"]) for message in content)


def as_json(conversation: Conversation) -> list[dict[str, str]]:
    """Turns as the chat format has them: a list of `{"role", "content"}`."""
    return [{"role": message.role, "content": message.content} for message in conversation]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation that awaits an answer. `id` is unique within its set and stable across runs."""

    id: str
    messages: Conversation

    @property
    def instruction(self) -> str:
        """The last user turn: what single-turn evaluations call the instruction."""
        return self.messages[-1].content

    def answered(self, text: str) -> Conversation:
        """The whole conversation with `text` as the assistant's turn."""
        return (*self.messages, Message("assistant", text))


def user_prompt(id: str, text: str) -> Prompt:
    """A single-turn prompt."""
    return Prompt(id, (Message("user", text),))


@dataclass(frozen=True, slots=True)
class Completion:
    """A policy's answer to one prompt.

    Attributes:
        tokens: number of sampled tokens, the end token included.
        finish: "stop" if the policy ended its turn, "length" if it was cut at the limit.
    """

    prompt_id: str
    text: str
    tokens: int
    finish: Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers to one prompt, in the order in which a judge or reward model sees them."""

    prompt: Prompt
    completion_a: str
    completion_b: str

    def swap(self) -> "Comparison":
        """The same two answers in the other order."""
        return Comparison(self.prompt, self.completion_b, self.completion_a)


@dataclass(frozen=True, slots=True)
class ScoreBatch:
    """A reward model's scores of a list of conversations.

    Attributes:
        scores: shape (batch,), float64; NaN where `valid` is False.
        valid: shape (batch,), bool; an invalid score is masked and counted, never replaced by zero.
        heads: shape (batch, heads), float64: what a model with several heads said before they were combined;
            None for all others.
    """

    scores: np.ndarray
    valid: np.ndarray
    heads: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class PreferenceBatch:
    """What a reward model thinks of a list of comparisons.

    Attributes:
        probabilities: shape (batch,), float64 in [0, 1]: P(completion_a ≻ completion_b); NaN where not valid.
        valid: shape (batch,), bool.
    """

    probabilities: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one judge call said, or why it said nothing. One line of `stages/judge/<evaluation>.jsonl`.

    Attributes:
        evaluation: "alpaca_eval" or "arena_hard".
        prompt_id: id of the prompt in that evaluation's set.
        game: 0 or 1; the second game shows the same two answers in the other order.
        policy_first: whether the policy's answer was shown first (as assistant A or output 1).
        key: content hash of everything that was asked (judge, template, parameters, texts, order).
        preference: in [0, 1], 1 = the policy's answer is better; None if the call failed.
        label: the verdict as the judge gave it, such as "A>>B"; None where log-probabilities decide.
        error: cause of the failure; None if there is a preference.
        text: the judge's raw answer.
        answered_by: the model that the endpoint says it is, a dated snapshot where it tells one; None where
            it tells nothing, or nobody was asked.
    """

    evaluation: str
    prompt_id: str
    game: int
    policy_first: bool
    key: str
    preference: float | None
    label: str | None
    error: str | None
    text: str
    answered_by: str | None = None
