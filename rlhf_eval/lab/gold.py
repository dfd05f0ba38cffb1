"""The gold standard as a reward model: it measures policies and trains none."""

from collections.abc import Sequence

import numpy as np

from rlhf_eval.config.schema import RewardModelConfig
from rlhf_eval.lab.world import utility
from rlhf_eval.records import Conversation, ScoreBatch
from rlhf_eval.rewards.interface import PointwiseRewardModel


class GoldReward(PointwiseRewardModel):
    """`world.utility` of the last turn, for the instruction before it."""

    def score(self, conversations: Sequence[Conversation]) -> ScoreBatch:
        scores = np.array([utility(talk[-2].content, talk[-1].content) for talk in conversations])
        return ScoreBatch(scores, np.ones(len(scores), dtype=bool))


def load(config: RewardModelConfig) -> GoldReward:
    return GoldReward()
