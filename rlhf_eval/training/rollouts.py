"""vLLM as the sampler of rollouts: TRL's, with the run's seed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def seeded(seed: int, engine: str) -> Iterator[None]:
    """Inside the block TRL builds its colocated vLLM with random numbers of the run's own.

    TRL seeds it with the process's number alone, so runs of different seeds would roll out alike from the
    same weights; and vLLM reseeds torch when it is built.
    """
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
