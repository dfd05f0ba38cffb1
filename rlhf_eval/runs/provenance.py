"""Where a run's numbers came from: code, packages, machine, seeds, prompt sets. Nothing secret."""

import os
import platform
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from rlhf_eval import __version__
from rlhf_eval.files import write_json, write_text
from rlhf_eval.runs.directory import RunDirectory, now

CREDENTIALS = re.compile(r"://[^/@\s]+@")
"""User and password in an address; they do not belong in a record."""

SCHEDULER_VARIABLES = (
    "SLURM_CLUSTER_NAME",
    "SLURM_JOB_ID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_JOB_PARTITION",
    "SLURM_JOB_NODELIST",
    "SLURM_NNODES",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_RESTART_COUNT",
    "SLURMD_NODENAME",
)


def write_manifest(
    directory: RunDirectory,
    seeds: Mapping[str, int],
    sha256: Mapping[str, str],
    revisions: Mapping[str, str] | None = None,
) -> None:
    """Write manifest.json, requirements.txt and, in a checkout with changes, code.diff.

    Args:
        seeds: by what they seed, such as {"run": 3, "lab": 0}.
        sha256: of prompt sets, chat templates and judge prompts, by name.
        revisions: commits that models and data resolved to, by name.
    """
    requirements = installed()
    commit, diff = checkout()
    write_text(directory.path / "requirements.txt", requirements)
    if diff:
        write_text(directory.path / "code.diff", diff)
    write_json(
        directory.manifest_file,
        {
            "written_at": now(),
            "command": CREDENTIALS.sub("://", shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])),
            "rlhf_eval": __version__,
            "code": {"commit": commit, "dirty": bool(diff)},
            "python": platform.python_version(),
            "platform": platform.platform(),
            "hostname": socket.gethostname(),
            "cpus": os.cpu_count(),
            "packages": _main_packages(requirements),
            "accelerators": accelerators(),
            "seeds": dict(seeds),
            "sha256": dict(sha256),
            "revisions": dict(revisions or {}),
            "scheduler": {name: os.environ[name] for name in SCHEDULER_VARIABLES if name in os.environ},
        },
    )


def installed() -> str:
    """Every installed package as `name==version`, sorted, one a line."""
    found = {(package.metadata["Name"] or "").lower(): package.version for package in distributions()}
    return "".join(f"{name}=={version}\n" for name, version in sorted(found.items()) if name)


def checkout() -> tuple[str | None, str]:
    """Commit of the checkout that this package runs from and its uncommitted changes; else (None, "")."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None, ""
    commit = _git(root, "rev-parse", "HEAD").strip()
    untracked = _git(root, "ls-files", "--others", "--exclude-standard")
    diff = _git(root, "diff", "HEAD", "--no-ext-diff", "--no-color")
    return commit or None, diff + "".join(f"# untracked: {name}\n" for name in untracked.splitlines())


def accelerators() -> dict[str, Any]:
    """CUDA version and GPU names, if torch is loaded already; empty otherwise."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"cuda": torch.version.cuda, "gpus": gpus}


def _main_packages(requirements: str) -> dict[str, str]:
    """The versions that numbers hang on most; requirements.txt has all."""
    versions = dict(line.split("==", 1) for line in requirements.splitlines())
    names = (
        "torch",
        "trl",
        "transformers",
        "accelerate",
        "deepspeed",
        "peft",
        "vllm",
        "alpaca-eval",
        "numpy",
    )
    by_name = {name.replace("_", "-"): version for name, version in versions.items()}
    return {name: by_name[name] for name in names if name in by_name}


def _git(root: Path, *arguments: str) -> str:
    """Output of a git command; empty where git is missing or refuses."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", errors="replace")
