"""Rewards on their way into GRPO: grouped by prompt, standardised, and stopped when too many are invalid."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from rlhf_eval.config.reward_schema import GroupConfig
from rlhf_eval.errors import StageError
from rlhf_eval.records import Comparison, Conversation, PreferenceBatch, ScoreBatch, user_prompt
from rlhf_eval.rewards.interface import PairwiseRewardModel, PointwiseRewardModel
from rlhf_eval.training.reward_function import RewardFunction, RewardNormaliser


class WordCount(PointwiseRewardModel):
    """Counts words; "?" has no score."""

    def score(self, conversations: Sequence[Conversation]) -> ScoreBatch:
        scores = np.array(
            [np.nan if "?" in c[-1].content else len(c[-1].content.split()) for c in conversations]
        )
        return ScoreBatch(scores, np.isfinite(scores))


class MoreWords(PairwiseRewardModel):
    """Prefers more words, and remembers what it compared."""

    name = "more words"
    group = GroupConfig()

    def __init__(self) -> None:
        self.seen: list[Comparison] = []

    def compare(self, comparisons: Sequence[Comparison]) -> PreferenceBatch:
        self.seen += comparisons
        sizes = [(len(c.completion_a.split()), len(c.completion_b.split())) for c in comparisons]
        return PreferenceBatch(
            np.array([1 / (1 + np.exp(b - a)) for a, b in sizes]), np.ones(len(sizes), dtype=bool)
        )


def asked(*groups: Sequence[str]) -> dict[str, Any]:
    """What TRL hands over: one prompt and one completion a row, conversational."""
    return {
        "prompts": [[{"role": "user", "content": f"prompt {n}"}] for n, g in enumerate(groups) for _ in g],
        "completions": [[{"role": "assistant", "content": text}] for group in groups for text in group],
    }


PROMPTS = [user_prompt(str(n), f"prompt {n}") for n in range(2)]


def test_scores_are_standardised_on_the_initial_policys() -> None:
    normaliser = RewardNormaliser.fit([np.array([1.0, 3.0]), np.array([np.nan])], within_prompt=False)
    assert (normaliser.mean, normaliser.standard_deviation) == (2.0, 1.0)
    reward = RewardFunction(WordCount(), normaliser, 0.5)
    assert reward(**asked(["a", "a b c d"], ["?", "a b"])) == [-1.0, 2.0, None, 0.0]


def test_scores_that_compare_within_a_prompt_only_are_centred_there() -> None:
    groups = [np.array([1.0, 3.0]), np.array([5.0, 3.0])]
    normaliser = RewardNormaliser.fit(groups, within_prompt=True)
    assert (normaliser.mean, normaliser.standard_deviation) == (0.0, 1.0)
    reward = RewardFunction(WordCount(), normaliser, 0.5)
    assert reward(**asked(["a", "a b c", "?"], ["a", "a"])) == [-1.0, 1.0, None, 0.0, 0.0]


def test_a_comparing_reward_model_sees_whole_groups_of_one_prompt() -> None:
    judge = MoreWords()
    reward = RewardFunction(judge, RewardNormaliser(0.0, 1.0, within_prompt=True), 0.5)
    rewards = reward(**asked(["a", "a b", "a b c"], ["a b", "a"]))
    assert len(judge.seen) == 3 + 1
    assert {c.prompt.instruction for c in judge.seen[:3]} == {"prompt 0"}
    assert np.argsort(np.array(rewards[:3], dtype=float)).tolist() == [0, 1, 2]
    assert rewards[3] is not None
    assert rewards[4] is not None
    assert rewards[3] > rewards[4]


def test_too_many_invalid_scores_stop_the_run() -> None:
    reward = RewardFunction(WordCount(), RewardNormaliser(0.0, 1.0), 0.25)
    logged: dict[str, float] = {}
    assert reward(**asked(["a", "a", "a", "?"]), log_metric=logged.__setitem__)[3] is None
    assert logged == {"invalid_rewards": 0.25}
    with pytest.raises(StageError, match=r"2 of 4 scores .* are invalid.*max_invalid_share=0\.25"):
        reward(**asked(["?", "a", "a", "?"]))


def test_a_reward_model_without_any_valid_score_is_refused_before_training() -> None:
    with pytest.raises(StageError, match="no valid score"):
        RewardNormaliser.fit([np.array([np.nan, np.nan])], within_prompt=False)
