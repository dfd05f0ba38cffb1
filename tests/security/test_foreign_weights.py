"""Weights of somebody else: no pickle is read and none of their Python runs, unless it is allowed by name."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.config.algorithm_schema import PPOConfig
from rlhf_eval.config.reward_schema import (
    EnsembleConfig,
    MemberConfig,
    RewardModelConfig,
    VerdictConfig,
)
from rlhf_eval.config.schema import PolicyConfig
from rlhf_eval.errors import ConfigError, DataError
from rlhf_eval.files import read_json, write_json
from rlhf_eval.generation.policy import load_tokenizer, parts_of, published_stop_tokens
from rlhf_eval.generation.transformers_engine import load_policy
from rlhf_eval.records import user_prompt
from rlhf_eval.rewards.interface import load_reward_model
from rlhf_eval.rewards.verdicts import Prompting
from rlhf_eval.training.critic import attach_critic
from rlhf_eval.training.trainers import load_trainable

EVIL = """
import os
os.mkdir({trace!r})
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification
from transformers import PreTrainedTokenizerFast

class EvilConfig(LlamaConfig):
    model_type = "evil"

class EvilModel(LlamaForCausalLM):
    config_class = EvilConfig

class EvilClassifier(LlamaForSequenceClassification):
    config_class = EvilConfig

class EvilTokenizer(PreTrainedTokenizerFast):
    pass
"""


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """What is there as soon as something foreign was executed."""
    return tmp_path / "executed"


@pytest.fixture
def sound(tmp_path: Path, tiny_llama: Callable[..., Any]) -> Path:
    """A language model as it should be."""
    from transformers import LlamaForCausalLM

    folder = tmp_path / "sound"
    LlamaForCausalLM(tiny_llama(folder)).save_pretrained(folder)
    return folder


@pytest.fixture
def pickled(tmp_path: Path, tiny_llama: Callable[..., Any], trace: Path) -> Path:
    """A model whose weights are a pickle, and that a trap."""
    import torch

    folder = tmp_path / "pickled"
    tiny_llama(folder).save_pretrained(folder)
    torch.save({"model.norm.weight": Trap(trace)}, folder / "pytorch_model.bin")
    return folder


@pytest.fixture
def coded(tmp_path: Path, tiny_llama: Callable[..., Any], trace: Path, monkeypatch: Any) -> Path:
    """A model and tokenizer that bring Python along, and a user who says yes to whatever is asked."""
    folder = tmp_path / "coded"
    tiny_llama(folder).save_pretrained(folder)
    (folder / "evil.py").write_text(EVIL.format(trace=str(trace)))
    models = {
        "AutoConfig": "evil.EvilConfig",
        "AutoModel": "evil.EvilModel",
        "AutoModelForCausalLM": "evil.EvilModel",
        "AutoModelForSequenceClassification": "evil.EvilClassifier",
    }
    own = read_json(folder / "config.json")
    write_json(folder / "config.json", own | {"model_type": "evil", "auto_map": models})
    own = read_json(folder / "tokenizer_config.json")
    tokenizers = {"AutoTokenizer": [None, "evil.EvilTokenizer"]}
    write_json(
        folder / "tokenizer_config.json", own | {"tokenizer_class": "EvilTokenizer", "auto_map": tokenizers}
    )
    monkeypatch.setattr("builtins.input", lambda words: "y")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    return folder


def reward_model(place: str, folder: Path, sound: Path) -> RewardModelConfig:
    """A reward model that reads its weights from `folder` in one place or another."""
    plain = RewardModelConfig("foreign", "classifier", str(folder))
    match place:
        case "ensemble":
            members = {"one": MemberConfig(reward_model=plain)}
            return RewardModelConfig("e", "ensemble", ensemble=EnsembleConfig("mean", members))
        case "flipped":
            return RewardModelConfig("f", "flipped", inner=plain)
        case "generative":
            asked = VerdictConfig("pairwise")
            return replace(plain, kind="generative", verdict=asked, comparability="pair")
        case "implicit":
            return replace(plain, kind="implicit", reference=str(sound))
        case "implicit's reference":
            return replace(plain, kind="implicit", model=str(sound), reference=str(folder))
    return replace(plain, kind=place)


PLACES = [
    "classifier",
    "armorm",
    "urm",
    "inform",
    "token_logit",
    "generative",
    "implicit",
    "implicit's reference",
    "ensemble",
    "flipped",
]


@pytest.mark.parametrize("place", PLACES)
def test_a_pickle_of_a_reward_model_is_not_read(place: str, pickled: Path, sound: Path, trace: Path) -> None:
    with pytest.raises(DataError, match=r"reward_model\.pickle=true if you trust"):
        load_reward_model(reward_model(place, pickled, sound))
    assert not trace.exists()


def test_a_pickle_that_is_allowed_still_runs_nothing(pickled: Path, trace: Path) -> None:
    """transformers reads tensors out of it and nothing else; `pickle` is for those who trust it anyway."""
    config = replace(reward_model("classifier", pickled, pickled), pickle=True)
    with pytest.raises(DataError, match="Its pickle holds more than tensors"):
        load_reward_model(config)
    assert not trace.exists()


def critic(folder: Path, sound: Path) -> Any:
    """PPO's critic from a classifier's weights."""
    algorithm = PPOConfig(
        name="ppo",
        kind="ppo",
        steps=1,
        prompts_per_step=1,
        group_size=2,
        max_completion_tokens=8,
        learning_rate=1e-5,
        kl_coefficient=0.0,
        critic="classifier",
        critic_model=str(folder),
    )
    policy = PolicyConfig("sound", str(sound))
    return attach_critic(load_policy(policy)[0], algorithm, policy, checkpointing=False)


LOADERS: dict[str, Callable[[Path, Path], Any]] = {
    "policy and reference": lambda folder, sound: load_policy(PolicyConfig("p", str(folder))),
    "policy in training": lambda folder, sound: load_trainable(PolicyConfig("p", str(folder))),
    "critic": critic,
}


@pytest.mark.parametrize("loader", LOADERS)
def test_a_pickle_of_a_policy_is_not_read(loader: str, pickled: Path, sound: Path, trace: Path) -> None:
    with pytest.raises(DataError, match="Save it as safetensors"):
        LOADERS[loader](pickled, sound)
    assert not trace.exists()


def test_a_pickle_of_an_adapter_is_not_read(sound: Path, tmp_path: Path, trace: Path) -> None:
    """By no engine: vLLM is told the same parts."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "adapter"
    base = AutoModelForCausalLM.from_pretrained(sound)
    adapted: Any = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"]))
    adapted.save_pretrained(folder)
    policy = PolicyConfig("p", str(folder))
    assert parts_of(policy).adapter == str(folder)
    (folder / "adapter_model.safetensors").unlink()
    torch.save({"base_model.model.weight": Trap(trace)}, folder / "adapter_model.bin")
    with pytest.raises(DataError, match=r"has no adapter_model\.safetensors"):
        load_policy(policy)
    assert not trace.exists()


@pytest.mark.parametrize("place", ["classifier", "token_logit", "generative", "implicit", "ensemble"])
def test_python_of_a_reward_model_does_not_run(place: str, coded: Path, sound: Path, trace: Path) -> None:
    with pytest.raises(DataError, match="wants to run its own Python here"):
        load_reward_model(reward_model(place, coded, sound))
    assert not trace.exists()


@pytest.mark.parametrize("loader", LOADERS)
def test_python_of_a_policy_does_not_run(loader: str, coded: Path, sound: Path, trace: Path) -> None:
    with pytest.raises(DataError, match="Python that comes with weights is not run here"):
        LOADERS[loader](coded, sound)
    assert not trace.exists()


def test_python_of_a_tokenizer_or_configuration_alone_does_not_run(coded: Path, trace: Path) -> None:
    policy = PolicyConfig("p", str(coded))
    parts = parts_of(policy)
    with pytest.raises(DataError):
        load_tokenizer(policy, parts)
    (coded / "generation_config.json").unlink(missing_ok=True)
    with pytest.raises(DataError):
        published_stop_tokens(policy, parts, None)
    assert not trace.exists()


def test_python_that_is_allowed_runs(coded: Path, trace: Path) -> None:
    """So the trap is one."""
    with pytest.raises(DataError):  # it has no weights
        load_reward_model(replace(reward_model("classifier", coded, coded), remote_code=True))
    assert trace.exists()


@pytest.mark.parametrize(
    "template",
    [
        "{{ cycler.__init__.__globals__.os.mkdir(trace) }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% if %}",
        "{{ nobody }}",
    ],
)
def test_a_prompt_that_reaches_for_more_than_text_is_refused(
    template: str, tmp_path: Path, trace: Path
) -> None:
    file = tmp_path / "prompt.jinja"
    file.write_text(template.replace("trace", repr(str(trace))))
    with pytest.raises(ConfigError, match="is no usable template"):
        Prompting(VerdictConfig(str(file)))(user_prompt("p", "2+2?").messages, answer_a="4", answer_b="5")
    assert not trace.exists()
