"""Which looks `rlhf-eval doctor` takes, in the order of its report."""

import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from rlhf_eval.config.compose import run_path
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.doctor import accelerators, capacity, packages, services, slurm, storage, system
from rlhf_eval.doctor.checks import Finding, Look
from rlhf_eval.doctor.memory import downloaded, written
from rlhf_eval.lab.build import is_built, world_path
from rlhf_eval.sources import localise

OUTPUT = Path("runs")
"""Where runs go if no configuration says otherwise."""


def looks(config: RunConfig | None, lock: Path | None) -> list[Look]:
    """Of this machine alone, or against what a configuration needs.

    Args:
        lock: file with the versions that packages should have; None is the one that comes with rlhf_eval.
    """
    machine = accelerators.Machine()
    on_cpu = not machine.gpus or (config is not None and config.accelerate.device == "cpu")
    deepspeed_on_cpu = on_cpu and config is not None and config.accelerate.deepspeed
    found = [
        Look("packages", "versions", packages.versions),
        Look("packages", "requirements", packages.requirements),
        Look("packages", "lock", partial(packages.lock, lock)),
        *(Look("packages", name, partial(packages.library, name)) for name in packages.LIBRARIES),
        Look("accelerators", "torch", partial(accelerators.torch, machine)),
        Look("accelerators", "GPUs", partial(accelerators.gpus, machine)),
        Look("accelerators", "driver", partial(accelerators.driver, machine)),
        Look("accelerators", "NCCL", partial(accelerators.exchange, machine)),
        Look("accelerators", "DeepSpeed", partial(accelerators.deepspeed, machine, config)),
        Look("system", "platform", system.machine),
        Look("system", "CPUs", partial(system.processors, config)),
        Look("system", "memory", system.memory),
        Look("system", "open files", partial(system.open_files, config)),
        Look("system", "compiler", partial(system.compiler, deepspeed_on_cpu, bool(machine.gpus))),
        *_of_storage(config),
        Look("network", "proxies", services.proxies),
        Look("network", "hub", partial(services.hub, config)),
        Look("SLURM", "SLURM", slurm.slurm),
    ]
    return found + (_of_configuration(config, machine) if config is not None else [])


def _of_storage(config: RunConfig | None) -> list[Look]:
    output = OUTPUT if config is None else run_path(config).parent
    temporary = Path(tempfile.gettempdir())

    def of_output() -> Iterable[Finding]:
        needed = 0.0 if config is None else written(_local(config))
        return storage.room("output", output, needed, "choose output=<folder>")

    def of_cache() -> Iterable[Finding]:
        from huggingface_hub.constants import HF_HUB_CACHE

        needed = 0.0 if config is None else downloaded(config)
        return storage.room("hub cache", Path(HF_HUB_CACHE), needed, "export HF_HOME=<folder>")

    def of_temporary() -> Iterable[Finding]:
        return storage.room("temporary", temporary, 0.0, "export TMPDIR=<folder>")

    return [
        Look("storage", "output", of_output),
        Look("storage", "file system", partial(storage.file_system, output)),
        Look("storage", "hub cache", of_cache),
        Look("storage", "temporary", of_temporary),
        Look("storage", "shared memory", storage.shared_memory),
    ]


def _of_configuration(config: RunConfig, machine: accelerators.Machine) -> list[Look]:
    topic = "configuration"
    return [
        Look(topic, "training", lambda: capacity.training(machine, _local(config))),
        Look(topic, "GPUs for answers", lambda: capacity.answers(machine, _local(config))),
        Look(topic, "files", partial(services.files_and_keys, config)),
        Look(topic, "judge", partial(services.judges, config)),
        Look(topic, "servers", partial(services.servers, config)),
        Look(topic, "vLLM", partial(services.vllm, config)),
        Look(topic, "code", partial(services.foreign_code, config)),
    ]


def _local(config: RunConfig) -> RunConfig:
    """With the places of the lab's models, where the lab is built."""
    return localise(config, world_path(config.lab)) if config.lab and is_built(config.lab) else config
