"""What every reward model can do, whatever its kind.

Two families: those that score one conversation at a time, and those that only compare two answers. Each gets
the other's abilities from its own, so that whoever uses a reward model need not know which it is.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from rlhf_eval.config.reward_schema import GroupConfig, RewardModelConfig
from rlhf_eval.errors import ConfigError
from rlhf_eval.records import Comparison, Conversation, PreferenceBatch, Prompt, ScoreBatch
from rlhf_eval.rewards.kinds import KINDS
from rlhf_eval.rewards.tournament import play

Group = tuple[Prompt, Sequence[str]]
"""A prompt and completions of it."""


class RewardModel(ABC):
    """Says how good answers are; the higher the better.

    Attributes:
        only_compares: whether `score` is refused and scores of different groups have no common scale.
    """

    only_compares: bool

    @abstractmethod
    def score(self, conversations: Sequence[Conversation]) -> ScoreBatch:
        """Score each conversation's last turn, independently of the others in the list.

        Raises:
            ConfigError: this reward model only compares.
            DataError: a conversation is malformed.
        """

    @abstractmethod
    def compare(self, comparisons: Sequence[Comparison]) -> PreferenceBatch:
        """P(a ≻ b) for each comparison, the same whichever answer stands first."""

    def compare_as_shown(self, comparisons: Sequence[Comparison]) -> PreferenceBatch:
        """P(a ≻ b) as answered with `a` shown first; `compare` averages over both orders."""
        return self.compare(comparisons)

    @abstractmethod
    def score_groups(self, groups: Sequence[Group]) -> list[ScoreBatch]:
        """Score the completions of each prompt; scores are comparable within a group at least."""


class PointwiseRewardModel(RewardModel):
    """Scores conversations; subclasses give `score`."""

    only_compares = False

    def compare(self, comparisons: Sequence[Comparison]) -> PreferenceBatch:
        """Bradley-Terry (1952): P(a ≻ b) is the logistic function of the difference in scores."""
        batch = self.score(
            [c.prompt.answered(text) for c in comparisons for text in (c.completion_a, c.completion_b)]
        )
        scores, valid = batch.scores.reshape(-1, 2), np.asarray(batch.valid.reshape(-1, 2).all(axis=1))
        difference = np.where(valid, scores[:, 0] - scores[:, 1], np.nan)
        return PreferenceBatch(1 / (1 + np.exp(-difference)), valid)

    def score_groups(self, groups: Sequence[Group]) -> list[ScoreBatch]:
        batch = self.score([prompt.answered(text) for prompt, texts in groups for text in texts])
        ends = np.cumsum([len(texts) for _, texts in groups])[:-1]
        return [
            ScoreBatch(scores, np.asarray(valid))
            for scores, valid in zip(np.split(batch.scores, ends), np.split(batch.valid, ends), strict=True)
        ]


class PairwiseRewardModel(RewardModel):
    """Compares answers; subclasses give `compare` and set `name` and `group`."""

    only_compares = True
    name: str
    group: GroupConfig

    def score(self, conversations: Sequence[Conversation]) -> ScoreBatch:
        raise ConfigError(
            f"Reward model '{self.name}' compares two answers and cannot score one by itself.",
            "Choose one that scores, or give it several completions of each prompt (`completions` in the "
            "input of `rlhf-eval reward score`).",
        )

    def score_groups(self, groups: Sequence[Group]) -> list[ScoreBatch]:
        """Strengths of the completions from comparisons with each other (see `tournament`)."""
        return play(groups, self.group, self.compare)


def load_reward_model(config: RewardModelConfig) -> RewardModel:
    """The reward model that a configuration describes, ready to score.

    Raises:
        ConfigError: unknown kind, or a field that the kind needs is not set.
        DataError: its weights cannot be loaded.
    """
    reward_model = KINDS.get(config.kind)(config)
    if reward_model.only_compares and config.comparability != "pair":
        raise ConfigError(
            f"Reward model '{config.name}' only compares answers, but its comparability is "
            f"'{config.comparability}'.",
            "Set reward_model.comparability=pair.",
        )
    return reward_model
