"""`python -m rlhf_eval.training.node FOLDER [RANK]`: the training processes of one machine.

FOLDER is the stage's, written by `launch`. RANK counts machines from 0; under `srun` it is the task's. Ends
with its processes, and they with it.
"""

import os
import subprocess
import sys
from pathlib import Path

from rlhf_eval.config.algorithm_schema import AccelerateConfig
from rlhf_eval.config.compose import load
from rlhf_eval.files import read_json
from rlhf_eval.processes import die_with
from rlhf_eval.training.arguments import on_cpu


def main() -> int:
    """Start the processes, wait for them, and return their exit code."""
    folder = Path(sys.argv[1])
    rank = int(sys.argv[2] if len(sys.argv) > 2 else os.environ["SLURM_PROCID"])
    config = load(folder / "job.yaml")
    host, _, port = read_json(folder / "launch.json")["address"].rpartition(":")
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    command += ["--config_file", str(folder / "accelerate.yaml"), "--machine_rank", str(rank)]
    command += ["--main_process_ip", host, "--main_process_port", port]
    command += ["-m", "rlhf_eval.training.worker", str(folder)]
    environment = os.environ | _environment(config.accelerate, config.threads)
    process = subprocess.Popen(command, env=environment, preexec_fn=die_with(os.getpid()))
    return process.wait()


def _environment(accelerate: AccelerateConfig, threads: int) -> dict[str, str]:
    environment = {
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        # The run's own process hands SIGTERM on when it suits; torch's launcher would end the workers at
        # once.
        "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGQUIT",
    }
    if on_cpu(accelerate):
        # accelerate's own name of the second process's device, cpu:1, is one that torch.load does not know.
        environment |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "ACCELERATE_TORCH_DEVICE": "cpu"}
    return environment


if __name__ == "__main__":
    sys.exit(main())
