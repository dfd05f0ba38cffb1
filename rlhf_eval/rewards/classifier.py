"""Bradley-Terry reward models: a sequence classifier with one logit (Ouyang et al. 2022, equation 1)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlhf_eval.config.schema import RewardModelConfig
from rlhf_eval.errors import DataError
from rlhf_eval.records import Conversation, ScoreBatch
from rlhf_eval.rewards.batching import batches_by_tokens


class ClassifierReward:
    """One logit over the conversation rendered with the reward model's own chat template."""

    def __init__(self, model: Any, tokenizer: Any, config: RewardModelConfig) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.config = config

    def score(self, conversations: Sequence[Conversation]) -> ScoreBatch:
        """Score each conversation; one that is longer than `max_length` or not finite is invalid.

        Conversations are sorted by length and batched by tokens; equal ones are computed once.
        """
        import torch

        rendered = [self._render(conversation) for conversation in conversations]
        unique = list(dict.fromkeys(tuple(ids) for ids in rendered if len(ids) <= self.config.max_length))
        scores: dict[tuple[int, ...], float] = {}
        for batch in batches_by_tokens(unique, self.config.batch_tokens):
            with torch.inference_mode():
                logits_B = self._forward(batch)
            scores |= dict(zip(batch, logits_B, strict=True))
        values = np.array([scores.get(tuple(ids), np.nan) for ids in rendered], dtype=np.float64)
        return ScoreBatch(np.where(np.isfinite(values), values, np.nan), np.isfinite(values))

    def _render(self, conversation: Conversation) -> list[int]:
        messages = [{"role": message.role, "content": message.content} for message in conversation]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False)
        # The template writes the beginning-of-sequence token and the tokenizer would add a second one.
        if self.tokenizer.bos_token and text.startswith(self.tokenizer.bos_token):
            text = text[len(self.tokenizer.bos_token) :]
        return self.tokenizer(text).input_ids

    def _forward(self, batch: Sequence[tuple[int, ...]]) -> list[float]:
        import torch

        width, pad = max(map(len, batch)), self.tokenizer.pad_token_id
        ids_BT = torch.tensor([[*ids, *[pad] * (width - len(ids))] for ids in batch])
        mask_BT = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in batch])
        device = self.model.device
        return self.model(ids_BT.to(device), attention_mask=mask_BT.to(device)).logits[:, 0].float().tolist()


def load(config: RewardModelConfig) -> ClassifierReward:
    """Load weights and tokenizer from the hub or a folder.

    Raises:
        DataError: not there; no padding token of its own; a head that the checkpoint does not hold.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(config.model, revision=config.revision)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            config.model,
            revision=config.revision,
            dtype=getattr(torch, config.dtype),
            num_labels=1,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:
        raise DataError(
            f"Reward model '{config.model}' cannot be loaded: {str(error).splitlines()[0]}",
            "Check reward_model.model and .revision, network and HF_TOKEN, or give a local folder.",
        ) from error
    if info["missing_keys"]:
        raise DataError(
            f"Reward model '{config.model}' lacks {', '.join(sorted(info['missing_keys']))}: its scores "
            "would be random.",
            "Name a checkpoint that was trained as a reward model.",
        )
    # The classifier reads the last token that is not padding: padding must be a token that ends no turn.
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise DataError(
            f"The tokenizer of '{config.model}' has no padding token of its own.",
            "Set pad_token in its tokenizer_config.json to a token that ends no turn.",
        )
    model.config.pad_token_id = tokenizer.pad_token_id
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return ClassifierReward(model.to(device).eval(), tokenizer, config)
