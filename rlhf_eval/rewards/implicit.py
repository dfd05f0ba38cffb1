"""Implicit reward models: a policy trained by DPO and its reference (Rafailov et al. 2023, equation 5).

The score is Σ log π(y_t) − Σ log π_ref(y_t) over the tokens of the last assistant turn, its end token
included: DPO's β·log(π/π_ref) without β, which changes no order.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rlhf_eval.config.reward_schema import RewardModelConfig
from rlhf_eval.errors import ConfigError
from rlhf_eval.records import Conversation, ScoreBatch
from rlhf_eval.rewards.batching import batches_by_tokens
from rlhf_eval.rewards.interface import PointwiseRewardModel
from rlhf_eval.rewards.local import Tokens, load_model, load_tokenizer, padded
from rlhf_eval.rewards.rendering import Renderer


class ImplicitRewardModel(PointwiseRewardModel):
    """Difference of two language models' log-probabilities of the answer."""

    def __init__(self, config: RewardModelConfig, render: Renderer, policy: Any, reference: Any) -> None:
        self.config = config
        self.render = render
        self.policy = policy
        self.reference = reference

    def score(self, conversations: Sequence[Conversation]) -> ScoreBatch:
        """Score each conversation; equal ones are computed once, in batches of similar lengths."""
        whole = self.render(conversations)
        prompts = self.render.opened([c[:-1] for c in conversations])
        # From the right, so that a conversation cut on the left keeps its answer.
        sizes = {
            ids: _answer_size(full, prompt)
            for ids, full, prompt in zip(
                whole, self.render.ids([self.render.text(c) for c in conversations]), prompts, strict=True
            )
            if ids
        }
        scores: dict[Tokens, float] = {}
        for batch in batches_by_tokens(list(sizes), self.config.batch_tokens):
            answers = [min(sizes[ids], len(ids) - 1) for ids in batch]
            difference = log_probabilities(self.policy, batch, answers) - log_probabilities(
                self.reference, batch, answers
            )
            scores |= dict(zip(batch, difference.tolist(), strict=True))
        values = np.array([scores[ids] if ids else np.nan for ids in whole], dtype=np.float64)
        valid = np.isfinite(values)
        return ScoreBatch(np.where(valid, values, np.nan), valid)


def load(config: RewardModelConfig) -> ImplicitRewardModel:
    """Load policy and reference.

    Raises:
        ConfigError: no reference is named.
        DataError: one of them cannot be loaded.
    """
    from transformers import AutoModelForCausalLM

    if not config.reference:
        raise ConfigError(
            f"The implicit reward model '{config.name}' has no reference policy.",
            "Name the model that DPO started from in reward_model.reference.",
        )
    reference = replace(config, model=config.reference, revision=config.reference_revision)
    return ImplicitRewardModel(
        config,
        Renderer(load_tokenizer(config), config),
        load_model(config, AutoModelForCausalLM),
        load_model(reference, AutoModelForCausalLM),
    )


def log_probabilities(model: Any, batch: Sequence[Tokens], answers: Sequence[int]) -> np.ndarray:
    """Log-probability of the last `answers[i]` tokens of each sequence given those before, shape (batch,)."""
    import torch

    with torch.inference_mode():
        ids_BT, mask_BT = padded(batch, model.device, 0)
        logits_BTV = model(ids_BT, attention_mask=mask_BT, use_cache=False).logits
        sums = []
        # Row by row: the logarithms of a whole batch over the vocabulary would double the memory.
        for row, (ids, size) in enumerate(zip(batch, answers, strict=True)):
            start, end = len(ids) - size, len(ids)
            chosen_T = logits_BTV[row, start - 1 : end - 1].float().log_softmax(-1)
            sums.append(chosen_T.gather(-1, ids_BT[row, start:end, None].to(chosen_T.device)).double().sum())
        return torch.stack(sums).cpu().numpy()


def _answer_size(full: Tokens, prompt: Tokens) -> int:
    """Tokens of the answer: those after what the conversation shares with its prompt."""
    shared = next((i for i, (a, b) in enumerate(zip(full, prompt, strict=False)) if a != b), len(prompt))
    return len(full) - min(shared, len(full) - 1)
