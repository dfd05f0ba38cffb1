"""What every reward model can do, whatever its kind."""

from collections.abc import Sequence
from typing import Protocol

from rlhf_eval.config.schema import RewardModelConfig
from rlhf_eval.records import Conversation, ScoreBatch
from rlhf_eval.rewards.kinds import KINDS


class RewardModel(Protocol):
    """Scores conversations; the higher the better."""

    def score(self, conversations: Sequence[Conversation]) -> ScoreBatch:
        """Score each conversation's last turn, independently of the others in the list."""
        ...


def load_reward_model(config: RewardModelConfig) -> RewardModel:
    """The reward model that a configuration describes, ready to score.

    Raises:
        ConfigError: unknown kind.
        DataError: its weights cannot be loaded.
    """
    return KINDS.get(config.kind)(config)
