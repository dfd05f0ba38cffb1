"""PPO's critic: what it is made of, how it sees what the policy sees, and its place in checkpoints."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlhf_eval.config.algorithm_schema import LoraConfig, PPOConfig
from rlhf_eval.config.schema import PolicyConfig
from rlhf_eval.generation.policy import SAFELY, loading

FILE = "critic.safetensors"
PART = "critic."
"""What the critic's weights are called in the policy's, after the names of what is around it."""


def attach_critic(model: Any, algorithm: PPOConfig, policy: PolicyConfig, checkpointing: bool) -> Any:
    """Make a critic part of the policy's module, so that one forward pass gives both, and one optimiser, DDP
    wrapper or DeepSpeed engine holds both. Its values begin at 0.

    Args:
        model: the policy, with its adapters if it has some.
        checkpointing: whether a trunk of the critic's own recomputes activations in the backward pass.

    Returns:
        The critic; see `hearing`.
    """
    causal = model.get_base_model() if hasattr(model, "peft_config") else model
    trunk = None if algorithm.critic == "value_head" else _trunk(algorithm, policy)
    if trunk is not None and checkpointing:  # before it gets adapters: PEFT then lets gradients into it
        trunk.gradient_checkpointing_enable()
    size = (trunk or causal).config.get_text_config().hidden_size
    # DeepSpeed wants all weights in one format, and under ZeRO-3 it does not convert them.
    causal.critic = _critic(_with_adapters(trunk, algorithm.lora), size).to(causal.device, causal.dtype)

    def listen(module: Any, words: Any, named: dict[str, Any], output: Any) -> None:
        if causal.critic.heard is not None:
            causal.critic.heard.append(causal.critic(output.last_hidden_state, named))

    # TRL's trainers call the policy's trunk and multiply by the head's weights themselves.
    causal.base_model.register_forward_hook(listen, with_kwargs=True)
    return causal.critic


@contextmanager
def hearing(critic: Any) -> Iterator[list[Any]]:
    """Inside the block every forward pass of the policy adds its values, (batch, all tokens), to the list."""
    critic.heard = []
    try:
        yield critic.heard
    finally:
        critic.heard = None


def split_off(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The policy's weights and the critic's, the latter under their own names."""
    critic = {
        f".{name}".split(f".{PART}", 1)[1]: value for name, value in state.items() if f".{PART}" in f".{name}"
    }
    return {name: value for name, value in state.items() if f".{PART}" not in f".{name}"}, critic


def save_critic(folder: Path, weights: dict[str, Any]) -> None:
    """Write a critic's weights beside the policy's."""
    from safetensors.torch import save_file

    whole = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    save_file(whole, folder / FILE, metadata={"format": "pt"})


def load_critic(critic: Any, folder: Path) -> None:
    """Read what `save_critic` wrote; weights that do not train are as they were loaded."""
    from safetensors.torch import load_file

    critic.load_state_dict(load_file(folder / FILE), strict=False)


def _trunk(algorithm: PPOConfig, policy: PolicyConfig) -> Any:
    import torch
    from transformers import AutoModel

    name, revision = policy.model, policy.revision
    if algorithm.critic == "classifier":
        assert algorithm.critic_model is not None
        name, revision = algorithm.critic_model, algorithm.critic_revision
    with loading(policy):
        return AutoModel.from_pretrained(
            name, revision=revision, dtype=getattr(torch, policy.train_dtype), **SAFELY
        )


def _with_adapters(trunk: Any, lora: LoraConfig | None) -> Any:
    """A critic's trunk trains as the policy does: adapters or all of it."""
    if trunk is None or lora is None:
        return trunk
    from peft import get_peft_model

    from rlhf_eval.training.arguments import peft_config

    # PEFT makes adapters of a model in 16 bits in 32; those of the policy have the model's format too.
    settings = peft_config(lora, None, "FEATURE_EXTRACTION")
    return get_peft_model(trunk, settings, autocast_adapter_dtype=False)


def _critic(trunk: Any, hidden_size: int) -> Any:
    import torch

    class ValueHead(torch.nn.Linear):
        """A linear layer that computes in 32 bits: values are small numbers that are subtracted from each
        other."""

        def forward(self, input: Any) -> Any:
            with torch.autocast(input.device.type, enabled=False):
                return torch.nn.functional.linear(input.float(), self.weight.float(), self.bias.float())

    class Critic(torch.nn.Module):
        """V(s_t) for every position of a text, read off the policy's hidden states or its own trunk's.

        Attributes:
            heard: where values go while somebody listens; None otherwise.
        """

        def __init__(self) -> None:
            super().__init__()
            self.trunk = trunk
            self.head = ValueHead(hidden_size, 1)
            torch.nn.init.zeros_(self.head.weight)
            torch.nn.init.zeros_(self.head.bias)
            self.heard: list[Any] | None = None

        def forward(self, hidden_BTD: Any, inputs: dict[str, Any]) -> Any:
            """Values of shape (batch, tokens)."""
            if self.trunk is not None:
                hidden_BTD = self.trunk(
                    input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
                ).last_hidden_state
            return self.head(hidden_BTD)[..., 0]

    return Critic()
