"""The models of a training, loaded in the trainer's processes."""

from typing import Any

from rlhf_eval.config.schema import PolicyConfig
from rlhf_eval.generation.policy import SAFELY, loading


def load_trainable(policy: PolicyConfig) -> Any:
    """The policy's whole weights in `policy.train_dtype`; the trainer puts them where they belong.

    Raises:
        DataError: it cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with loading(policy):
        return AutoModelForCausalLM.from_pretrained(
            policy.model,
            revision=policy.revision,
            dtype=getattr(torch, policy.train_dtype),
            **SAFELY,
        )
