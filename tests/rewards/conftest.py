"""Tiny reward models of the true architectures, written to disk as their checkpoints are."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from rlhf_eval.config.reward_schema import RewardModelConfig
from rlhf_eval.files import write_json
from rlhf_eval.lab.world import all_tasks, demonstration
from rlhf_eval.records import Conversation, user_prompt

WORDS = "cat dog hammer saw drill file plum cherry fig mango really also well".split()
OWN = {
    "armorm": {"num_objectives": 5, "gating_hidden_dim": 16},
    "urm": {"num_labels": 6},
    # vLLM's attention on the CPU takes heads of 32 and more.
    "wide_llama": {"head_dim": 32},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Callable[..., Any]) -> Callable[..., Path]:
    """A function: architecture name → folder of a random reward model or language model of it."""
    made: dict[str, Path] = {}

    def build(name: str) -> Path:
        if name not in made:
            import torch

            folder = tmp_path_factory.mktemp(name)
            config = tiny_llama(folder, max_position_embeddings=4096, **OWN.get(name, {}))
            torch.manual_seed(sum(map(ord, name)))
            if name == "internlm2":
                _save_internlm2(folder, config)
            else:
                _model(name, config).save_pretrained(folder)
            made[name] = folder
        return made[name]

    return build


def _model(name: str, config: Any) -> Any:
    import transformers

    from rlhf_eval.rewards import architectures

    kind = {
        "llama": "Llama",
        "wide_llama": "Llama",
        "qwen3": "Qwen3",
        "gemma2": "Gemma2",
        "mistral": "Mistral",
        "qwen2": "Qwen2",
    }
    if name in kind:
        shared = {
            key: getattr(config, key)
            for key in (
                "vocab_size",
                "hidden_size",
                "intermediate_size",
                "num_hidden_layers",
                "num_attention_heads",
                "max_position_embeddings",
                "eos_token_id",
                "pad_token_id",
                "bos_token_id",
            )
        }
        own = getattr(transformers, f"{kind[name]}Config")(
            **shared, num_key_value_heads=1, head_dim=config.head_dim, num_labels=1
        )
        model = getattr(transformers, f"{kind[name]}ForSequenceClassification")(own)
    elif name == "language_model":
        model = transformers.LlamaForCausalLM(config)
    else:
        custom = {
            "armorm": architectures.GatedObjectives,
            "urm": architectures.NormalAttributes,
            "inform": architectures.TwoLayerHead,
        }
        model = custom[name](config)
    return _contrasted(model)


def _contrasted(model: Any) -> Any:
    """Random weights that tell inputs apart, which the default start does not."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.2)
    return model


def _save_internlm2(folder: Path, config: Any) -> None:
    """A Llama with a value head in the published form of InternLM2: other names; queries, keys and values in
    one matrix, a key head and its query heads at a time. `llama/` beside it holds the same trunk as Llama."""
    import torch
    import transformers
    from safetensors.torch import save_file

    config.num_attention_heads, config.num_key_value_heads, config.head_dim = 4, 2, 8
    config.rope_parameters = {"rope_type": "default", "rope_theta": 1e6}
    trunk = _contrasted(transformers.LlamaModel(config))
    trunk.save_pretrained(folder / "llama")
    renamed = {
        "model.tok_embeddings.weight": trunk.embed_tokens.weight,
        "model.norm.weight": trunk.norm.weight,
    }
    for number, layer in enumerate(trunk.layers):
        place, attention = f"model.layers.{number}", layer.self_attn
        rows = []
        for head in range(2):
            rows += [attention.q_proj.weight[16 * head : 16 * head + 16]]
            rows += [attention.k_proj.weight[8 * head : 8 * head + 8]]
            rows += [attention.v_proj.weight[8 * head : 8 * head + 8]]
        renamed |= {
            f"{place}.attention.wqkv.weight": torch.cat(rows),
            f"{place}.attention.wo.weight": attention.o_proj.weight,
            f"{place}.feed_forward.w1.weight": layer.mlp.gate_proj.weight,
            f"{place}.feed_forward.w2.weight": layer.mlp.down_proj.weight,
            f"{place}.feed_forward.w3.weight": layer.mlp.up_proj.weight,
            f"{place}.attention_norm.weight": layer.input_layernorm.weight,
            f"{place}.ffn_norm.weight": layer.post_attention_layernorm.weight,
        }
    renamed["v_head.weight"] = torch.randn(1, config.hidden_size)
    weights = {name: tensor.detach().clone() for name, tensor in renamed.items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    plain = {key: value for key, value in config.to_dict().items() if key != "rope_parameters"}
    theirs = {
        "model_type": "internlm2",
        "architectures": ["InternLM2ForRewardModel"],
        "attn_implementation": "eager",
        "bias": False,
        "reward_token_id": 5,
        "rope_theta": 1e6,
        # Frequencies change beyond max_position_embeddings only.
        "rope_scaling": {"type": "dynamic", "factor": 2.0},
    }
    write_json(folder / "config.json", plain | theirs)


@pytest.fixture
def conversations() -> Callable[..., list[Conversation]]:
    """A function: number and range of words → conversations of the lab's words."""

    def build(count: int, shortest: int = 3, longest: int = 60, seed: int = 1) -> list[Conversation]:
        random, tasks = Random(seed), all_tasks()
        made = []
        for _ in range(count):
            task = random.choice(tasks)
            text = demonstration(task, random, 0.3)
            text += " " + " ".join(random.choices(WORDS, k=random.randint(shortest, longest)))
            made.append(user_prompt("x", task.instruction).answered(text))
        return made

    return build


@pytest.fixture
def config_of() -> Callable[..., RewardModelConfig]:
    """A function: folder, kind and changes → configuration."""

    def build(folder: Path | str, kind: str = "classifier", **changes: Any) -> RewardModelConfig:
        return RewardModelConfig(name="tiny", kind=kind, model=str(folder), **changes)

    return build
