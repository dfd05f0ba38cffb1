"""Reward models that answer in words: generative ones here, and judges behind an API.

Asked for a comparison, they say which answer is better, in both orders; asked for a rating, they say a
number. Where the engine gives probabilities of the labels, those are read instead of the text: a label that
is 51 % likely then counts as 0.51 and not as 1.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from rlhf_eval.config.reward_schema import RewardModelConfig, VerdictConfig
from rlhf_eval.errors import ConfigError
from rlhf_eval.records import Comparison, Conversation, Message, PreferenceBatch, ScoreBatch
from rlhf_eval.rewards.interface import PairwiseRewardModel, PointwiseRewardModel
from rlhf_eval.rewards.rendering import check

PROMPTS = Path(__file__).parent / "prompts"


class Engine(Protocol):
    """Answers questions with the probabilities of the labels."""

    def __call__(self, questions: Sequence[Conversation]) -> np.ndarray:
        """Shape (questions, labels): each row sums to one, or is NaN where there is no verdict."""
        ...


def prompt_file(verdict: VerdictConfig) -> Path:
    """Where the prompt of a verdict stands.

    Raises:
        ConfigError: there is no such prompt.
    """
    shipped = PROMPTS / f"{verdict.prompt}.jinja"
    path = shipped if shipped.is_file() else Path(verdict.prompt).expanduser()
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in PROMPTS.glob("*.jinja")))
        raise ConfigError(
            f"reward_model.verdict.prompt: there is no '{verdict.prompt}'.",
            f"Give the path of a file, or one of those shipped: {known}.",
        )
    return path


class Prompting:
    """Writes the questions of one reward model."""

    def __init__(self, verdict: VerdictConfig) -> None:
        from jinja2 import StrictUndefined
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        # A prompt may come with somebody's weights; it makes text and reaches nothing else.
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
        self.verdict = verdict
        with self._understood():
            self.template = environment.from_string(prompt_file(verdict).read_text(encoding="utf-8"))

    def __call__(self, prompt: Conversation, **answers: str) -> Conversation:
        with self._understood():
            text = self.template.render(
                instruction=instruction(prompt), explain=self.verdict.read == "text", **answers
            )
        system = (Message("system", self.verdict.system),) if self.verdict.system else ()
        return (*system, Message("user", text.strip()))

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """Raises ConfigError for what Jinja refuses."""
        from jinja2 import TemplateError

        try:
            yield
        except TemplateError as error:
            raise ConfigError(
                f"reward_model.verdict.prompt: '{self.verdict.prompt}' is no usable template: {error}.",
                "Mend it; it may use `instruction`, `explain`, and `answer_a` and `answer_b`, or `answer`.",
            ) from error


class ComparingJudge(PairwiseRewardModel):
    """P(a ≻ b) is the probability of the first label, averaged over both orders."""

    def __init__(self, config: RewardModelConfig, verdict: VerdictConfig, engine: Engine) -> None:
        self.name = config.name
        self.group = config.group
        self.both_orders = verdict.both_orders
        self.ask = Prompting(verdict)
        self.engine = engine

    def compare(self, comparisons: Sequence[Comparison]) -> PreferenceBatch:
        first = self.compare_as_shown(comparisons).probabilities
        if self.both_orders:
            second = self.compare_as_shown([comparison.swap() for comparison in comparisons]).probabilities
            first = (first + 1 - second) / 2
        return PreferenceBatch(first, np.isfinite(first))

    def compare_as_shown(self, comparisons: Sequence[Comparison]) -> PreferenceBatch:
        questions = [
            self.ask(c.prompt.messages, answer_a=c.completion_a, answer_b=c.completion_b) for c in comparisons
        ]
        first = self.engine(questions)[:, 0]
        return PreferenceBatch(first, np.isfinite(first))


class RatingJudge(PointwiseRewardModel):
    """The mean rating over the probabilities of the labels, which are numbers."""

    def __init__(self, verdict: VerdictConfig, engine: Engine) -> None:
        self.ratings = np.array([float(label) for label in verdict.labels])
        self.ask = Prompting(verdict)
        self.engine = engine

    def score(self, conversations: Sequence[Conversation]) -> ScoreBatch:
        check(conversations)
        questions = [self.ask(c[:-1], answer=c[-1].content) for c in conversations]
        scores = self.engine(questions) @ self.ratings
        return ScoreBatch(scores, np.isfinite(scores))


def load_judge(config: RewardModelConfig, engine: Engine) -> ComparingJudge | RatingJudge:
    """A judge of the style that `config.verdict` asks for, on an engine."""
    verdict = verdict_of(config)
    if verdict.style == "comparison":
        return ComparingJudge(config, verdict, engine)
    return RatingJudge(verdict, engine)


def verdict_of(config: RewardModelConfig) -> VerdictConfig:
    """How a judge is asked.

    Raises:
        ConfigError: it is not said, or a rating's labels are no numbers.
    """
    verdict = config.verdict
    if verdict is None:
        raise ConfigError(
            f"Reward model '{config.name}' answers in words, but not how it is asked.",
            "Fill reward_model.verdict (at least `prompt`).",
        )
    if verdict.style == "rating" and not all(re.fullmatch(r"-?\d+(\.\d+)?", x) for x in verdict.labels):
        raise ConfigError(
            f"reward_model.verdict.labels: {', '.join(verdict.labels)} are no ratings.",
            "Give numbers, such as [1, 2, 3, 4, 5].",
        )
    return verdict


def read_label(text: str, verdict: VerdictConfig) -> np.ndarray:
    """What a text says, as probabilities of the labels, shape (labels,): one is 1, or all are NaN."""
    found = re.findall(verdict.pattern, text)
    if not found or found[-1] not in verdict.labels:
        return np.full(len(verdict.labels), np.nan)
    return np.array([float(label == found[-1]) for label in verdict.labels])


def instruction(prompt: Conversation) -> str:
    """What was asked, as text: the user's turn, or all turns by name where there are several."""
    if len(prompt) == 1:
        return prompt[0].content
    return "\n\n".join(f"{message.role.capitalize()}: {message.content}" for message in prompt)
