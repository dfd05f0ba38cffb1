"""SLURM: whether it is there, answers, keeps accounts, and puts jobs back into the queue."""

import os
import subprocess
from collections.abc import Iterator
from shutil import which

from rlhf_eval.doctor.checks import Finding, last_line, passed, skipped, warning

SECONDS = 10.0
PARTITIONS = "%P|%a|%D|%G|%l"
"""Name, availability, nodes, generic resources, time limit."""


def slurm() -> Iterator[Finding]:
    """All that a sweep needs of it; a single run needs none of it."""
    missing = [name for name in ("sinfo", "sbatch", "squeue", "scontrol", "scancel") if which(name) is None]
    if "sbatch" in missing and "sinfo" in missing:
        yield skipped("SLURM", "no SLURM here")
        return
    if missing:
        cure = "Install SLURM's client programs, or give the command on a login node."
        yield warning("SLURM", f"not found: {', '.join(missing)}", cure)
        return
    try:
        partitions = _ask("sinfo", "--noheader", f"--format={PARTITIONS}")
        settings = _settings(_ask("scontrol", "show", "config"))
    except subprocess.SubprocessError as error:
        cure = "Give the command on a login node. `rlhf-eval run` and `sweep --local` need no SLURM."
        yield warning("SLURM", f"its programs are here, but no cluster answers: {_said(error)}", cure)
        return
    job = os.environ.get("SLURM_JOB_ID")
    yield passed(
        "SLURM", f"{settings.get('SLURM_VERSION', '?')} answers{f', inside job {job}' if job else ''}"
    )
    yield _partitions(partitions)
    yield _requeue(settings)
    yield passed("arrays", f"MaxArraySize {settings.get('MaxArraySize', '?')}")
    yield _accounting()


def _partitions(lines: str) -> Finding:
    rows = [line.strip().split("|") for line in lines.splitlines() if line.strip()]
    seen = "; ".join(
        f"{name} {available}, {nodes} nodes, {resources.replace('(null)', 'no gres')}, limit {limit}"
        for name, available, nodes, resources, limit in rows
    )
    if not any(available == "up" for _, available, *_ in rows):
        return warning("partitions", seen or "none", "Ask who runs the cluster: no partition takes jobs.")
    if all(resources == "(null)" for _, _, _, resources, _ in rows):
        cure = "Set cluster.jobs.<kind>.gpus=0, or name the cluster's gres in cluster.gres."
        return warning("partitions", f"{seen}: no GPUs are offered", cure)
    return passed("partitions", seen)


def _requeue(settings: dict[str, str]) -> Finding:
    preempt, requeue = settings.get("PreemptMode", "?"), settings.get("JobRequeue", "?")
    seen = f"JobRequeue={requeue} (the sweep's jobs ask for it themselves), PreemptMode={preempt}"
    if "CANCEL" in preempt.upper():
        cure = "A preempted job does not come back by itself: `rlhf-eval sweep --resume` continues it."
        return warning("requeueing", seen, cure)
    return passed("requeueing", seen)


def _accounting() -> Finding:
    cure = "`rlhf-eval status` then tells from the runs' own files only how jobs ended long ago."
    if which("sacct") is None:
        return warning("accounting", "sacct is not found", cure)
    try:
        _ask("sacct", "--noheader", "--parsable2", "--allocations", "--starttime=now-1minutes")
    except subprocess.SubprocessError as error:
        return warning("accounting", f"sacct: {_said(error)}", cure)
    return passed("accounting", "sacct answers")


def _settings(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _ask(*command: str) -> str:
    """What it prints; SubprocessError where it refuses or gives no answer in time."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    return done.stdout


def _said(error: subprocess.SubprocessError) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return last_line(error.stderr)
    return f"no answer within {SECONDS:.0f} s"
