"""A reward model behind a real vLLM server scores as it does here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.config.reward_schema import EndpointConfig, RewardModelConfig
from rlhf_eval.rewards.interface import load_reward_model


@pytest.mark.vllm
def test_classify_and_pooling_give_the_scores_of_this_process(
    tiny: Callable[..., Path],
    conversations: Callable[..., Any],
    config_of: Callable[..., RewardModelConfig],
    vllm_server: Callable[..., Any],
) -> None:
    folder = tiny("wide_llama")
    asked = [*conversations(40), *conversations(1, 400, 400)]
    here = load_reward_model(config_of(folder, max_length=300)).score(asked)
    with vllm_server(folder, "--runner", "pooling", "--served-model-name", "any-name") as address:
        for protocol in ("vllm_classify", "vllm_pooling"):
            endpoint = EndpointConfig(base_url=address, protocol=protocol, deadline_seconds=60)
            remote = RewardModelConfig("r", "remote", str(folder), max_length=300, endpoint=endpoint)
            there = load_reward_model(remote).score(asked)
            assert there.valid.tolist() == [True] * 40 + [False]
            assert there.scores == pytest.approx(here.scores, abs=1e-4, nan_ok=True)
