"""A reward model as the plain function that TRL calls, standardised on the initial policy's samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlhf_eval.benchmarks.pairs import as_messages
from rlhf_eval.errors import StageError
from rlhf_eval.records import Conversation, Message
from rlhf_eval.rewards.interface import RewardModel


@dataclass(frozen=True)
class RewardNormaliser:
    """Mean and standard deviation of a reward model's scores on the initial policy's samples, frozen."""

    mean: float
    standard_deviation: float

    @classmethod
    def fit(cls, reward_model: RewardModel, conversations: Sequence[Conversation]) -> "RewardNormaliser":
        """Measure once before training.

        Raises:
            StageError: no score is valid.
        """
        scores = reward_model.score(conversations).scores
        if not np.isfinite(scores).any():
            raise StageError(
                "The reward model gave no valid score on the initial policy's samples.",
                "Check reward_model.max_length and the reward model with `rlhf-eval validate`.",
            )
        # A constant reward model keeps its scale: there is nothing to divide by.
        return cls(float(np.nanmean(scores)), float(np.nanstd(scores)) or 1.0)

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        return (scores - self.mean) / self.standard_deviation


def reward_function(
    reward_model: RewardModel, normaliser: RewardNormaliser
) -> Callable[..., list[float | None]]:
    """What GRPOTrainer takes as `reward_funcs`. An invalid score is None: TRL masks that row."""

    def reward(prompts: list[Any], completions: list[Any], **_: Any) -> list[float | None]:
        conversations = [
            (*as_messages(prompt), Message("assistant", completion[-1]["content"].strip()))
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        batch = reward_model.score(conversations)
        values = normaliser(batch.scores)
        return [float(v) if ok else None for v, ok in zip(values, batch.valid, strict=True)]

    return reward
