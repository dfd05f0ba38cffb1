"""GPUs as nvidia-smi (a script stands for it) names them, and against what a configuration asks for."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from rlhf_eval.config.compose import compose
from rlhf_eval.doctor import accelerators, capacity
from rlhf_eval.doctor.accelerators import Machine
from tests.doctor.conftest import found

Put = Callable[[str, str], None]
LARGE = ["reward_model=skywork_v2_llama_8b", "policy=tulu3_8b_sft"]


def rows(number: int, memory: int = 24564, used: int = 3, driver: str = "580.65.06") -> str:
    return f"for i in $(seq {number}); do echo 'NVIDIA L4, {memory}, {used}, {driver}'; done"


def test_no_gpu_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    told = found(partial(accelerators.gpus, Machine()))["GPUs"]
    assert (told.state, told.seen) == ("warning", "no GPU, CPU only")


def test_gpus_are_counted_and_those_in_use_named(program: Put) -> None:
    program("nvidia-smi", rows(2) + "\n" + rows(1, 81559, 60000))
    told = found(partial(accelerators.gpus, Machine()))["GPUs"]
    assert told.seen == "2 x NVIDIA L4, 24 GiB, 1 x NVIDIA L4, 80 GiB; memory of 2 is in use"
    assert told.state == "warning"


def test_what_nvidia_smi_says_instead_is_told(program: Put) -> None:
    program("nvidia-smi", "echo 'NVIDIA-SMI has failed: no driver is running.'; exit 9")
    told = found(partial(accelerators.gpus, Machine()))["GPUs"]
    assert told.state == "failure"
    assert "no driver is running" in told.seen


def test_a_torch_that_does_not_see_the_gpus_is_a_failure(
    program: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    program("nvidia-smi", rows(2))
    told = found(partial(accelerators.torch, Machine()))["torch"]
    assert told.state == "failure"
    assert "sees 0 GPUs of 2" in told.seen
    assert ("pip install" if torch.version.cuda is None else "CUDA_VISIBLE_DEVICES") in told.cure


@pytest.mark.parametrize(
    ("driver", "cuda", "state"),
    [("470.82.01", "12.8", "failure"), ("550.54.15", "12.8", "pass"), ("570.1", "13.0", "failure")],
)
def test_a_driver_older_than_cuda_takes_is_a_failure(driver: str, cuda: str, state: str) -> None:
    assert accelerators.driver_for(driver, cuda).state == state


def test_too_few_and_too_small_gpus_are_failures(program: Put) -> None:
    program("nvidia-smi", rows(2))
    told = found(partial(capacity.training, Machine(), compose([*LARGE, "accelerate=zero3"])))
    count, memory = told["GPUs for training"], told["GPU memory for training"]
    assert count.state == memory.state == "failure"
    assert count.seen == "accelerate=zero3 asks for 8, this machine has 2"
    assert "accelerate.processes=2" in count.cure
    assert "a GPU has 24.0" in memory.seen
    assert "served" in memory.cure


def test_enough_memory_passes_and_vllm_beside_it_takes_its_share(program: Put) -> None:
    program("nvidia-smi", rows(8, 81559))
    alone = compose([*LARGE, "accelerate=zero3"])
    assert (
        found(partial(capacity.training, Machine(), alone))["GPU memory for training"].state == "pass"
    )  # 47 of 80 GiB
    beside = compose([*LARGE, "accelerate=zero3", "algorithm.rollout.engine=vllm_colocate"])
    told = found(partial(capacity.training, Machine(), beside))["GPU memory for training"]
    assert told.state == "warning"
    assert "a GPU has 55.8 beside vLLM's 30 %" in told.seen


def test_without_a_gpu_the_memory_of_the_machine_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    lab = compose(["experiment=lab", "reward_model=lab_clean"])
    told = found(partial(capacity.training, Machine(), lab))
    assert {finding.state for finding in told.values()} == {"pass"}
    large = compose(["reward_model=skywork_v2_llama_8b", "policy=tulu3_8b_sft", "accelerate=ddp"])
    told = found(partial(capacity.training, Machine(), large))["memory for training"]
    assert told.state == "failure"
    cuda = compose([*LARGE, "accelerate.device=cuda"])
    assert found(partial(capacity.training, Machine(), cuda))["GPUs for training"].state == "failure"


def test_a_model_of_unknown_size_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    config = compose(
        ["reward_model=length_only", "policy=tulu3_8b_sft", "policy.model=me/x", "policy.size=null"]
    )
    told = found(partial(capacity.training, Machine(), config))["memory for training"]
    assert told.state == "warning"
    assert "me/x" in told.seen


def test_a_broken_deepspeed_matters_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deepspeed.py").write_text("raise RuntimeError('CUDA_HOME does not exist')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    lab = ["experiment=lab", "reward_model=lab_clean"]
    two = ["accelerate=zero2", "accelerate.processes=2", "algorithm.completions_per_device_batch=64"]
    zero = compose([*lab, *two])
    for config, state in ((zero, "failure"), (compose(lab), "warning"), (None, "warning")):
        told = found(partial(accelerators.deepspeed, Machine(), config))["DeepSpeed"]
        assert told.state == state
        assert told.seen == "RuntimeError: CUDA_HOME does not exist"


def test_answers_by_vllm_must_fit(program: Put) -> None:
    program("nvidia-smi", rows(1))
    config = compose([*LARGE, "generation=vllm"])
    assert found(partial(capacity.answers, Machine(), config))["GPUs for answers"].state == "pass"
    split = compose([*LARGE, "generation=vllm", "generation.tensor_parallel=4"])
    told = found(partial(capacity.answers, Machine(), split))["GPUs for answers"]
    assert told.state == "failure"
    assert "this machine has 1" in told.seen
