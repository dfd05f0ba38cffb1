"""`accelerate launch -m rlhf_eval.training.worker FOLDER`: one of several processes of a training."""

import os
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn

from rlhf_eval.config.compose import load
from rlhf_eval.errors import ConfigError, RlhfEvalError
from rlhf_eval.files import read_json, write_json
from rlhf_eval.interruption import Interrupted
from rlhf_eval.processes import die_with


def main() -> int:
    """Train; 0 also where it was asked to save and end before the last step."""
    die_with(os.getppid())()
    # The wish to stop comes by the file, to all processes alike.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    folder = Path(sys.argv[1])
    config = load(folder / "job.yaml")
    import torch

    from rlhf_eval.determinism import make_deterministic
    from rlhf_eval.training.train import train

    if config.deterministic:
        make_deterministic()

    torch.set_num_threads(config.threads)
    try:
        _require_all(config.accelerate.processes)
        _require_gpu(torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", "0")))
        metrics = Path(read_json(folder / "launch.json")["metrics"])
        train(config, folder, metrics, lambda *_: None, (folder / "stop").exists)
    except Interrupted:
        return 0
    except RlhfEvalError as error:
        write_json(folder / "error.json", {"what": error.what, "cure": error.cure})
        raise
    return 0


def _require_all(processes: int) -> None:
    """A launcher that starts fewer processes than asked for does not say so."""
    found = int(os.environ.get("WORLD_SIZE", "1"))
    if found != processes:
        raise RuntimeError(f"{found} training processes were started instead of {processes}")


def _require_gpu(here: int, place: int) -> None:
    """Raises ConfigError where this machine has GPUs, but none for this process, the one at `place` on it.

    The machine that was asked to train has looked at its own GPUs; the others have not.
    """
    if 0 < here <= place:
        raise ConfigError(
            f"Machine {socket.gethostname()} has {here} GPUs, and at least {place + 1} training processes "
            "were started on it.",
            "Set accelerate.processes to the GPUs of all machines, each with as many as the others.",
        )


def leave(code: int) -> NoReturn:
    """End without unwinding: threads of gloo that still run would abort a process that is done with its
    work."""
    from accelerate import PartialState

    PartialState().destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main())
