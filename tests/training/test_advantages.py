"""PPO's arithmetic beside the definitions in the papers, written as loops over single numbers."""

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_eval.training.advantages import generalised_advantages, token_rewards, whitened

Rows = list[list[float]]


@dataclass(frozen=True)
class Texts:
    """A batch of completions of several lengths, padded to the longest they may have. Each table has shape
    (batch, tokens); numbers stand on padding too, because models give some there."""

    lengths: list[int]
    rewards: Rows
    values: Rows

    @property
    def mask(self) -> torch.Tensor:
        tokens = len(self.rewards[0])
        return torch.tensor([[int(t < length) for t in range(tokens)] for length in self.lengths])


@st.composite
def texts(draw: st.DrawFn) -> Texts:
    batch, tokens = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    lengths = draw(st.lists(st.integers(0, tokens), min_size=batch, max_size=batch))
    row = st.lists(st.floats(-5, 5), min_size=tokens, max_size=tokens)
    tables = st.lists(row, min_size=batch, max_size=batch)
    return Texts(lengths, draw(tables), draw(tables))


def reference(made: Texts, gamma: float, gae_lambda: float) -> Rows:
    """Schulman et al. 2016, equation 16, term by term."""
    advantages = []
    for length, rewards, values in zip(made.lengths, made.rewards, made.values, strict=True):
        row = [0.0] * len(rewards)
        for t in range(length):
            for later in range(t, length):
                value_after = values[later + 1] if later + 1 < length else 0.0
                delta = rewards[later] + gamma * value_after - values[later]
                row[t] += (gamma * gae_lambda) ** (later - t) * delta
        advantages.append(row)
    return advantages


def computed(made: Texts, gamma: float, gae_lambda: float) -> torch.Tensor:
    """Rewards are zero on padding, as `token_rewards` leaves them."""
    rewards = torch.tensor(made.rewards, dtype=torch.float64) * made.mask
    values = torch.tensor(made.values, dtype=torch.float64)
    return generalised_advantages(rewards, values, made.mask, gamma, gae_lambda)


@given(texts(), st.floats(0.01, 1), st.floats(0, 1))
def test_advantages_are_the_sum_of_the_definition(made: Texts, gamma: float, gae_lambda: float) -> None:
    expected = torch.tensor(reference(made, gamma, gae_lambda), dtype=torch.float64)
    torch.testing.assert_close(computed(made, gamma, gae_lambda), expected, rtol=1e-9, atol=1e-9)


@given(texts())
def test_without_discount_and_critic_advantages_are_the_rewards_to_go(made: Texts) -> None:
    zero = Texts(made.lengths, made.rewards, [[0.0] * len(row) for row in made.values])
    for length, rewards, row in zip(
        made.lengths, made.rewards, computed(zero, 1.0, 1.0).tolist(), strict=True
    ):
        assert row[:length] == pytest.approx([math.fsum(rewards[t:length]) for t in range(length)], abs=1e-9)
        assert set(row[length:]) <= {0.0}


@given(texts())
def test_a_critic_that_knows_the_returns_leaves_no_advantage(made: Texts) -> None:
    zero = Texts(made.lengths, made.rewards, [[0.0] * len(row) for row in made.values])
    knowing = Texts(made.lengths, made.rewards, computed(zero, 1.0, 1.0).tolist())
    assert computed(knowing, 1.0, 0.95).abs().max() < 1e-9


def test_the_reward_comes_with_the_last_token_and_kl_with_every_one() -> None:
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    kl = torch.tensor([[0.5, -1.0, 2.0, 99.0], [0.0, 0.0, 1.0, 3.0], [4.0, 99.0, 99.0, 99.0]])
    rewards = token_rewards(torch.tensor([10.0, -2.0, 1.0]), kl, mask, 0.1)
    expected = [[-0.05, 0.1, 9.8, 0.0], [0.0, 0.0, -0.1, -2.3], [0.6, 0.0, 0.0, 0.0]]
    torch.testing.assert_close(rewards, torch.tensor(expected))


def test_an_invalid_reward_is_none() -> None:
    mask, kl = torch.ones(2, 3, dtype=torch.long), torch.ones(2, 3)
    rewards = token_rewards(torch.tensor([math.nan, 1.0]), kl, mask, 0.5)
    assert rewards.tolist() == [[-0.5, -0.5, -0.5], [-0.5, -0.5, 0.5]]


@given(texts(), st.floats(-100, 100))
def test_whitened_values_have_mean_0_and_variance_1_where_they_count(made: Texts, shift: float) -> None:
    mask = made.mask
    values = torch.tensor(made.values, dtype=torch.float64) + shift
    counted = values[mask.bool()]
    result = whitened(values, mask)
    assert result.dtype == values.dtype
    assert (result[~mask.bool()] == 0).all()
    white = result[mask.bool()]
    if len(counted) > 1 and counted.std() > 0.01:
        assert white.mean().item() == pytest.approx(0, abs=1e-6)
        assert white.var(correction=0).item() == pytest.approx(1, abs=1e-3)
        torch.testing.assert_close(
            white * counted.std(correction=0) + counted.mean(), counted, rtol=1e-3, atol=1e-3
        )
    else:
        assert white.isfinite().all()
