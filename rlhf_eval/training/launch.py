"""Starting the processes that train a policy together, and watching them.

One process trains where it is asked to. Several are started by `accelerate launch`, from files in the stage's
folder that can be read, and used by hand:

    job.yaml          the run's configuration with its `lab:` sources resolved
    accelerate.yaml   configuration of `accelerate launch`; deepspeed.json: DeepSpeed's
    launch.json       address of the first machine, and where the curves go
    stop              made when the processes are to save and end
    error.json        what the process that failed said

`python -m rlhf_eval.training.node FOLDER RANK` starts the processes of one machine.
"""

import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlhf_eval.config.algorithm_schema import AccelerateConfig, TrainedConfig
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import ConfigError, StageError
from rlhf_eval.files import read_json, read_jsonl, write_json, write_text
from rlhf_eval.interruption import deferred
from rlhf_eval.processes import die_with
from rlhf_eval.training.arguments import trained
from rlhf_eval.training.recorder import Advance
from rlhf_eval.training.rollouts import require_vllm

SRUN_OPTIONS = "RLHF_EVAL_SRUN_OPTIONS"
"""Environment variable with further options for srun, such as those for a container."""
PATIENCE_SECONDS = 0.3
"""Between two looks at the processes."""


def launch(
    config: RunConfig,
    folder: Path,
    metrics: Path,
    log: Path,
    advance: Advance,
    announce: Callable[[str], None] = lambda text: None,
) -> None:
    """Train as `train` says, on the processes that the configuration asks for.

    Args:
        log: takes what other processes print.
        announce: told what has to be started on other machines.

    Raises:
        ConfigError: the machine has not what the configuration asks for.
        StageError: training failed.
        Interrupted: SIGTERM came; the checkpoint is on disk.
    """
    accelerate = config.accelerate
    _require_devices(accelerate)
    _require_address(accelerate)
    _require_reporters(trained(config))
    require_vllm(trained(config))
    if accelerate.strategy == "single":
        import torch

        from rlhf_eval.training.train import train

        torch.set_num_threads(config.threads)
        with deferred() as stop:
            train(config, folder, metrics, advance, stop)
        return
    _write_files(config, folder, metrics)
    command = [sys.executable, "-m", "rlhf_eval.training.node", str(folder.absolute())]
    if accelerate.machines > 1 and "SLURM_JOB_ID" in os.environ:
        nodes = [f"--nodes={accelerate.machines}", f"--ntasks={accelerate.machines}", "--ntasks-per-node=1"]
        # The job's first nodes: on one after them there may be vLLM's server.
        nodes += ["--relative=0", *shlex.split(os.environ.get(SRUN_OPTIONS, ""))]
        command = ["srun", *nodes, "--kill-on-bad-exit=1", "--mpi=none", *command]
    else:
        for rank in range(1, accelerate.machines):
            announce(f"on machine {rank}: {shlex.join([*command, str(rank)])}")
        command.append("0")
    with deferred() as stop:
        code = _wait(command, folder, metrics, log, config, advance, stop)
        # SLURM's SIGTERM may reach all processes at once: then those of the training ended by it.
        if code and not stop():
            raise _failure(folder, log, code)


def _wait(
    command: list[str],
    folder: Path,
    metrics: Path,
    log: Path,
    config: RunConfig,
    advance: Advance,
    stop: Callable[[], bool],
) -> int:
    """Run the command to its end, tell how far it is, and hand on the wish to stop."""
    log.parent.mkdir(parents=True, exist_ok=True)
    told = -1
    with log.open("ab") as stream:
        # A session of its own: a signal to this process's group is for this process to hand on.
        process = subprocess.Popen(
            command, stdout=stream, stderr=stream, start_new_session=True, preexec_fn=die_with(os.getpid())
        )
        while (code := process.poll()) is None:
            if stop() and not (folder / "stop").exists():
                (folder / "stop").touch()
            rows = read_jsonl(metrics) if metrics.exists() else []
            steps = [row for row in rows if row["kind"] == "train"]
            if steps and steps[-1]["step"] != told:
                told = steps[-1]["step"]
                reward = steps[-1].get("reward")
                advance(told, trained(config).steps, "" if reward is None else f"reward {reward:.2f}")
            time.sleep(PATIENCE_SECONDS)
    return code


def _failure(folder: Path, log: Path, code: int) -> StageError:
    """What the processes said when they failed."""
    if (folder / "error.json").exists():
        error = read_json(folder / "error.json")
        return StageError(error["what"], error["cure"])
    return StageError(
        f"The processes of the training ended with exit code {code}; what they said is in {log}.",
        "Mend the cause, then give the same command again: it continues from the last complete checkpoint.",
    )


def _require_reporters(algorithm: TrainedConfig) -> None:
    """Raises ConfigError where a package to report to is not installed."""
    for name in algorithm.report_to:
        if find_spec(name) is None:
            raise ConfigError(
                f"algorithm.report_to names {name}, which is not installed.",
                f"pip install {name}, or leave it out.",
            )


def _require_devices(accelerate: AccelerateConfig) -> None:
    """Raises ConfigError where a GPU for each process is asked for and missing."""
    import torch

    here, needed = torch.cuda.device_count(), accelerate.processes // accelerate.machines
    if accelerate.device == "cuda" and here < needed:
        raise ConfigError(
            f"accelerate.device=cuda needs {needed} GPUs on this machine, one for each process; torch sees "
            f"{here}.",
            "Run on a machine that has them, lower accelerate.processes, or set accelerate.device=cpu.",
        )
    if accelerate.device == "auto" and 0 < here < needed:
        raise ConfigError(
            f"accelerate.processes asks for {needed} on this machine, which has {here} GPUs.",
            f"Set accelerate.processes={here * accelerate.machines}.",
        )


def _require_address(accelerate: AccelerateConfig) -> None:
    """Raises ConfigError where the processes cannot meet at the address that is given."""
    if accelerate.main_address is None:
        return
    host, _, port = accelerate.main_address.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 2**16):
        raise ConfigError(
            f"accelerate.main_address: '{accelerate.main_address}' must be host:port.",
            "Give both, such as node7:29500, or null: then a free port of this machine is taken.",
        )
    try:
        socket.create_server(("", int(port))).close()
    except OSError as error:
        raise ConfigError(
            f"accelerate.main_address: port {port} cannot be used on this machine: {error.strerror}.",
            "Give another port, or null: then a free one is taken.",
        ) from error


def _write_files(config: RunConfig, folder: Path, metrics: Path) -> None:
    from rlhf_eval.config.compose import freeze

    accelerate = config.accelerate
    for name in ("stop", "error.json"):
        (folder / name).unlink(missing_ok=True)
    write_text(folder / "job.yaml", freeze(config))
    told = {"address": _main_address(accelerate), "metrics": str(metrics.absolute())}
    write_json(folder / "launch.json", told)
    import yaml

    settings: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        # Processes without GPUs exchange over gloo; accelerate's own kind for them starts one process only.
        "distributed_type": "MULTI_GPU" if accelerate.strategy == "ddp" else "DEEPSPEED",
        "num_processes": accelerate.processes,
        "num_machines": accelerate.machines,
        "mixed_precision": accelerate.mixed_precision,
        "rdzv_backend": "static",
        "same_network": True,
        "main_training_function": "main",
    }
    if accelerate.deepspeed:
        write_json(folder / "deepspeed.json", deepspeed_settings(accelerate))
        settings["deepspeed_config"] = {
            "deepspeed_config_file": str((folder / "deepspeed.json").absolute()),
            "zero3_init_flag": accelerate.strategy == "zero3",
            # Each machine's processes are started by its own command, not over ssh by the first's.
            "deepspeed_multinode_launcher": "standard",
        }
        del settings["mixed_precision"]
    write_text(folder / "accelerate.yaml", yaml.safe_dump(settings, sort_keys=False))


def deepspeed_settings(accelerate: AccelerateConfig) -> dict[str, Any]:
    """DeepSpeed's configuration; "auto" is filled in from TRL's arguments."""
    stage = 3 if accelerate.strategy == "zero3" else 2
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": True, "contiguous_gradients": True}
    if stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    if accelerate.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    return {
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": accelerate.mixed_precision == "bf16"},
        # In bf16 a sum over micro-batches loses what is smaller than a 256th of it.
        "data_types": {"grad_accum_dtype": "fp32"},
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
    }


def _main_address(accelerate: AccelerateConfig) -> str:
    """host:port at which the processes meet."""
    if accelerate.main_address:
        return accelerate.main_address
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
    if accelerate.machines == 1:
        return f"127.0.0.1:{port}"
    # Under SLURM this process runs on the job's first node.
    return f"{os.environ.get('SLURMD_NODENAME') or socket.gethostname()}:{port}"
