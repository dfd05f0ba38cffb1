"""A checkpoint becomes the published policy: converted tensor by tensor, whatever files it is made of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.config.schema import PolicyConfig
from rlhf_eval.files import read_json, write_json
from rlhf_eval.training.checkpoints import INDEX, publish


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_llama: Callable[..., Any]) -> Path:
    """A policy with tied embeddings in float32, in several files, which also hold the output's weights under
    their own name, as DeepSpeed writes them."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    folder = tmp_path / "checkpoint-4"
    LlamaForCausalLM(tiny_llama(folder, tie_word_embeddings=True)).save_pretrained(
        folder, max_shard_size="20KB"
    )
    index = read_json(folder / INDEX)
    name = index["weight_map"]["model.embed_tokens.weight"]
    held = load_file(folder / name)
    assert "lm_head.weight" not in held
    save_file(
        held | {"lm_head.weight": held["model.embed_tokens.weight"].clone()}, folder / name, {"format": "pt"}
    )
    write_json(folder / INDEX, index | {"weight_map": index["weight_map"] | {"lm_head.weight": name}})
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_published_policy_is_the_checkpoint_in_the_policys_format(
    checkpoint: Path, dtype: str, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    publish(checkpoint, tmp_path / "policy", PolicyConfig(name="p", model="m", dtype=dtype))  # type: ignore[arg-type]
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "policy", output_loading_info=True)
    model, told = loaded
    assert not any(told.values()), told
    expected = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=getattr(torch, dtype)).state_dict()
    assert model.state_dict().keys() == expected.keys()
    for name, value in model.state_dict().items():
        assert value.dtype == getattr(torch, dtype)
        assert value.equal(expected[name])
    assert AutoTokenizer.from_pretrained(tmp_path / "policy").chat_template
    index = read_json(tmp_path / "policy" / INDEX)
    assert "lm_head.weight" not in index["weight_map"]
    assert index["metadata"]["total_size"] == sum(p.nbytes for p in model.parameters())
    assert len(set(index["weight_map"].values())) > 1
    assert not (tmp_path / "policy.writing").exists()
