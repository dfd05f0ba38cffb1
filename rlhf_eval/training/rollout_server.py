"""`python -m rlhf_eval.training.rollout_server RUN_DIRECTORY PORT`: vLLM's server of a training's rollouts.

It becomes `trl vllm-serve` with the run's policy. A sweep's script starts it on a node of its own.
"""

import os
import sys
from pathlib import Path

from rlhf_eval.config.compose import load
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.lab.build import world_path
from rlhf_eval.sources import localise
from rlhf_eval.training.arguments import context_tokens, trained
from rlhf_eval.training.rollouts import rollout_dtype


def command(config: RunConfig, port: int) -> list[str]:
    """`trl vllm-serve` for a run, on all addresses of this machine."""
    algorithm = trained(config)
    words = ["trl", "vllm-serve", "--model", config.policy.model]
    if config.policy.revision:
        words += ["--revision", config.policy.revision]
    words += ["--dtype", rollout_dtype(config)]
    words += ["--tensor_parallel_size", str(algorithm.rollout.tensor_parallel)]
    words += ["--max_model_len", str(context_tokens(config)), "--host", "0.0.0.0", "--port", str(port)]  # noqa: S104
    return words


if __name__ == "__main__":
    found = load(Path(sys.argv[1]) / "config.yaml")
    words = command(localise(found, world_path(found.lab) if found.lab else None), int(sys.argv[2]))
    # Beside the interpreter stands the environment's own `trl`.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.execvp(words[0], words)
