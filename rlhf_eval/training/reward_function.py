"""A reward model as the plain function that TRL calls, standardised on the initial policy's samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from rlhf_eval.errors import StageError
from rlhf_eval.records import Prompt, as_messages
from rlhf_eval.rewards.interface import RewardModel

NORMALISER_SAMPLES = 4
"""Completions of each prompt on which rewards are standardised."""
INVALID_MEMORY = 512
"""Completions over which the share of invalid scores is taken: a server's hiccup is not a trend."""


@dataclass(frozen=True)
class RewardNormaliser:
    """Mean and standard deviation of a reward model's scores on the initial policy's samples, frozen.

    Attributes:
        within_prompt: whether scores compare within a prompt only; then they are centred on their group, and
            the standard deviation is that around the groups' means.
    """

    mean: float
    standard_deviation: float
    within_prompt: bool = False

    @classmethod
    def fit(cls, groups: Sequence[np.ndarray], within_prompt: bool) -> "RewardNormaliser":
        """Measure once before training.

        Args:
            groups: for each prompt, scores of the initial policy's completions, NaN where invalid.

        Raises:
            StageError: no score is valid.
        """
        scores = np.concatenate([_centred(group) for group in groups] if within_prompt else list(groups))
        if not np.isfinite(scores).any():
            raise StageError(
                "The reward model gave no valid score on the initial policy's samples.",
                "Check reward_model.max_length and the reward model with `rlhf-eval validate`.",
            )
        # A constant reward model keeps its scale: there is nothing to divide by.
        mean = 0.0 if within_prompt else float(np.nanmean(scores))
        return cls(mean, float(np.nanstd(scores)) or 1.0, within_prompt)

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Standardise the scores of one prompt's completions, or of any if they compare across prompts."""
        if self.within_prompt:
            scores = _centred(scores)
        return (scores - self.mean) / self.standard_deviation


def refuse_if_too_many_invalid(valid: np.ndarray, max_invalid_share: float) -> None:
    """Raises StageError if more than that share of scores is invalid; what was trained so far is kept."""
    if len(valid) and (~valid).mean() > max_invalid_share:
        raise StageError(
            f"{int((~valid).sum())} of {len(valid)} scores of the reward model are invalid, more than "
            f"reward_model.max_invalid_share={max_invalid_share:g} allows.",
            "Check the reward model (its server, max_length, deadline), then give the same command again: it "
            "continues from the last checkpoint.",
        )


def _centred(scores: np.ndarray) -> np.ndarray:
    """Deviations from the mean of the valid scores; a group without any stays as it is."""
    return scores - np.nanmean(scores) if np.isfinite(scores).any() else scores


class RewardFunction:
    """What TRL takes as `reward_funcs`. An invalid score is None: TRL masks that row.

    The completions of one prompt stand side by side, which is how TRL's sampler lays them out; reward models
    that compare are given each such group as a whole.

    Args:
        normaliser: None until it is known; then set `normaliser`.
        max_invalid_share: of the last `INVALID_MEMORY` completions and of each call's. Beyond it a call
            raises StageError, so that the run stops and can be continued when the cause is mended.
    """

    __name__ = "reward"  # under which TRL logs it

    def __init__(
        self, reward_model: RewardModel, normaliser: RewardNormaliser | None, max_invalid_share: float
    ) -> None:
        self.normaliser = normaliser
        self._reward_model = reward_model
        self._max_invalid_share = max_invalid_share
        self._recently_invalid: list[bool] = []

    def __call__(
        self, prompts: list[Any], completions: list[Any], log_metric: Any = None, **_: Any
    ) -> list[float | None]:
        """Standardised rewards, shape (completions,)."""
        assert self.normaliser is not None
        texts = [completion[-1]["content"].strip() for completion in completions]
        groups = []
        for _, places in groupby(range(len(prompts)), key=lambda place: prompts[place]):
            places = list(places)
            prompt = Prompt(str(places[0]), as_messages(prompts[places[0]]))
            groups.append((prompt, [texts[place] for place in places]))
        batches = self._reward_model.score_groups(groups)
        values = np.concatenate([self.normaliser(batch.scores) for batch in batches])
        valid = np.concatenate([batch.valid for batch in batches])
        if log_metric is not None:
            log_metric("invalid_rewards", float((~valid).mean()))
        self._recently_invalid.extend((~valid).tolist())
        del self._recently_invalid[:-INVALID_MEMORY]
        refuse_if_too_many_invalid(valid, self._max_invalid_share)
        refuse_if_too_many_invalid(~np.array(self._recently_invalid), self._max_invalid_share)
        return [float(v) if ok else None for v, ok in zip(values, valid, strict=True)]
