"""A rule in the user's own Python as a reward model."""

import importlib.util
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import numpy as np

from rlhf_eval.config.reward_schema import RewardModelConfig
from rlhf_eval.errors import ConfigError
from rlhf_eval.records import Conversation, ScoreBatch
from rlhf_eval.rewards.interface import PointwiseRewardModel
from rlhf_eval.rewards.rendering import check

Rule = Callable[[str, str], float]
"""(the user's last turn, the completion) → score; NaN where the rule does not apply."""


class RuleReward(PointwiseRewardModel):
    """The rule's value; what it raises propagates."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule

    def score(self, conversations: Sequence[Conversation]) -> ScoreBatch:
        check(conversations)
        scores = np.array([float(self.rule(c[-2].content, c[-1].content)) for c in conversations])
        valid = np.isfinite(scores)
        return ScoreBatch(np.where(valid, scores, np.nan), valid)


def load(config: RewardModelConfig) -> RuleReward:
    """The function that `config.function` names.

    Raises:
        ConfigError: no function is named, or there is none of that name.
    """
    place, _, name = config.function.rpartition(":")
    if not place:
        raise ConfigError(
            f"Reward model '{config.name}' of kind 'rule' names no function.",
            "Set reward_model.function to package.module:function or path/to/file.py:function.",
        )
    try:
        if place.endswith(".py"):
            specification = importlib.util.spec_from_file_location(Path(place).stem, place)
            assert specification is not None
            assert specification.loader is not None
            module = importlib.util.module_from_spec(specification)
            specification.loader.exec_module(module)
        else:
            module = import_module(place)
        return RuleReward(getattr(module, name))
    except (ImportError, FileNotFoundError, AttributeError) as error:
        raise ConfigError(
            f"reward_model.function: '{config.function}' cannot be had: {error}.",
            "Check the path or module, and the function's name.",
        ) from error
