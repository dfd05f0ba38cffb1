"""InternLM2's reward models (Cai et al. 2024, arXiv:2403.17297), a Llama whose weights are stored otherwise.

transformers does not know the architecture; here its weights are renamed as they are read, so that none of
the remote modelling code is needed. The score is read at a reward token that closes the conversation.
"""

from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaModel, LlamaPreTrainedModel
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import ConversionOps, WeightConverter, WeightRenaming

NAMES = {
    r"tok_embeddings": "embed_tokens",
    r"attention_norm": "input_layernorm",
    r"ffn_norm": "post_attention_layernorm",
    r"attention\.wo": "self_attn.o_proj",
    r"feed_forward\.w1": "mlp.gate_proj",
    r"feed_forward\.w2": "mlp.down_proj",
    r"feed_forward\.w3": "mlp.up_proj",
}
"""Parts of parameter names: InternLM2's and Llama's."""


class RewardTokenScore(LlamaPreTrainedModel):
    """Llama's trunk and a value head without bias, `v_head`, which is read at the reward token."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.model = LlamaModel(config)
        self.v_head = nn.Linear(config.hidden_size, 1, bias=False)
        self.reward_token: int = config.reward_token_id
        self.post_init()

    def read(
        self, hidden_BTD: torch.Tensor, last_B: torch.Tensor, batch: list[tuple[int, ...]]
    ) -> torch.Tensor:
        return self.v_head(hidden_BTD[torch.arange(len(batch), device=hidden_BTD.device), last_B])


class SplitGroups(ConversionOps):
    """One matrix for queries, keys and values into three.

    Its rows lie in groups, one per key-value head: the group's query heads, then its key, then its value.
    """

    @torch.no_grad()
    def convert(
        self,
        input_dict: dict[str, Any],
        source_patterns: list[str],
        target_patterns: list[str],
        config: LlamaConfig | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        assert config is not None
        found = next(iter(input_dict.values()))
        weight = found[0] if isinstance(found, list) else found
        key_heads = int(config.num_key_value_heads or config.num_attention_heads)
        queries = config.num_attention_heads // key_heads
        width = weight.shape[0] // (config.num_attention_heads + 2 * key_heads)
        groups_KNHD = weight.view(key_heads, queries + 2, width, *weight.shape[1:])
        parts = (groups_KNHD[:, :queries], groups_KNHD[:, queries], groups_KNHD[:, queries + 1])
        return {
            name: part.reshape(-1, *weight.shape[1:]).contiguous()
            for name, part in zip(target_patterns, parts, strict=True)
        }


register_checkpoint_conversion_mapping(
    RewardTokenScore.__name__,
    [
        WeightConverter(
            r"attention.wqkv",
            ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
            operations=[SplitGroups()],
        ),
        *(WeightRenaming(theirs, ours) for theirs, ours in NAMES.items()),
    ],
    overwrite=True,
)
