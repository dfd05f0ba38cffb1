"""Whether GPUs and memory of this machine are enough for what a configuration trains and answers with."""

from collections.abc import Iterator

from rlhf_eval.config.schema import RunConfig
from rlhf_eval.doctor.accelerators import Machine
from rlhf_eval.doctor.checks import Finding, failure, passed, skipped, warning
from rlhf_eval.doctor.memory import BYTES, GIB, Estimate, estimate, on_host, parameters
from rlhf_eval.doctor.system import available_memory

FULL = 0.7
"""Share of a GPU's memory from which little is left for activations."""
UNKNOWN = "Set policy.size and reward_model.size, such as 8b."
SRUN = "on a cluster, ask a GPU node: srun --gpus-per-node={} rlhf-eval doctor OVERRIDES"


def training(machine: Machine, config: RunConfig) -> Iterator[Finding]:
    """Enough GPUs, and enough memory on each or, without them, in the machine."""
    here, needed = len(machine.gpus), config.accelerate.processes // config.accelerate.machines
    yield _gpus(machine, config, needed)
    told, host = estimate(config, here), on_host(config)
    if here and config.accelerate.device != "cpu":
        yield _on_gpus(told, min(gpu.memory for gpu in machine.gpus), config)
    else:
        host += told.total * needed
    available = available_memory() / GIB
    if host > available:
        seen = f"about {host:,.1f} GiB needed, {available:,.1f} available: {told.in_words()}"
        cure = "Take a smaller policy or fewer processes" + ("." if here else f"; {SRUN.format(needed)}")
        yield failure("memory for training", seen, cure)
    elif told.unknown and not here:
        yield warning("memory for training", told.in_words(), UNKNOWN)
    elif host:
        yield passed("memory for training", f"about {host:,.2f} of {available:,.1f} GiB")


def answers(machine: Machine, config: RunConfig) -> Iterator[Finding]:
    """GPUs and memory for vLLM where it answers the evaluation prompts."""
    generation, here, check = config.generation, len(machine.gpus), "GPUs for answers"
    starts_server = generation.engine == "openai" and generation.base_url is None
    if not here or not (generation.engine == "vllm" or starts_server):
        return
    split = generation.tensor_parallel
    if split > here:
        cure = f"Set generation.tensor_parallel={here}, or {SRUN.format(split)}"
        yield failure(check, f"generation.tensor_parallel={split}, this machine has {here}", cure)
        return
    size = parameters(config.policy.model, config.policy.revision, config.policy.size) or 0.0
    weights = size * BYTES[config.policy.dtype] / split / GIB
    room = generation.gpu_memory_share * min(gpu.memory for gpu in machine.gpus)
    seen = f"{split} GPU: weights of {weights:,.1f} GiB in vLLM's {room:,.1f} GiB"
    if weights > room:
        yield failure(check, seen, "Set generation.tensor_parallel higher, or take larger GPUs.")
    else:
        yield passed(check, seen)


def _gpus(machine: Machine, config: RunConfig, needed: int) -> Finding:
    """The processes of one machine against its GPUs."""
    check, accelerate, here = "GPUs for training", config.accelerate, len(machine.gpus)
    each = f" on each of {accelerate.machines} machines" if accelerate.machines > 1 else ""
    asked = f"accelerate={accelerate.name} asks for {needed}{each}"
    elsewhere = SRUN.format(needed)
    if accelerate.device == "cpu":
        return passed(check, "none: accelerate.device=cpu")
    if not here and accelerate.device == "cuda":
        return failure(check, f"{asked}, this machine has none", f"Run where they are; {elsewhere}")
    if not here:
        return passed(check, f"{asked}; without any, as here, it trains on the CPU")
    if here < needed:
        cure = f"Set accelerate.processes={here * accelerate.machines}, or {elsewhere}"
        return failure(check, f"{asked}, this machine has {here}", cure)
    if (visible := machine.torch()["gpus"]) < needed:
        cure = "See the findings on torch and the driver, and CUDA_VISIBLE_DEVICES."
        return failure(check, f"{asked}, torch sees {visible} of {here}", cure)
    return passed(check, f"{asked}, this machine has {here}")


def _on_gpus(told: Estimate, memory: float, config: RunConfig) -> Finding:
    """Memory of the smallest GPU against the estimate."""
    check, rollout = "GPU memory for training", getattr(config.algorithm, "rollout", None)
    kept = rollout.gpu_memory_share if rollout and rollout.engine == "vllm_colocate" else 0.0
    free = memory * (1 - kept)
    beside = f" beside vLLM's {100 * kept:.0f} %" if kept else ""
    seen = f"each process needs about {told.in_words()}; a GPU has {free:,.1f}{beside}"
    cure = (
        "Lessen it: accelerate=zero3, more accelerate.processes, accelerate.offload_optimizer=true, "
        "+algorithm.lora={rank:16}, or a served reward model (reward_model=served)"
    )
    if not memory:
        return skipped(check, f"{told.in_words()}; nvidia-smi tells no memory")
    if told.total > free:
        return failure(check, seen, f"{cure}; or take larger GPUs.")
    if told.total > FULL * free:
        return warning(check, f"{seen}: little is left for activations", f"{cure}; or smaller batches.")
    if told.unknown:
        return warning(check, seen, UNKNOWN)
    return passed(check, seen)
