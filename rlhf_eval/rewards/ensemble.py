"""Several reward models as one (Coste et al. 2024, arXiv:2310.02743; MetaMetrics, Winata et al. 2024)."""

from collections.abc import Mapping, Sequence

import numpy as np

from rlhf_eval.config.reward_schema import EnsembleConfig, MemberConfig, RewardModelConfig
from rlhf_eval.errors import ConfigError
from rlhf_eval.records import Conversation, ScoreBatch
from rlhf_eval.rewards.interface import PointwiseRewardModel, RewardModel, load_reward_model


class EnsembleRewardModel(PointwiseRewardModel):
    """Scaled scores of all members, combined; invalid where one member's is.

    The heads of its scores are the members' scaled scores, in the order of the configuration.
    """

    def __init__(self, config: EnsembleConfig, members: Mapping[str, RewardModel]) -> None:
        self.config = config
        self.members = members

    def score(self, conversations: Sequence[Conversation]) -> ScoreBatch:
        scaled_BM = np.column_stack(
            [
                _scaled(self.members[name].score(conversations), member)
                for name, member in self.config.members.items()
            ]
        )
        weights = np.array([member.weight for member in self.config.members.values()])
        scores = {
            "mean": lambda: scaled_BM.mean(axis=1),
            "minimum": lambda: scaled_BM.min(axis=1),
            "mean_minus_std": lambda: (
                scaled_BM.mean(axis=1) - self.config.std_coefficient * scaled_BM.std(axis=1)
            ),
            "weighted": lambda: scaled_BM @ weights,
        }[self.config.combine]()
        return ScoreBatch(scores, np.isfinite(scores), scaled_BM)


def load(config: RewardModelConfig) -> EnsembleRewardModel:
    """Load every member.

    Raises:
        ConfigError: there are no members, or one only compares.
        DataError: one cannot be loaded.
    """
    if config.ensemble is None:
        raise ConfigError(f"The ensemble '{config.name}' has no members.", "Fill reward_model.ensemble.")
    members = {
        name: load_reward_model(member.reward_model) for name, member in config.ensemble.members.items()
    }
    for name, member in members.items():
        if member.only_compares:
            raise ConfigError(
                f"Member '{name}' of ensemble '{config.name}' only compares answers.",
                "Choose members that score.",
            )
    return EnsembleRewardModel(config.ensemble, members)


def _scaled(batch: ScoreBatch, member: MemberConfig) -> np.ndarray:
    scaled = (batch.scores - member.offset) / member.scale
    return np.clip(scaled, 0.0, 1.0) if member.clip else scaled
