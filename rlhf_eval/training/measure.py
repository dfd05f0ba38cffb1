"""What is measured at every checkpoint: KL to the initial policy, proxy reward, gold reward, length."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlhf_eval.config.schema import GenerationConfig
from rlhf_eval.generation.transformers_engine import sample
from rlhf_eval.records import Comparison, Conversation, Prompt
from rlhf_eval.rewards.interface import RewardModel
from rlhf_eval.training.reward_function import RewardNormaliser, refuse_if_too_many_invalid

BATCH = 64


@dataclass(frozen=True)
class Measurement:
    """The same held-out prompts and the same random numbers at every checkpoint of every run."""

    reference: Any
    tokenizer: Any
    prompts: Sequence[Prompt]
    sampling: GenerationConfig
    reward_model: RewardModel
    normaliser: RewardNormaliser
    gold: RewardModel | None
    seed: int
    max_invalid_share: float

    def of(self, model: Any, step: int) -> dict[str, Any]:
        """One row of `metrics.jsonl`.

        KL is the mean over completions of Σ_t log π(y_t) − log π_ref(y_t) on samples of π: an unbiased
        estimate in nats per completion of the divergence from the initial policy (at temperature 1).

        Raises:
            StageError: too many invalid scores.
        """
        conversations, texts, divergences, lengths = [], [], [], []
        for start in range(0, len(self.prompts), BATCH):
            batch = self.prompts[start : start + BATCH]
            completions, tokens = sample(model, self.tokenizer, batch, self.sampling, self.seed + start)
            conversations += [p.answered(c.text) for p, c in zip(batch, completions, strict=True)]
            texts += [completion.text for completion in completions]
            lengths += [completion.tokens for completion in completions]
            now = _log_probabilities(model, self.tokenizer, tokens)
            divergences += (now - _log_probabilities(self.reference, self.tokenizer, tokens)).tolist()
        proxy = self._proxy(conversations, texts)
        refuse_if_too_many_invalid(np.isfinite(proxy), self.max_invalid_share)
        gold = None if self.gold is None else float(np.nanmean(self.gold.score(conversations).scores))
        return {
            "kind": "checkpoint",
            "step": step,
            "kl": float(np.mean(divergences)),
            "proxy_reward": float(np.nanmean(proxy)),
            "gold_reward": gold,
            "length_tokens": float(np.mean(lengths)),
            "n": len(conversations),
        }

    def _proxy(self, conversations: list[Conversation], texts: list[str]) -> np.ndarray:
        """Standardised scores, shape (prompts,).

        A reward model without a scale across prompts: its proxy is the log odds with which each answer beats
        the initial policy's, sampled with the same random numbers.
        """
        if not self.normaliser.within_prompt:
            return self.normaliser(self.reward_model.score(conversations).scores)
        opponents: list[str] = []
        for start in range(0, len(self.prompts), BATCH):
            batch = self.prompts[start : start + BATCH]
            completions, _ = sample(self.reference, self.tokenizer, batch, self.sampling, self.seed + start)
            opponents += [completion.text for completion in completions]
        comparisons = [Comparison(*row) for row in zip(self.prompts, texts, opponents, strict=True)]
        probability = np.clip(self.reward_model.compare(comparisons).probabilities, 1e-6, 1 - 1e-6)
        return np.log(probability / (1 - probability)) / self.normaliser.standard_deviation


def _log_probabilities(model: Any, tokenizer: Any, tokens: Sequence[tuple[list[int], list[int]]]) -> Any:
    """Log-probability of each completion given its prompt, shape (batch,)."""
    import torch

    rows = [prompt + answer for prompt, answer in tokens]
    width = max(map(len, rows))
    pad = tokenizer.pad_token_id
    ids_BT = torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=model.device)
    mask_BT = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=model.device)
    answer_BT = torch.tensor(
        [[0] * len(p) + [1] * len(a) + [0] * (width - len(p) - len(a)) for p, a in tokens],
        device=model.device,
    )
    with torch.inference_mode():
        logits_BTV = model(ids_BT, attention_mask=mask_BT).logits[:, :-1].float()
    chosen_BT = logits_BTV.log_softmax(-1).gather(-1, ids_BT[:, 1:, None])[..., 0]
    return (chosen_BT * answer_BT[:, 1:]).sum(-1).double().cpu().numpy()
