"""vLLM's own server samples the rollouts, for real, on the CPU: started by rlhf_eval's command in a process
of its own, asked by TRL's client, given new weights after every update, killed under a training.

Weights go over gloo where NCCL would need GPUs (`vllm_on_cpu/`).
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from rlhf_eval.config.compose import freeze
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.files import read_json, read_jsonl, write_json
from tests.conftest import VLLM
from tests.training.several import Job, train_all
from tests.training.test_vllm_rollouts import ENVIRONMENT, LORA, SETTING, rollouts_of, rows

pytestmark = pytest.mark.vllm

HERE = ENVIRONMENT | {"VLLM_HOST_IP": "127.0.0.1"}
WORDS = (
    *SETTING,
    "accelerate=ddp",
    "accelerate.mixed_precision=no",
    "algorithm.rollout.engine=vllm_server",
    "algorithm.steps=4",
    "algorithm.checkpoint_every=1",
)
GRPO, PPO = (
    ("algorithm=grpo_lab", *WORDS),
    ("algorithm=ppo_lab", *WORDS, "algorithm.critic=value_head", *LORA),
)
GAP = 1e-4
"""Largest difference between a token's log-probabilities in vLLM and in the trainer: rounding."""


@dataclass(frozen=True)
class Outcome:
    """What was trained.

    Attributes:
        runs: of `several.py`, by name; `again` has the seed of `grpo`, `stale` was never given new weights.
        run: of `rlhf-eval run`, whose server was killed after its first step.
        stopped: what the command said then.
        kept: rows of its curves then.
        continued: what the same command said when the server was there again.
    """

    runs: dict[str, Path]
    run: Path
    stopped: subprocess.CompletedProcess[str]
    kept: list[tuple[str, int]]
    continued: subprocess.CompletedProcess[str]


@contextmanager
def serving(run: Path, port: int) -> Iterator[Callable[[], None]]:
    """The server of a run, once it is well; what is yielded kills it."""
    command = [str(VLLM), "-m", "rlhf_eval.training.rollout_server", str(run), str(port)]
    command += ["--enforce-eager", "--gpu-memory-utilization", "0.1"]
    log = run / "server.log"
    with log.open("w") as out:
        # A session of its own, because the server has children that must end with it.
        server = subprocess.Popen(
            command, stdout=out, stderr=out, env=os.environ | HERE, start_new_session=True
        )

    def kill() -> None:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()

    try:
        for _ in range(600):
            assert server.poll() is None, log.read_text()[-3000:]
            with suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{port}/health").is_success:
                    break
            time.sleep(0.5)
        yield kill
    finally:
        kill()


@contextmanager
def command_line(run: Path) -> Iterator[subprocess.Popen[str]]:
    """`rlhf-eval run` of a run directory's training."""
    command = [str(VLLM), "-m", "rlhf_eval", "run", "--frozen", str(run), "--stages", "train"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=os.environ | HERE, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    out, error = process.communicate(timeout=600)
    return subprocess.CompletedProcess(process.args, process.returncode, out, error)


def curves(run: Path) -> list[tuple[str, int]]:
    file = run / "metrics.jsonl"
    return [(row["kind"], row["step"]) for row in read_jsonl(file)] if file.exists() else []


@pytest.fixture(scope="module")
def outcome(training: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """All trainings have one prompt, so that nothing but seeds tells rollouts apart, and a policy whose
    generation_config.json names a second token that ends a turn."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("vllm_server")
    base = training(*GRPO)
    prompt, policy, run = folder / "prompt.jsonl", folder / "policy", folder / "run"
    prompt.write_text(json.dumps(read_jsonl(Path(base.prompts.train))[0]) + "\n")
    shutil.copytree(base.policy.model, policy)
    tokenizer = AutoTokenizer.from_pretrained(policy)
    stops = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("cat")]
    settings = read_json(policy / "generation_config.json") | {"eos_token_id": stops}
    write_json(policy / "generation_config.json", settings)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = (
        f"prompts.train={prompt}",
        f"policy.model={policy}",
        "policy.revision=main",
        f"algorithm.rollout.server_url=http://127.0.0.1:{port}",
    )
    run.mkdir()
    (run / "config.yaml").write_text(freeze(training(*GRPO, *own)))
    configs = {
        "grpo": training(*GRPO, *own),
        "again": training(*GRPO, *own),
        "seed": training(*GRPO, *own, "seed=1"),
        "ppo": training(*PPO, *own),
        "stale": training(*GRPO, *own),
    }
    jobs = [Job(config, folder / name, stale=name == "stale") for name, config in configs.items()]
    with serving(run, port) as kill:
        train_all(jobs, folder / "start", str(VLLM), **HERE)
        with command_line(run) as process:
            while ("train", 1) not in curves(run):
                assert process.poll() is None, ended(process).stderr
                time.sleep(0.02)
            kill()
            stopped = ended(process)
    kept = curves(run)
    with serving(run, port), command_line(run) as process:
        continued = ended(process)
    return Outcome({job.run.name: job.run for job in jobs}, run, stopped, kept, continued)


def test_the_server_samples_from_the_weights_that_are_trained(outcome: Outcome) -> None:
    for name in ("grpo", "ppo"):  # all weights; adapters added to them
        assert [row["step"] for row in rows(outcome.runs[name])] == [1, 2, 3, 4]
        for row in rows(outcome.runs[name]):
            assert row["rollout_gap"] <= row["rollout_gap_max"] < GAP
            assert row["importance_ratio"] == pytest.approx(1, abs=1e-3)
    # Had the weights not arrived, it would have been seen.
    assert rows(outcome.runs["stale"])[-1]["rollout_gap_max"] > 100 * GAP


def test_the_run_s_seed_decides_what_is_sampled(outcome: Outcome) -> None:
    sampled = {name: rollouts_of(outcome.runs[name]) for name in ("grpo", "again", "seed")}
    assert sampled["grpo"] == sampled["again"]
    first = {name: [process[0] for process in processes] for name, processes in sampled.items()}
    assert first["grpo"] != first["seed"]
    drawn = [tuple(ids) for process in first["grpo"] for ids in process]
    assert len(drawn) == 16
    assert len(set(drawn)) > 8  # every group and row has random numbers of its own


def test_every_stop_token_stops(outcome: Outcome) -> None:
    stops = read_json(outcome.runs["grpo"].parent / "policy" / "generation_config.json")["eos_token_id"]
    drawn = [ids for process in rollouts_of(outcome.runs["grpo"]) for step in process for ids in step]
    assert any(ids[-1] == stops[1] for ids in drawn)
    assert not any(token in stops for ids in drawn for token in ids[:-1])


def test_a_server_that_dies_ends_the_training_with_a_cure(outcome: Outcome) -> None:
    stopped = outcome.stopped
    assert stopped.returncode == 1
    assert "error: vLLM's server of rollouts at http://127.0.0.1:" in stopped.stderr
    assert "python -m rlhf_eval.training.rollout_server" in stopped.stderr
    assert "the same command: it continues from the last complete checkpoint" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert ("checkpoint", 1) in outcome.kept
    assert ("train", 4) not in outcome.kept


def test_with_the_server_again_the_same_command_continues(outcome: Outcome) -> None:
    """As if nothing had happened, but for rounding: requests meet in other batches."""
    assert outcome.continued.returncode == 0, outcome.continued.stderr
    assert curves(outcome.run)[: len(outcome.kept)] == outcome.kept
    for row, undisturbed in zip(rows(outcome.run), rows(outcome.runs["grpo"]), strict=True):
        assert row["step"] == undisturbed["step"]
        assert row["reward"] == pytest.approx(undisturbed["reward"], abs=1e-3)
        assert row["rollout_gap_max"] < GAP
    assert (outcome.run / "stages" / "train" / "policy" / "model.safetensors").exists()
