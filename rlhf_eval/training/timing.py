"""Where the time of a training step goes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

PARTS = ("generation", "scoring", "training", "synchronisation")
"""What a step's seconds are told apart into: sampling completions; the reward model; forward and backward
passes of policy, reference and critic with the exchange of gradients; sending weights to vLLM. The rest is
idle: waiting for the slowest process, and everything else."""


class Stopwatch:
    """Seconds by part; of parts that are nested, the inner one counts.

    Args:
        settle: waits until the work that was begun is done; on a GPU work goes on behind Python's back.
    """

    def __init__(self, settle: Callable[[], None] = lambda: None) -> None:
        self._settle = settle
        self.reset()

    def reset(self) -> None:
        """Begin a new step."""
        self.seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self._began = time.perf_counter()
        self._running: list[str] = []
        self._since = self._began

    @property
    def total(self) -> float:
        """Seconds since the step began."""
        return time.perf_counter() - self._began

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the block's seconds as `name`."""
        self._switch()
        self._running.append(name)
        try:
            yield
        finally:
            self._switch()
            self._running.pop()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its seconds counted as `name`."""

        @wraps(function)
        def call(*words: Any, **named: Any) -> Any:
            with self.part(name):
                return function(*words, **named)

        return call

    def _switch(self) -> None:
        self._settle()
        now = time.perf_counter()
        if self._running and self._running[-1] in self.seconds:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


def watch(trainer: Any) -> Stopwatch:
    """A stopwatch that runs with a TRL trainer from now on."""
    import torch

    on_gpu = trainer.accelerator.device.type == "cuda"
    stopwatch = Stopwatch(torch.cuda.synchronize if on_gpu else lambda: None)
    # TRL gives no events around these; a block named idle is what remains of one that waits for other
    # processes.
    for method, name in (
        ("training_step", "training"),
        ("_generate_single_turn", "generation"),
        ("_generate", "idle"),
        ("_calculate_rewards", "idle"),
    ):
        setattr(trainer, method, stopwatch.timed(name, getattr(trainer, method)))
    trainer.reward_funcs = [stopwatch.timed("scoring", function) for function in trainer.reward_funcs]
    if getattr(trainer, "use_vllm", False):
        engine = trainer.vllm_generation
        engine.sync_weights = stopwatch.timed("synchronisation", engine.sync_weights)
    return stopwatch
