"""vLLM's server of a training's rollouts, started with the run's policy; it serves in
test_vllm_server_rollouts.py."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rlhf_eval.config.compose import compose, freeze
from rlhf_eval.files import write_text
from rlhf_eval.lab.build import world_path
from rlhf_eval.training.rollout_server import command

LAB = ("experiment=lab", "reward_model=random", "algorithm.rollout.engine=vllm_server")


def options(words: Sequence[str]) -> dict[str, str]:
    assert list(words[:4]) == [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve"]
    return {"model": words[4]} | dict(zip(words[5::2], words[6::2], strict=True))


def test_it_serves_the_run_s_policy_with_room_for_prompt_and_completion() -> None:
    words = ("prompts.max_prompt_tokens=100", "algorithm.max_completion_tokens=30")
    config = compose(
        [
            *LAB,
            *words,
            "policy.model=org/policy",
            "policy.revision=abc",
            "algorithm.rollout.tensor_parallel=2",
        ]
    )
    assert options(command(config, 20007)) == {
        "model": "org/policy",
        "--revision": "abc",
        "--tokenizer-revision": "abc",
        "--dtype": "float32",
        "--load-format": "safetensors",
        "--tensor-parallel-size": "2",
        "--max-model-len": "130",
        "--weight-transfer-config": '{"backend": "nccl"}',
        "--logprobs-mode": "processed_logprobs",
        "--host": "0.0.0.0",
        "--port": "20007",
    }


def test_without_a_revision_the_hub_s_latest() -> None:
    assert "--revision" not in command(compose([*LAB, "policy.model=org/policy"]), 1)


def test_the_process_becomes_the_environment_s_own_vllm(tmp_path: Path) -> None:
    """With the place of a lab policy on this machine, open to new weights, and with options by hand."""
    config = compose([*LAB, f"lab.cache={tmp_path / 'lab'}"])
    write_text(tmp_path / "run" / "config.yaml", freeze(config))
    told = "import json, os, sys\nmode = os.environ['VLLM_SERVER_DEV_MODE']\n"
    told += "print(json.dumps([os.getpid(), mode, sys.argv[1:]]))\n"
    write_text(tmp_path / "packages" / "vllm" / "entrypoints" / "cli" / "main.py", told)
    more = ["--gpu-memory-utilization", "0.8"]
    module = ["-m", "rlhf_eval.training.rollout_server", str(tmp_path / "run"), "20007", *more]
    paths = {"PYTHONPATH": os.pathsep.join([str(tmp_path / "packages"), *sys.path])}
    process = subprocess.Popen(
        [sys.executable, *module], env=os.environ | paths, stdout=subprocess.PIPE, text=True
    )
    out, _ = process.communicate(timeout=60)
    process_id, mode, words = json.loads(out)
    assert (process_id, mode) == (process.pid, "1")
    assert config.lab
    assert words[:2] == ["serve", str(world_path(config.lab) / "policy")]
    assert words[-4:] == ["--port", "20007", *more]
