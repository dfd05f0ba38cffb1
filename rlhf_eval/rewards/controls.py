"""Reward models that are no candidates: what a ranking must put them below (or recognise) to be believed."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlhf_eval.config.reward_schema import RewardModelConfig
from rlhf_eval.errors import ConfigError
from rlhf_eval.records import Conversation, ScoreBatch
from rlhf_eval.rewards.interface import PointwiseRewardModel, RewardModel, load_reward_model


class RandomReward(PointwiseRewardModel):
    """Standard normal noise that depends on the text alone, so equal conversations score equally."""

    def score(self, conversations: Sequence[Conversation]) -> ScoreBatch:
        scores = np.array([_normal(conversation) for conversation in conversations], dtype=np.float64)
        return ScoreBatch(scores, np.ones(len(scores), dtype=bool))


class LengthReward(PointwiseRewardModel):
    """The number of characters of the last turn."""

    def score(self, conversations: Sequence[Conversation]) -> ScoreBatch:
        scores = np.array([len(conversation[-1].content) for conversation in conversations], dtype=np.float64)
        return ScoreBatch(scores, np.ones(len(scores), dtype=bool))


@dataclass(frozen=True)
class FlippedReward(PointwiseRewardModel):
    """Another reward model with its sign turned."""

    inner: RewardModel

    def score(self, conversations: Sequence[Conversation]) -> ScoreBatch:
        batch = self.inner.score(conversations)
        return ScoreBatch(-batch.scores, batch.valid)


@dataclass(frozen=True)
class ConstantReward(PointwiseRewardModel):
    """The same for everything: with it the KL penalty alone moves the policy."""

    value: float

    def score(self, conversations: Sequence[Conversation]) -> ScoreBatch:
        return ScoreBatch(np.full(len(conversations), self.value), np.ones(len(conversations), dtype=bool))


def load_constant(config: RewardModelConfig) -> ConstantReward:
    return ConstantReward(config.constant)


def load_random(config: RewardModelConfig) -> RandomReward:
    return RandomReward()


def load_length(config: RewardModelConfig) -> LengthReward:
    return LengthReward()


def load_flipped(config: RewardModelConfig) -> FlippedReward:
    if config.inner is None:
        raise ConfigError(
            f"Reward model '{config.name}' of kind 'flipped' wraps nothing.",
            "Give the wrapped reward model in the field `inner`.",
        )
    return FlippedReward(load_reward_model(config.inner))


def load_untrained(config: RewardModelConfig) -> RewardModel:
    raise ConfigError(
        f"'{config.name}' stands for the untrained policy and scores nothing.", "Choose a reward model."
    )


def _normal(conversation: Conversation) -> float:
    text = "\x1e".join(f"{message.role}\x1f{message.content}" for message in conversation)
    seed = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    return float(np.random.default_rng(seed).standard_normal())
