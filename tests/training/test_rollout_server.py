"""vLLM's server of a training's rollouts, started with the run's policy."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from rlhf_eval.config.compose import compose, freeze
from rlhf_eval.files import write_text
from rlhf_eval.lab.build import world_path
from rlhf_eval.training.rollout_server import command

LAB = ("experiment=lab", "reward_model=random", "algorithm.rollout.engine=vllm_server")


def options(words: Sequence[str]) -> dict[str, str]:
    assert list(words[:2]) == ["trl", "vllm-serve"]
    return dict(zip(words[2::2], words[3::2], strict=True))


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
        "--model": "org/policy",
        "--revision": "abc",
        "--dtype": "float32",
        "--tensor_parallel_size": "2",
        "--max_model_len": "130",
        "--host": "0.0.0.0",
        "--port": "20007",
    }


def test_without_a_revision_the_hub_s_latest() -> None:
    assert "--revision" not in command(compose([*LAB, "policy.model=org/policy"]), 1)


def test_trl_knows_these_options() -> None:
    vllm_serve = pytest.importorskip("trl.scripts.vllm_serve")
    known = set(vllm_serve.ScriptArguments.__dataclass_fields__)
    config = compose([*LAB, "policy.model=org/policy", "policy.revision=abc"])
    assert {name.removeprefix("--") for name in options(command(config, 1))} <= known


def test_the_process_becomes_the_environment_s_own_trl(tmp_path: Path) -> None:
    """With the place of a lab policy on this machine."""
    config = compose([*LAB, f"lab.cache={tmp_path / 'lab'}"])
    write_text(tmp_path / "run" / "config.yaml", freeze(config))
    environment, elsewhere = tmp_path / "bin", tmp_path / "elsewhere"
    for folder, name in ((environment, "own"), (elsewhere, "other")):
        folder.mkdir()
        (folder / "trl").write_text(f'#!/bin/sh\necho {name} $$ "$@"\n')
        (folder / "trl").chmod(0o755)
    python = environment / "python"
    python.symlink_to(sys.executable)
    module = ["-m", "rlhf_eval.training.rollout_server", str(tmp_path / "run"), "20007"]
    paths = {"PATH": f"{elsewhere}:/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([python, *module], env=os.environ | paths, stdout=subprocess.PIPE, text=True)
    out, _ = process.communicate(timeout=60)
    name, process_id, *words = out.split()
    assert (name, int(process_id)) == ("own", process.pid)
    assert config.lab
    assert options(["trl", *words])["--model"] == str(world_path(config.lab) / "policy")
