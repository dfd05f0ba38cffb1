"""GPUs: what is here, and whether torch and DeepSpeed can use it."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from shutil import which
from threading import Lock
from typing import Any

from rlhf_eval.config.schema import RunConfig
from rlhf_eval.doctor.checks import Finding, failure, last_line, passed, probe, skipped, warning
from rlhf_eval.errors import RlhfEvalError

MIB_PER_GIB = 1024
BUSY = 0.1
"""Share of it in use before anything began."""
OLDEST_DRIVER = {"11": 450, "12": 525, "13": 580}
"""First driver for each major version of CUDA."""
QUERY = ("--query-gpu=name,memory.total,memory.used,driver_version", "--format=csv,noheader,nounits")
TORCH = """
import json, torch, torch.distributed as d
told = {"version": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip, "error": None}
told |= {"gpus": torch.cuda.device_count(), "gloo": d.is_gloo_available(), "nccl": None}
if torch.version.cuda:
    try:
        torch.cuda.init()
        told["nccl"] = ".".join(map(str, torch.cuda.nccl.version())) if d.is_nccl_available() else None
    except Exception as error:
        told["error"] = str(error).splitlines()[0]
print(json.dumps(told))
"""
DEEPSPEED = """
import json, deepspeed
from deepspeed.accelerator import get_accelerator
builder = get_accelerator().create_op_builder("ShareMemCommBuilder")
fits = builder is not None and builder.is_compatible(verbose=False)
print(json.dumps([deepspeed.__version__, get_accelerator()._name, fits]))
"""


@dataclass(frozen=True)
class Gpu:
    """A row of nvidia-smi; memory in GiB, 0 where it is the machine's own."""

    name: str
    memory: float
    used: float
    driver: str


class Machine:
    """The GPUs and torch of this machine, each asked once for all looks.

    Attributes:
        trouble: what nvidia-smi said instead of naming GPUs; None where it is not there at all.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._torch: Any = None
        self.trouble: str | None = None
        self.gpus = self._ask()

    def torch(self) -> dict[str, Any]:
        """What torch says of itself; raises as `checks.probe`."""
        with self._lock:
            if self._torch is None:
                try:
                    self._torch = probe(TORCH)
                except (RlhfEvalError, OSError, subprocess.SubprocessError) as error:
                    self._torch = error
        if isinstance(self._torch, Exception):
            raise self._torch
        return self._torch

    def _ask(self) -> list[Gpu]:
        if which("nvidia-smi") is None:
            return []
        try:
            done = subprocess.run(["nvidia-smi", *QUERY], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.SubprocessError) as error:
            self.trouble = str(error)
            return []
        rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]
        gpus = [Gpu(row[0], _gib(row[1]), _gib(row[2]), row[3]) for row in rows if len(row) == 4]
        if not gpus:
            self.trouble = last_line(done.stdout + done.stderr)
        return gpus


def gpus(machine: Machine) -> Iterator[Finding]:
    """The GPUs, and whether somebody is using them."""
    if machine.trouble is not None:
        cure = (
            "See whether the driver is loaded (`nvidia-smi`), and whether the container was given the GPUs."
        )
        yield failure("GPUs", f"nvidia-smi: {machine.trouble}", cure)
        return
    if not machine.gpus:
        cure = "Training of models beyond the lab needs one; nvidia-smi is not found here."
        yield warning("GPUs", "no GPU, CPU only", cure)
        return
    kinds = dict.fromkeys((gpu.name, round(gpu.memory)) for gpu in machine.gpus)
    count = {kind: sum((gpu.name, round(gpu.memory)) == kind for gpu in machine.gpus) for kind in kinds}
    seen = ", ".join(f"{number} x {name}, {memory} GiB" for (name, memory), number in count.items())
    busy = [str(n) for n, gpu in enumerate(machine.gpus) if gpu.memory and gpu.used / gpu.memory > BUSY]
    if busy:
        cure = "Choose others in CUDA_VISIBLE_DEVICES, or end what runs there (`nvidia-smi` names it)."
        yield warning("GPUs", f"{seen}; memory of {', '.join(busy)} is in use", cure)
    else:
        yield passed("GPUs", seen)


def torch(machine: Machine) -> Iterator[Finding]:
    """How torch was built, and whether it sees the GPUs."""
    told = machine.torch()
    built = f"CUDA {told['cuda']}" if told["cuda"] else f"ROCm {told['hip']}" if told["hip"] else "the CPU"
    seen = f"{told['version']}, built for {built}, sees {told['gpus']} GPUs"
    if machine.gpus and not told["gpus"]:
        cure = "Look at CUDA_VISIBLE_DEVICES and the driver."
        if not told["cuda"]:
            version = told["version"].partition("+")[0]
            cure = f"Install the build for CUDA: pip install --force-reinstall torch=={version}"
        why = f" ({told['error']})" if told["error"] else ""
        yield failure("torch", f"{seen} of {len(machine.gpus)}{why}", cure)
    else:
        yield passed("torch", seen)


def driver(machine: Machine) -> Iterator[Finding]:
    """Whether the driver is new enough for the CUDA that torch was built for."""
    if not machine.gpus:
        yield skipped("driver", "no GPU")
        return
    cuda = machine.torch()["cuda"]
    if cuda is None:
        yield skipped("driver", f"{machine.gpus[0].driver}; torch is not built for CUDA")
        return
    yield driver_for(machine.gpus[0].driver, cuda)


def driver_for(version: str, cuda: str) -> Finding:
    """Whether a driver is new enough for a CUDA."""
    least, major = OLDEST_DRIVER.get(cuda.partition(".")[0]), version.partition(".")[0]
    if least and major.isdecimal() and int(major) < least:
        cure = f"Install driver {least} or newer, or a torch that is built for an older CUDA."
        return failure("driver", f"{version} is older than CUDA {cuda} takes ({least})", cure)
    return passed("driver", f"{version}, torch's CUDA {cuda}")


def exchange(machine: Machine) -> Iterator[Finding]:
    """What training processes exchange over."""
    told = machine.torch()
    if told["nccl"]:
        yield passed("NCCL", told["nccl"])
    elif machine.gpus:
        cure = "Install the build of torch for CUDA, which brings NCCL."
        yield warning("NCCL", "torch has none: several GPUs cannot train together", cure)
    elif told["gloo"]:
        yield passed("gloo", "CPU processes exchange over it")
    else:
        yield warning("gloo", "torch has none", "Install another build of torch.")


def deepspeed(machine: Machine, config: RunConfig | None) -> Iterator[Finding]:
    """Whether DeepSpeed can be imported and has what a training needs of its compiled operations: none on
    GPUs (the optimiser is torch's), on the CPU its exchange over shared memory."""
    needed = config is not None and config.accelerate.deepspeed
    environment = {} if machine.gpus else {"DS_ACCELERATOR": "cpu"}
    try:
        version, kind, fits = probe(DEEPSPEED, **environment)
    except RlhfEvalError as error:
        say = failure if needed else warning
        yield say("DeepSpeed", error.what, f"{error.cure} accelerate=ddp needs no DeepSpeed.")
        return
    if kind == "cpu" and not fits:
        say = failure if needed else warning
        cure = "Set accelerate=ddp, or train on GPUs."
        yield say("DeepSpeed", f"{version}, its exchange between CPU processes cannot be compiled here", cure)
    else:
        yield passed("DeepSpeed", f"{version} on {kind}")


def _gib(cell: str) -> float:
    return float(cell) / MIB_PER_GIB if cell.isdecimal() else 0.0
