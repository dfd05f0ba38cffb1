"""A small real policy, an adapter on it, and servers to ask."""

from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.files import read_json, write_json
from rlhf_eval.lab.world import all_tasks
from rlhf_eval.records import Prompt, user_prompt


@pytest.fixture(scope="session")
def prompts() -> list[Prompt]:
    """440 of the lab's instructions."""
    return [user_prompt(f"p{number}", task.instruction) for number, task in enumerate(all_tasks()[::8])]


@pytest.fixture(scope="module")
def lab_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's policy after a short training. Its generation config asks for what engines must not do (a
    repetition penalty, top_k), and for two more stop tokens, which they must heed."""
    from transformers import AutoTokenizer

    from rlhf_eval.config.schema import LabConfig
    from rlhf_eval.lab.policy import build

    folder = tmp_path_factory.mktemp("lab") / "policy"
    folder.mkdir()
    build(LabConfig(policy_steps=20), folder.parent, folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    own = read_json(folder / "generation_config.json")
    stops = [tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(["pine", "yellow"])]
    write_json(
        folder / "generation_config.json",
        own | {"eos_token_id": stops, "do_sample": True, "repetition_penalty": 2.0, "top_k": 1},
    )
    return folder


@pytest.fixture(scope="module")
def adapter(lab_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter on the lab's policy, strong enough to change its answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(1)
    lora = LoraConfig(
        r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False
    )
    base = AutoModelForCausalLM.from_pretrained(lab_policy)
    adapted: Any = get_peft_model(base, lora)
    adapted.save_pretrained(folder)
    return folder
