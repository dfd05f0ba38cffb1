"""The settings of an 8B policy on several GPUs, in small: two processes over gloo, bf16, gradient
checkpointing, four updates on each batch of rollouts, ZeRO-2 and ZeRO-3, all weights and adapters, every
algorithm and critic.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.config.schema import RunConfig
from rlhf_eval.files import read_jsonl, sha256_file
from tests.training.several import Job, train_all

SETTING = (
    "accelerate.processes=2",
    "accelerate.device=cpu",
    "accelerate.mixed_precision=bf16",
    "accelerate.gradient_checkpointing=true",
    "algorithm.minibatches=4",
    "algorithm.epochs=1",
    "algorithm.steps=2",
    "algorithm.checkpoint_every=1",
    "algorithm.prompts_per_step=4",
    "algorithm.group_size=4",
    "algorithm.completions_per_device_batch=1",  # two micro-batches add up to an update
    "policy.dtype=bfloat16",
)
ALGORITHMS = {
    "grpo": ("algorithm=grpo_lab",),
    "rloo": ("algorithm=rloo_lab",),
    "ppo head": ("algorithm=ppo_lab", "algorithm.critic=value_head"),
    "ppo policy": ("algorithm=ppo_lab", "algorithm.critic=policy"),
}
WEIGHTS = {"full": (), "lora": ("algorithm.lora={rank: 4}",)}
CASES = [(algorithm, weights) for algorithm in ALGORITHMS for weights in WEIGHTS]


@pytest.fixture(scope="module", params=["zero2", "zero3"])
def runs(
    request: pytest.FixtureRequest,
    training: Callable[..., RunConfig],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[tuple[str, str], tuple[RunConfig, Path, Path]]:
    """For each case its configuration, an undisturbed run, and one that was killed in its second step and
    continued by new processes."""
    folder = tmp_path_factory.mktemp(request.param)
    made: dict[tuple[str, str], tuple[RunConfig, Path, Path]] = {}
    for number, (algorithm, weights) in enumerate(CASES):
        words = (f"accelerate={request.param}", *ALGORITHMS[algorithm], *WEIGHTS[weights], *SETTING)
        run, killed = folder / f"{number}" / "undisturbed", folder / f"{number}" / "killed"
        made[algorithm, weights] = (training(*words), run, killed)
    train_all([Job(*job) for job in made.values()], folder / "first")
    for _, _, killed in made.values():
        checkpoints = killed / "stages" / "train" / "checkpoints"
        assert [path.name for path in checkpoints.glob("*/complete.json")] == ["complete.json"]
        assert steps(killed) == [1, 2]
    train_all([Job(config, killed) for config, _, killed in made.values()], folder / "second")
    return made


def steps(run: Path) -> list[int]:
    return [row["step"] for row in read_jsonl(run / "metrics.jsonl") if row["kind"] == "train"]


def hashes(run: Path) -> dict[str, str]:
    """SHA-256 of all that decides how a training would go on, and of what it published."""
    train = run / "stages" / "train"
    last = max((train / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    files = [*(train / "policy").glob("*.safetensors"), *last.glob("*.safetensors")]
    return {str(file.relative_to(train)): sha256_file(file) for file in files}


@pytest.mark.parametrize(("algorithm", "weights"), CASES)
def test_it_trains_and_after_a_kill_ends_with_the_same_bytes(
    runs: dict[tuple[str, str], tuple[RunConfig, Path, Path]], algorithm: str, weights: str
) -> None:
    config, undisturbed, killed = runs[algorithm, weights]
    assert steps(undisturbed) == steps(killed) == [1, 2]
    assert hashes(undisturbed) == hashes(killed)
    assert any("critic" in name for name in hashes(killed)) == algorithm.startswith("ppo")
    points = [
        [row for row in read_jsonl(run / "metrics.jsonl") if row["kind"] == "checkpoint"]
        for run in (undisturbed, killed)
    ]
    assert points[0] == points[1]
    rows = [row for row in read_jsonl(killed / "metrics.jsonl") if row["kind"] == "train"]
    assert all(row["grad_norm"] > 0 for row in rows)
    assert not any(row["no_gradient"] for row in rows)
    loads_with_plain_libraries(killed / "stages" / "train" / "policy", config.policy.model, weights == "lora")


def loads_with_plain_libraries(folder: Path, base: str, lora: bool) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    before = AutoModelForCausalLM.from_pretrained(base)
    ids = torch.tensor([AutoTokenizer.from_pretrained(folder)("list 2 animals")["input_ids"]])
    if lora:
        after: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(folder))
    else:
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        after, told = loaded
        assert not any(told.values()), told
        assert after.dtype == torch.bfloat16
    with torch.no_grad():
        moved = (after(ids).logits.float() - before(ids).logits).abs().max()
    assert 1e-4 < moved < 10
