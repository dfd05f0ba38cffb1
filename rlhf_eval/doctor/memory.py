"""What a training asks of each GPU, estimated: weights, gradients, optimiser states; activations come on top.

Bytes a parameter, N processes (Rajbhandari et al. 2020, with AdamW): plainly, weights and gradients as
`policy.train_dtype` says and two moments of the same. DeepSpeed keeps a float32 copy and float32 moments (12)
which, with gradients that are added in float32 (4), ZeRO-2 divides by N; ZeRO-3 divides the weights too, but
gathers all of them to sample and to measure.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

from rlhf_eval.config.algorithm_schema import TrainedConfig
from rlhf_eval.config.inputs import HUB_NAME, nested
from rlhf_eval.config.reward_schema import RewardModelConfig
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.runs.revisions import MODELS, hub_names
from rlhf_eval.sources import LAB

GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
MOMENTS, MASTER, GRADIENTS = 2, 12, 4
"""AdamW's moments in units of the weights; DeepSpeed's float32 copy and moments, its gradients, in bytes."""
ADAPTER_SHARE = 0.01
"""Parameters of adapters of usual ranks, of those of the policy."""
LAB_PARAMETERS = 1e6
"""More than any model of the embedded lab has."""
SIZE = re.compile(r"(?<![a-z])(?:(\d+)x)?(\d+(?:[._]\d+)?)([bm])(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Estimate:
    """GiB that one process of a training needs.

    Attributes:
        parts: GiB by what they are for.
        unknown: models whose size nothing tells; they are left out.
    """

    parts: dict[str, float]
    unknown: tuple[str, ...]

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    def in_words(self) -> str:
        parts = [f"{name} {gib:,.1f}" for name, gib in self.parts.items() if gib >= 0.05]
        unknown = f", without {', '.join(self.unknown)} of unknown size" if self.unknown else ""
        return f"{self.total:,.1f} GiB before activations ({', '.join(parts) or 'tiny'}){unknown}"


def estimate(config: RunConfig, gpus: int) -> Estimate:
    """What each process of the run's training needs; nothing of the policy where none is trained.

    Args:
        config: with `lab:` names resolved where the lab is built.
        gpus: of this machine; a reward model with a device_map is spread over them.
    """
    parts, unknown = {}, []
    trains = config.reward_model.kind != "untrained"
    policy = parameters(config.policy.model, config.policy.revision, config.policy.size)
    if policy is None:
        unknown.append(config.policy.model)
    if trains and isinstance(config.algorithm, TrainedConfig):
        critic = _critic(config, policy)
        if critic is None:
            unknown.append(str(config.algorithm.critic_model))  # type: ignore[union-attr]
        parts |= _training(config, config.algorithm, policy or 0.0, critic or 0.0)
    else:
        parts["policy"] = (policy or 0.0) * BYTES[config.policy.dtype] / GIB
    here = config.accelerate.processes // config.accelerate.machines
    for root in ("reward_model", "gold_reward_model"):
        total = 0.0
        for model, reward_model in _weights(getattr(config, root)):
            size = parameters(model, reward_model.revision, reward_model.size)
            if size is None:
                unknown.append(model)
            spread = here / max(1, gpus) if reward_model.device_map else 1.0
            total += (size or 0.0) * BYTES[reward_model.dtype] * spread / GIB
        parts[root.replace("_", " ")] = total
    return Estimate(parts, tuple(dict.fromkeys(unknown)))


def on_host(config: RunConfig) -> float:
    """GiB of optimiser state on this machine's own memory, where it is offloaded."""
    policy = parameters(config.policy.model, config.policy.revision, config.policy.size) or 0.0
    trained = policy + (_critic(config, policy) or 0.0)
    accelerate, share = config.accelerate, ADAPTER_SHARE if getattr(config.algorithm, "lora", None) else 1.0
    offloaded = accelerate.deepspeed and accelerate.offload_optimizer
    return MASTER * share * trained / accelerate.machines / GIB if offloaded else 0.0


def written(config: RunConfig) -> float:
    """GiB that a run leaves on the disk while it trains: two checkpoints, another at its peak, the policy."""
    policy = parameters(config.policy.model, config.policy.revision, config.policy.size) or 0.0
    own = policy * BYTES[config.policy.dtype]
    if not isinstance(config.algorithm, TrainedConfig) or config.reward_model.kind == "untrained":
        return 0.0
    weight, trained = BYTES[config.policy.train_dtype], policy + (_critic(config, policy) or 0.0)
    checkpoint = trained * weight * (1 + MOMENTS)
    if config.algorithm.lora:
        own = checkpoint = ADAPTER_SHARE * trained * weight * (1 + MOMENTS)
    elif config.accelerate.deepspeed:
        checkpoint = trained * (weight + MASTER)
    return (checkpoint * (3 if config.algorithm.publish == "peak" else 2) + own) / GIB


def downloaded(config: RunConfig) -> float:
    """GiB that the run will put into the hub's cache: models that are not there yet, in 16 bits."""
    names = {name.partition("/")[2] for name in hub_names(config) if name.startswith(MODELS)}
    models = [name.partition("@") for name in names]
    absent = [model for model, _, revision in models if _cached(model, revision) is None]
    return sum(2 * (size_in(model.rpartition("/")[2]) or 0.0) for model in absent) / GIB


def parameters(model: str, revision: str | None, size: str | None) -> float | None:
    """How many a model has: by the headers of its weights if they are on this machine, else by its name
    (Llama-3.1-8B) or its class of size; None where nothing tells."""
    if model.startswith(LAB):
        return LAB_PARAMETERS
    folder = Path(model).expanduser() if Path(model).expanduser().is_dir() else _cached(model, revision)
    if folder and (counted := _counted(folder)):
        return counted
    return size_in(model.rpartition("/")[2]) or size_in(size or "")


def size_in(name: str) -> float | None:
    """Parameters that a name speaks of, the largest if there are several: 8e9 in Llama-3.1-8B-40M."""
    found = [
        int(times or 1) * float(number.replace("_", ".")) * (1e9 if unit in "bB" else 1e6)
        for times, number, unit in SIZE.findall(name)
    ]
    return max(found, default=None)


def _training(config: RunConfig, algorithm: TrainedConfig, policy: float, critic: float) -> dict[str, float]:
    accelerate, plain = config.accelerate, BYTES[config.policy.train_dtype]
    weight = 2 if accelerate.deepspeed and accelerate.mixed_precision == "bf16" else plain
    split = accelerate.processes if accelerate.strategy == "zero3" else 1
    shares = accelerate.processes if accelerate.deepspeed else 1
    trained = (policy + critic) * (ADAPTER_SHARE if algorithm.lora else 1)
    states = GRADIENTS + MASTER if accelerate.deepspeed else plain * (1 + MOMENTS)
    if accelerate.deepspeed and accelerate.offload_optimizer:
        states = GRADIENTS
    reference = 0.0
    if not algorithm.lora:
        # Without a KL term the trainer has no reference; the measurements load their own, whole.
        held = algorithm.kl_coefficient > 0
        reference = policy * (weight / split if held else BYTES[config.policy.dtype])
    return {
        "weights": (policy + critic) * weight / split / GIB,
        "gathered to sample": (policy * weight if split > 1 else 0.0) / GIB,
        "gradients and optimiser": trained * states / shares / GIB,
        "reference": reference / GIB,
    }


def _critic(config: RunConfig, policy: float | None) -> float | None:
    """Parameters of the critic's own trunk."""
    algorithm = config.algorithm
    if algorithm.kind != "ppo" or algorithm.critic == "value_head":
        return 0.0
    return policy or 0.0 if algorithm.critic_model is None else parameters(algorithm.critic_model, None, None)


def _weights(root: RewardModelConfig | None) -> Iterator[tuple[str, RewardModelConfig]]:
    """Every model that a reward model loads here."""
    for _, reward_model in nested("", root):
        for model in (reward_model.model, reward_model.reference):
            if model and reward_model.endpoint is None:
                yield model, reward_model


def _counted(folder: Path) -> float:
    """Parameters in the safetensors of a folder; 0 where there are none, or some are missing."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        files = [folder / name for name in names]
    else:
        files = list(folder.glob("model*.safetensors"))
    if not all(file.is_file() for file in files):
        return 0.0
    return float(sum(map(_in_header, files)))


def _in_header(file: Path) -> int:
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def _cached(model: str, revision: str | None) -> Path | None:
    """Its folder in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    if not HUB_NAME.fullmatch(model):
        return None
    found = try_to_load_from_cache(model, "config.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None
