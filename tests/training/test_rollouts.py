"""vLLM as the sampler of rollouts: the run's seed reaches it. vLLM itself is stood in for: it trains on GPUs
only."""

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import ConfigError
from rlhf_eval.training import rollouts
from rlhf_eval.training.launch import launch


def test_colocated_engines_of_other_seeds_and_processes_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import Accelerator
    from trl.generation import vllm_generation

    Accelerator(cpu=True)  # as there is one in a trainer
    built: list[int] = []
    monkeypatch.setattr(rollouts, "find_spec", ModuleType)
    monkeypatch.setattr(vllm_generation, "LLM", lambda seed: built.append(seed), raising=False)
    for seed in (0, 1):
        with rollouts.seeded(seed, "vllm_colocate"):
            for process in (0, 1):
                vllm_generation.LLM(seed=process)  # type: ignore[attr-defined]  # as TRL calls it
    with rollouts.seeded(1, "vllm_colocate"):
        vllm_generation.LLM(seed=0)  # type: ignore[attr-defined]
    assert len(set(built[:4])) == 4
    assert built[4] == built[2]
    vllm_generation.LLM(seed=7)  # type: ignore[attr-defined]
    assert built[-1] == 7  # outside the block it is TRL's own again


def test_a_servers_requests_carry_seed_and_step() -> None:
    seeds: list[int] = []
    server = SimpleNamespace(generation_kwargs={})
    server.generate = lambda: seeds.append(server.generation_kwargs["seed"])
    trainer = SimpleNamespace(vllm_generation=server, state=SimpleNamespace(global_step=0))
    rollouts.seed_server(trainer, 1, "vllm_server")
    for step in (0, 1, 1):
        trainer.state.global_step = step
        server.generate()
    assert seeds[1] == seeds[2] != seeds[0]


@pytest.mark.parametrize("engine", ["vllm_colocate", "vllm_server"])
def test_without_vllm_it_is_asked_for(
    training: Callable[..., RunConfig], engine: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.setattr(rollouts, "find_spec", lambda name: None)
    server = ["algorithm.rollout.server_url=http://127.0.0.1:9"]
    config = training("algorithm=grpo_lab", f"algorithm.rollout.engine={engine}", *server)
    with pytest.raises(ConfigError, match=f"engine={engine} needs vLLM"):
        launch(config, tmp_path, tmp_path / "metrics.jsonl", tmp_path / "log", lambda *_: None)
