"""Controls say nothing about quality, in the way that their names say."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from rlhf_eval.config.schema import RewardModelConfig
from rlhf_eval.records import user_prompt
from rlhf_eval.rewards.interface import load_reward_model

RANDOM = load_reward_model(RewardModelConfig(name="random", kind="random", control=True))
LENGTH = load_reward_model(RewardModelConfig(name="length_only", kind="length", control=True))


def test_random_is_standard_normal_and_the_same_for_the_same_text() -> None:
    conversations = [user_prompt("x", "Say a number.").answered(str(number)) for number in range(2000)]
    scores = RANDOM.score(conversations).scores
    assert kstest(scores, "norm").pvalue > 0.001
    assert np.array_equal(RANDOM.score(conversations[::-1]).scores[::-1], scores)


@given(prompt=st.text(), answer=st.text())
def test_length_counts_the_answer_alone(prompt: str, answer: str) -> None:
    [score] = LENGTH.score([user_prompt("x", prompt).answered(answer)]).scores
    assert score == len(answer)


@given(text=st.text())
def test_flipped_length_prefers_what_length_rejects(text: str) -> None:
    inner = RewardModelConfig(name="length_only", kind="length", control=True)
    flipped = load_reward_model(RewardModelConfig(name="flipped", kind="flipped", control=True, inner=inner))
    batch = flipped.score([user_prompt("x", "?").answered(text), user_prompt("x", "?").answered(text + "!")])
    assert batch.scores[0] > batch.scores[1]
    assert batch.valid.all()
