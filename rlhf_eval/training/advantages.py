"""PPO's arithmetic on tokens: rewards, advantages, returns, whitening. Tensors have shape (batch, tokens)."""

from typing import Any


def token_rewards(rewards_B: Any, kl_BT: Any, mask_BT: Any, kl_coefficient: float) -> Any:
    """r_t = −β (log π(y_t) − log π_0(y_t)), and at the last token the reward model's reward on top (Ziegler
    et al. 2019, eq. 2).

    Args:
        rewards_B: reward of each completion, shape (batch,); not finite where it is invalid.
        kl_BT: log π(y_t) − log π_0(y_t).
        mask_BT: 1 on completion tokens, which stand first in each row.
    """
    import torch

    rewards_BT = -kl_coefficient * kl_BT * mask_BT
    last_B = mask_BT.sum(1).long().clamp(min=1) - 1
    rows_B = torch.arange(len(last_B), device=last_B.device)
    rewards_BT[rows_B, last_B] += rewards_B.nan_to_num(0.0)
    return rewards_BT


def generalised_advantages(
    rewards_BT: Any, values_BT: Any, mask_BT: Any, gamma: float, gae_lambda: float
) -> Any:
    """Â_t = Σ_l (γλ)^l δ_{t+l} with δ_t = r_t + γ V(s_{t+1}) − V(s_t) (Schulman et al. 2016, eq. 16).

    The state after the last token of a completion has value 0: the answer has ended there.

    Args:
        values_BT: V(s_t), where s_t is the text before token t.
        mask_BT: 1 on completion tokens, which stand first in each row; advantages are 0 elsewhere.
    """
    import torch

    values_BT = values_BT * mask_BT
    advantages_BT = torch.zeros_like(values_BT)
    running_B = torch.zeros_like(values_BT[:, 0])
    next_value_B = torch.zeros_like(running_B)
    for t in reversed(range(values_BT.shape[1])):
        delta_B = rewards_BT[:, t] + gamma * next_value_B - values_BT[:, t]
        running_B = (delta_B + gamma * gae_lambda * running_B) * mask_BT[:, t]
        advantages_BT[:, t] = running_B
        next_value_B = values_BT[:, t]
    return advantages_BT


def whitened(values_BT: Any, mask_BT: Any) -> Any:
    """Shifted and scaled to mean 0 and variance 1 over the masked tokens of all processes; 0 elsewhere."""
    import torch
    from accelerate.utils import reduce

    masked_BT = values_BT.double() * mask_BT
    count, total, squares = reduce(
        torch.stack([mask_BT.sum().double(), masked_BT.sum(), (masked_BT**2).sum()]), "sum"
    )
    mean = total / count.clamp(min=1)
    variance = (squares / count.clamp(min=1) - mean**2).clamp(min=0)
    return ((values_BT - mean) * (variance + 1e-8).rsqrt() * mask_BT).to(values_BT.dtype)
