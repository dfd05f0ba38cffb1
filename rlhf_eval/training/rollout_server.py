"""`python -m rlhf_eval.training.rollout_server RUN_DIRECTORY PORT [OPTIONS]`: vLLM's server of a training's
rollouts.

It becomes vLLM's own server with the run's policy; OPTIONS go to `vllm serve` as they are. A sweep's script
starts it on a node of its own.
"""

import os
import sys
from pathlib import Path

from rlhf_eval.config.compose import load
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.determinism import make_deterministic
from rlhf_eval.lab.build import world_path
from rlhf_eval.sources import localise
from rlhf_eval.training.arguments import context_tokens, trained
from rlhf_eval.training.rollouts import rollout_dtype

ENVIRONMENT = {"VLLM_SERVER_DEV_MODE": "1"}
"""Makes vLLM's server take new weights."""


def command(config: RunConfig, port: int) -> list[str]:
    """This environment's `vllm serve` for a run, as TRL's client needs it, on all addresses of a machine."""
    policy = config.policy
    words = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", policy.model]
    if policy.revision:
        words += ["--revision", policy.revision, "--tokenizer-revision", policy.revision]
    words += ["--dtype", rollout_dtype(config)]
    words += ["--load-format", "safetensors"]  # the default reads pickles too
    words += ["--tensor-parallel-size", str(trained(config).rollout.tensor_parallel)]
    words += ["--max-model-len", str(context_tokens(config))]
    words += ["--weight-transfer-config", '{"backend": "nccl"}']
    words += ["--logprobs-mode", "processed_logprobs"]  # of the temperature sampled at
    return [*words, "--host", "0.0.0.0", "--port", str(port)]  # noqa: S104


if __name__ == "__main__":
    found = load(Path(sys.argv[1]) / "config.yaml")
    if found.deterministic:
        make_deterministic()
    words = command(localise(found, world_path(found.lab) if found.lab else None), int(sys.argv[2]))
    os.execve(words[0], [*words, *sys.argv[3:]], os.environ | ENVIRONMENT)
