"""vLLM samples the rollouts, for real, on the CPU: TRL's colocated engine with a transfer of weights after
every update, by DDP and ZeRO-3, of all weights and of adapters.

One thing is replaced, in `vllm_on_cpu/`: vLLM's linear layers for the CPU pack their weights and cannot be
given new ones.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.config.schema import RunConfig
from rlhf_eval.files import read_json, read_jsonl, sha256_file, write_json
from tests.conftest import VLLM
from tests.training.several import Job, train_all

pytestmark = pytest.mark.vllm

ENVIRONMENT = {
    "PYTHONPATH": str(Path(__file__).with_name("vllm_on_cpu")),
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}
SETTING = (
    "accelerate.processes=2",
    "accelerate.device=cpu",
    "algorithm.rollout.engine=vllm_colocate",
    "algorithm.rollout.gpu_memory_share=0.1",
    "algorithm.epochs=1",
    "algorithm.minibatches=4",
    "algorithm.steps=5",
    "algorithm.checkpoint_every=4",
    "algorithm.prompts_per_step=4",
    "algorithm.group_size=4",
    "algorithm.completions_per_device_batch=2",
    "algorithm.learning_rate=0.005",
)
LORA = ("algorithm.lora={rank: 4}",)
BF16 = ("accelerate.mixed_precision=bf16", "accelerate.gradient_checkpointing=true")
CASES = {
    "ddp grpo full": ("accelerate=ddp", "accelerate.mixed_precision=no", "algorithm=grpo_lab"),
    "ddp rloo lora": ("accelerate=ddp", "accelerate.mixed_precision=no", "algorithm=rloo_lab", *LORA),
    "zero3 ppo full": ("accelerate=zero3", *BF16, "algorithm=ppo_lab", "algorithm.critic=value_head"),
    "zero3 grpo lora": ("accelerate=zero3", *BF16, "algorithm=grpo_lab", *LORA),
}
"""Twenty updates at a learning rate at which the policy runs away."""
GAP = {"ddp": 1e-4, "zero3": 0.2}
"""Largest difference between a token's log-probabilities in vLLM and in the trainer: rounding in 32 and in 16
bits."""


def train(jobs: list[Job], folder: Path) -> None:
    train_all(jobs, folder, str(VLLM), **ENVIRONMENT)


@pytest.fixture(scope="module", params=["ddp", "zero3"])
def runs(
    request: pytest.FixtureRequest,
    training: Callable[..., RunConfig],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """Finished runs by case; `<case> resumed` was killed in its last step and continued by new processes,
    `stale` was never given new weights."""
    folder = tmp_path_factory.mktemp(f"vllm_{request.param}")
    made, jobs = {}, []
    for number, (case, words) in enumerate(CASES.items()):
        if case.startswith(request.param):
            run, killed = folder / f"{number}" / "run", folder / f"{number}" / "killed"
            jobs.append(Job(training(*words, *SETTING), run, killed))
            made |= {case: run, f"{case} resumed": killed}
    stale = Job(jobs[0].config, folder / "stale", stale=True)
    train([*jobs, stale], folder / "first")
    train([Job(job.config, job.killed) for job in jobs if job.killed], folder / "second")
    return made | {"stale": stale.run, "strategy": Path(request.param)}


def rows(run: Path) -> list[dict[str, Any]]:
    return [row for row in read_jsonl(run / "metrics.jsonl") if row["kind"] == "train"]


def rollouts_of(run: Path) -> list[Any]:
    """Token ids of all completions, by process and step."""
    return [[row["completions"] for row in read_jsonl(file)] for file in sorted(run.glob("rollouts-*.jsonl"))]


def test_vllm_samples_from_the_weights_that_are_trained(runs: dict[str, Path]) -> None:
    strategy = str(runs["strategy"])
    for case in (case for case in CASES if case.startswith(strategy)):
        assert [row["step"] for row in rows(runs[case])] == [1, 2, 3, 4, 5]
        for row in rows(runs[case]):
            assert row["importance_ratio"] == pytest.approx(1, abs=0.2 if strategy == "zero3" else 1e-3)
            assert row["importance_masked_share"] == 0
            if "rloo" not in case:  # which takes the ratio of whole completions
                assert row["rollout_gap"] <= row["rollout_gap_max"] < GAP[strategy]
    # Had the weights not arrived, it would have been seen.
    assert rows(runs["stale"])[-1]["rollout_gap_max"] > 5 * GAP[strategy]


def test_a_resumed_run_samples_what_it_would_have_sampled(runs: dict[str, Path]) -> None:
    strategy = str(runs["strategy"])
    for case in (case for case in CASES if case.startswith(strategy)):
        undisturbed, resumed = runs[case], runs[f"{case} resumed"]
        # What was killed had sampled its last step already; it is sampled again.
        for whole, again in zip(rollouts_of(undisturbed), rollouts_of(resumed), strict=True):
            assert [*whole, whole[-1]] == again
        published = [
            {file.name: sha256_file(file) for file in (run / "stages/train/policy").glob("*.safetensors")}
            for run in (undisturbed, resumed)
        ]
        assert published[0] == published[1]


def test_seeds_differ_and_every_stop_token_stops(training: Callable[..., RunConfig], tmp_path: Path) -> None:
    """With one prompt for all, so that nothing but the seed tells runs apart; and a policy whose
    generation_config.json names a second token that ends a turn, as those of Llama 3 do."""
    from transformers import AutoTokenizer

    words = (*CASES["ddp grpo full"], *SETTING, "algorithm.steps=1")
    base = training(*words)
    prompt = read_jsonl(Path(base.prompts.train))[0]
    one = tmp_path / "prompt.jsonl"
    one.write_text(json.dumps(prompt) + "\n")
    stopping = tmp_path / "policy"
    shutil.copytree(base.policy.model, stopping)
    tokenizer = AutoTokenizer.from_pretrained(stopping)
    stops = [
        tokenizer.eos_token_id,
        tokenizer.convert_tokens_to_ids("and"),
        tokenizer.convert_tokens_to_ids("cat"),
    ]
    settings = read_json(stopping / "generation_config.json") | {"eos_token_id": stops}
    write_json(stopping / "generation_config.json", settings)
    configs = {
        name: training(*words, f"prompts.train={one}", f"seed={seed}", *more)
        for name, seed, more in (
            ("a", 0, ()),
            ("again", 0, ()),
            ("b", 1, ()),
            ("stops", 0, (f"policy.model={stopping}",)),
        )
    }
    train([Job(config, tmp_path / name) for name, config in configs.items()], tmp_path / "start")
    sampled = {name: rollouts_of(tmp_path / name) for name in configs}
    assert sampled["a"] == sampled["again"]
    assert sampled["a"] != sampled["b"]
    drawn = [tuple(ids) for process in sampled["a"] for step in process for ids in step]
    assert len(set(drawn)) > len(drawn) / 2  # processes and rows have random numbers of their own
    ended = [ids for process in sampled["stops"] for step in process for ids in step]
    assert any(ids[-1] in stops[1:] for ids in ended)
    assert not any(token in stops for ids in ended for token in ids[:-1])
    [row] = rows(tmp_path / "stops")
    cut = sum(ids[-1] not in stops for ids in ended) / len(ended)
    assert row["truncated_share"] == pytest.approx(cut)
