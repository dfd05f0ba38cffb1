"""vLLM as the sampler of rollouts: TRL's, with the run's seed."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from rlhf_eval.errors import ConfigError


@contextmanager
def seeded(seed: int, engine: str) -> Iterator[None]:
    """Inside the block TRL builds its colocated vLLM with random numbers of the run's own.

    TRL seeds it with the process's number alone, so runs of different seeds would roll out alike from the
    same weights; and vLLM reseeds torch when it is built.

    Raises:
        ConfigError: vLLM is not installed.
    """
    if engine != "transformers" and find_spec("vllm") is None:
        raise ConfigError(
            f"algorithm.rollout.engine={engine} needs vLLM in the environment that trains.",
            "pip install vllm==0.31.0, or set algorithm.rollout.engine=transformers.",
        )
    if engine != "vllm_colocate":
        yield
        return
    from accelerate.utils import set_seed
    from trl.generation import vllm_generation

    module: Any = vllm_generation
    theirs = module.LLM

    def ours(*words: Any, **named: Any) -> Any:
        return theirs(*words, **(named | {"seed": 100_003 * seed + named["seed"]}))

    module.LLM = ours
    try:
        yield
    finally:
        module.LLM = theirs
        set_seed(seed, device_specific=True)


def seed_server(trainer: Any, seed: int, engine: str) -> None:
    """Give every request to a `trl vllm-serve` a seed that follows from the run's seed and the step.

    The server takes no seed when it starts. A request's seed is the same for all its prompts, so the n-th
    completions of different prompts share their random numbers; within a prompt they differ.
    """
    if engine != "vllm_server":
        return
    server = trainer.vllm_generation
    generate = server.generate

    def with_seed(*words: Any, **named: Any) -> Any:
        server.generation_kwargs["seed"] = 100_003 * seed + trainer.state.global_step
        return generate(*words, **named)

    server.generate = with_seed
