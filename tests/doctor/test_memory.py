"""The estimate of a training's memory, against numbers worked out by hand."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rlhf_eval.config.compose import compose
from rlhf_eval.doctor.memory import downloaded, estimate, on_host, parameters, size_in, written

GIB = 2**30
LARGE = ["reward_model=skywork_v2_llama_8b", "policy=tulu3_8b_sft"]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("Llama-3.1-Tulu-3-8B-SFT", 8e9),
        ("Skywork-Reward-V2-Llama-3.1-8B-40M", 8e9),
        ("internlm2-1_8b-reward", 1.8e9),
        ("Skywork-Reward-V2-Qwen3-0.6B", 0.6e9),
        ("Mixtral-8x7B", 56e9),
        ("pythia-160m", 160e6),
        ("70b", 70e9),
        ("gpt-4.1-mini", None),
        ("bge-m3", None),
    ],
)
def test_a_name_tells_the_size(name: str, size: float | None) -> None:
    assert size_in(name) == (None if size is None else pytest.approx(size))


def test_weights_on_this_machine_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "mine-70b"
    folder.mkdir()
    save_file(
        {"a": np.zeros((30, 4), np.float16), "b": np.zeros(5, np.float32)}, folder / "model.safetensors"
    )
    assert parameters(str(folder), None, "8b") == 125
    (folder / "model.safetensors").unlink()
    assert parameters(str(folder), None, "8b") == 70e9


def test_one_process_holds_everything() -> None:
    told = estimate(compose(LARGE), gpus=1)
    assert told.parts["weights"] == pytest.approx(8e9 * 4 / GIB)
    assert told.parts["gradients and optimiser"] == pytest.approx(8e9 * (4 + 8) / GIB)
    assert told.parts["reference"] == pytest.approx(8e9 * 4 / GIB)
    assert told.parts["reward model"] == pytest.approx(8e9 * 2 / GIB)
    assert told.total == pytest.approx(8e9 * 22 / GIB)


@pytest.mark.parametrize(
    ("stage", "weights", "gathered", "states", "reference"),
    [("zero2", 2, 0, 16 / 8, 2), ("zero3", 2 / 8, 2, 16 / 8, 2 / 8), ("ddp", 4, 0, 12, 4)],
)
def test_deepspeed_divides(
    stage: str, weights: float, gathered: float, states: float, reference: float
) -> None:
    parts = estimate(compose([*LARGE, f"accelerate={stage}"]), gpus=8).parts
    bytes_each = [parts[name] * GIB / 8e9 for name in list(parts)[:4]]
    assert bytes_each == pytest.approx([weights, gathered, states, reference])


def test_adapters_offloading_and_a_served_reward_model_make_it_less() -> None:
    config = compose([*LARGE, "accelerate=zero2", "+algorithm.lora={rank:16}"])
    assert estimate(config, 8).parts["reference"] == 0
    assert estimate(config, 8).parts["gradients and optimiser"] < 0.5
    config = compose([*LARGE, "accelerate=zero2", "accelerate.offload_optimizer=true"])
    assert estimate(config, 8).parts["gradients and optimiser"] == pytest.approx(8e9 * 4 / 8 / GIB)
    assert on_host(config) == pytest.approx(8e9 * 12 / GIB)
    served = compose(["reward_model=served", "policy=tulu3_8b_sft"])
    assert estimate(served, 8).parts["reward model"] == 0


def test_every_member_of_an_ensemble_and_every_reference_counts() -> None:
    implicit = estimate(compose(["reward_model=dpo", "policy=tulu3_8b_sft"]), 1).parts["reward model"]
    assert implicit == pytest.approx(2 * 8e9 * 2 / GIB)


def test_a_run_that_trains_nothing_needs_weights_only() -> None:
    config = compose(["reward_model=untrained", "policy=tulu3_8b_sft"])
    assert estimate(config, 1).total == pytest.approx(8e9 * 2 / GIB)
    assert written(config) == 0


def test_a_model_of_unknown_size_is_named() -> None:
    told = estimate(compose([*LARGE, "policy.model=me/mine", "policy.size=null"]), 1)
    assert told.unknown == ("me/mine",)
    assert "without me/mine of unknown size" in told.in_words()


def test_what_comes_onto_the_disk() -> None:
    config = compose(LARGE)
    assert written(config) == pytest.approx(8e9 * (2 * 12 + 2) / GIB)
    critic = compose([*LARGE, "algorithm=ppo", "algorithm.critic=policy"])
    assert written(critic) == pytest.approx(8e9 * (2 * 24 + 2) / GIB), "a critic as large as the policy"
    assert downloaded(config) == pytest.approx(2 * 8e9 * 2 / GIB)
