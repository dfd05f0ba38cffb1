"""Reward models that read their score off the hidden state of the answer's last token.

`classifier`    Bradley-Terry: one logit (Ouyang et al. 2022, equation 1), or several summed with weights
`armorm`        ArmoRM: 19 objectives and a gate
`urm`           URM: attributes with normal distributions and learned weights
`inform`        INF-ORM: a head of two layers
`internlm2`     InternLM2: a value head at a reward token that closes the conversation
`token_logit`   a language model's logit of one token (Nemotron-70B-Reward)
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rlhf_eval.config.reward_schema import RewardModelConfig
from rlhf_eval.errors import DataError
from rlhf_eval.rewards.local import (
    LocalRewardModel,
    Tokens,
    last_positions,
    load_model,
    load_tokenizer,
    padded,
)
from rlhf_eval.rewards.rendering import Renderer

ReadHeads = Callable[[Any, Any, list[Tokens]], Any]
"""(hidden states (batch, tokens, width), last positions (batch,), token ids) → heads (batch, heads)."""


def load_classifier(config: RewardModelConfig) -> LocalRewardModel:
    """A sequence classifier from the hub or a folder.

    Raises:
        DataError: not there, or a head that the checkpoint does not hold.
    """
    from transformers import AutoModelForSequenceClassification

    heads = len(config.head_weights) or 1
    model = load_model(config, AutoModelForSequenceClassification, num_labels=heads)
    return _reader(config, model, lambda hidden, last, batch: model.score(_at(hidden, last)))


def load_armorm(config: RewardModelConfig) -> LocalRewardModel:
    """ArmoRM; raises as `load_classifier`."""
    from rlhf_eval.rewards.architectures import GatedObjectives

    model = load_model(config, GatedObjectives)
    return _reader(config, model, model.read)


def load_urm(config: RewardModelConfig) -> LocalRewardModel:
    """URM; raises as `load_classifier`."""
    from rlhf_eval.rewards.architectures import NormalAttributes

    model = load_model(config, NormalAttributes)
    return _reader(config, model, model.read)


def load_inform(config: RewardModelConfig) -> LocalRewardModel:
    """INF-ORM; raises as `load_classifier`."""
    from rlhf_eval.rewards.architectures import TwoLayerHead

    model = load_model(config, TwoLayerHead)
    return _reader(config, model, model.read)


def load_internlm2(config: RewardModelConfig) -> LocalRewardModel:
    """An InternLM2 reward model; raises as `load_classifier`."""
    from rlhf_eval.rewards.internlm2 import RewardTokenScore

    model = load_model(config, RewardTokenScore)
    return _reader(config, model, model.read, closing=(model.reward_token,))


def load_token_logit(config: RewardModelConfig) -> LocalRewardModel:
    """A causal language model whose logit of the vocabulary id `config.token` is the score."""
    from transformers import AutoModelForCausalLM

    model = load_model(config, AutoModelForCausalLM)
    output = model.get_output_embeddings()
    only = slice(config.token, config.token + 1)
    return _reader(config, model, lambda hidden, last, batch: output(_at(hidden, last))[:, only])


def _reader(config: RewardModelConfig, model: Any, read: ReadHeads, closing: Tokens = ()) -> LocalRewardModel:
    tokenizer = load_tokenizer(config)
    forward = LastTokenForward(model, tokenizer, read, closing)
    return LocalRewardModel(config, Renderer(tokenizer, config), forward)


class LastTokenForward:
    """The heads at each sequence's last token.

    The trunk runs on the whole batch, the heads on single positions. Where transformers would search for the
    last token that is not padding, the position is known here by length, so padding may be any token but one
    that ends the conversation: a checkpoint whose padding does was trained on the token before.

    Attributes:
        closing: token ids put after each conversation, on the last of which the score is read.
    """

    def __init__(self, model: Any, tokenizer: Any, read: ReadHeads, closing: Tokens = ()) -> None:
        self.model = model
        self.read = read
        self.closing = closing
        own = model.config.pad_token_id
        self.pad = tokenizer.pad_token_id if own is None else own

    def __call__(self, batch: Sequence[Tokens]) -> np.ndarray:
        import torch

        batch = [(*ids, *self.closing) for ids in batch]
        if any(ids[-1] == self.pad for ids in batch):
            raise DataError(
                f"Conversations for '{self.model.name_or_path}' end with its padding token (id {self.pad}), "
                "so it is not known whether the score belongs to that token or to the one before.",
                "Set pad_token in its tokenizer_config.json and config.json to a token that ends no turn.",
            )
        with torch.inference_mode():
            ids_BT, mask_BT = padded(batch, self.model.device, self.pad or 0)
            hidden_BTD = self.model.base_model(ids_BT, attention_mask=mask_BT, use_cache=False)[0]
            last_B = last_positions(batch, hidden_BTD.device)
            return self.read(hidden_BTD, last_B, batch).float().cpu().numpy()


def _at(hidden_BTD: Any, last_B: Any) -> Any:
    """Hidden state at one position of each row, shape (batch, width)."""
    import torch

    return hidden_BTD[torch.arange(len(last_B), device=hidden_BTD.device), last_B]
