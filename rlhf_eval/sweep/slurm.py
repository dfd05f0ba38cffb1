"""What a sweep asks of SLURM. Every call takes all jobs at once: their number does not grow with the runs."""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import which

from rlhf_eval.errors import ConfigError, RlhfEvalError

TIMEOUT_SECONDS = 120
FIELDS = ("ArrayJobID", "ArrayTaskID", "State", "Reason", "NodeList")
WHOLE = -1
"""In the place of a task's number: all of the array."""
WIDTH = 120
"""squeue pads and cuts fields to a width of our choice."""
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT", "STOPPED")
UNDER_WAY = ("RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "SIGNALING", "STAGE_OUT", "RESIZING")


class SlurmError(RlhfEvalError):
    """SLURM refused, or does not answer."""


@dataclass(frozen=True)
class TaskState:
    """What SLURM says of one task.

    Attributes:
        reason: why it waits, or why it ended; empty if nothing is said.
    """

    state: str
    reason: str
    nodes: str

    @property
    def waits(self) -> bool:
        return self.state in WAITING

    @property
    def runs(self) -> bool:
        return self.state in UNDER_WAY

    @property
    def active(self) -> bool:
        """Whether it is still to do something."""
        return self.waits or self.runs


TaskId = tuple[int, int]
"""Job id of an array and number of a task in it."""
NUMBERS = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")
"""Of tasks that are still one row, as in `0-9:3,12%4`."""
HOPELESS = {
    "AccountNotAllowed",
    "BadConstraints",
    "InvalidAccount",
    "InvalidQOS",
    "PartitionConfig",
    "PartitionDown",
    "PartitionInactive",
    "PartitionNodeLimit",
    "PartitionTimeLimit",
    "QOSNotAllowed",
    "ReqNodeNotAvail",
}
"""Reasons why a job will not start however long it waits, unless somebody changes the cluster."""


def require_slurm() -> None:
    """Raises ConfigError where there is no SLURM."""
    if which("sbatch") is None:
        raise ConfigError(
            "There is no SLURM on this machine: sbatch is not to be found.",
            "Give the command on a login node of the cluster, or execute the same jobs here with --local N.",
        )


def submit(file: Path, dependencies: Sequence[str]) -> int:
    """Submit a rendered script; the job's id.

    Raises:
        SlurmError: sbatch refused; its own words and the file are in the message.
    """
    words = ["sbatch", "--parsable"]
    if dependencies:
        words.append(f"--dependency={','.join(dependencies)}")
    done = _call([*words, str(file)])
    if done.returncode:
        said = " ".join(line.removeprefix("sbatch: error: ") for line in done.stderr.splitlines())
        raise SlurmError(
            f"sbatch refused {file}: {said}",
            "Mend the cluster's settings (cluster=<name>, cluster.jobs.<kind>.<field>=<value>) and give the "
            "command again. Nothing of this sweep stays in the queue.",
        )
    return int(done.stdout.strip().split(";")[0])


def largest_array() -> int:
    """Tasks that an array may have."""
    for line in _call(["scontrol", "show", "config"], check=True).stdout.splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "MaxArraySize":
            return max(1, int(value))  # the largest number of a task is one less
    return 1


def queue(jobs: Sequence[int]) -> dict[TaskId, TaskState]:
    """The tasks of arrays that SLURM's controller still knows, also those that ended minutes ago."""
    fields = ",".join(f"{field}:{WIDTH}|" for field in FIELDS)
    # A single id that is no longer known is an error for squeue; of several, such are passed over.
    wanted = ",".join(map(str, [*jobs, *jobs]))
    if not wanted:
        return {}
    words = ["squeue", "--noheader", "--array", "--states=all", f"--jobs={wanted}", f"--Format={fields}"]
    found = {}
    for line in _call(words, check=True).stdout.splitlines():
        job, task, state, reason, nodes, *_ = (cell.strip() for cell in line.split("|"))
        for number in _numbers(task):
            found[int(job), number] = TaskState(state, "" if reason == "None" else reason, nodes)
    return found


def history(jobs: Sequence[int]) -> dict[TaskId, TaskState]:
    """How tasks ended, from SLURM's accounting; nothing where a cluster keeps none."""
    words = ["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State,NodeList"]
    wanted = ",".join(map(str, jobs))
    if not wanted or which("sacct") is None:
        return {}
    done = _call([*words, f"--jobs={wanted}"])
    found = {}
    for line in done.stdout.splitlines() if done.returncode == 0 else ():
        name, state, nodes = line.split("|")
        job, _, task = name.partition("_")
        # "CANCELLED by 1000" names who did it; an array that ended before it began is a single row.
        known = TaskState(state.split()[0], "", nodes)
        for number in _numbers(task.strip("[]")) if task else (WHOLE,):
            found[int(job), number] = known
    return found


def state_of(task: TaskId, states: Mapping[TaskId, TaskState]) -> TaskState | None:
    """What is known of a task, by itself or as part of its array."""
    return states.get(task) or states.get((task[0], WHOLE))


def cancel(tasks: Sequence[str]) -> None:
    """Take jobs (`12`) and tasks (`12_3`) out of the queue, and end those that run."""
    for start in range(0, len(tasks), 1000):
        _call(["scancel", *tasks[start : start + 1000]], check=True)


def _numbers(text: str) -> list[int]:
    """Numbers of tasks, as squeue writes them."""
    found = []
    for first, last, step in NUMBERS.findall(text.partition("%")[0]):
        found += range(int(first), int(last or first) + 1, int(step or 1))
    return found


def _call(words: Sequence[str], check: bool = False) -> "subprocess.CompletedProcess[str]":
    try:
        # Without it numbers of tasks are cut after 64 characters.
        environment = os.environ | {"SLURM_BITSTR_LEN": "0"}
        done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env=environment)
    except FileNotFoundError:
        raise ConfigError(
            f"There is no SLURM on this machine: {words[0]} is not to be found.",
            "Give the command on a login node of the cluster.",
        ) from None
    except subprocess.TimeoutExpired:
        raise SlurmError(
            f"{words[0]} gave no answer within {TIMEOUT_SECONDS} seconds.",
            "SLURM's controller may be down; try again.",
        ) from None
    if check and done.returncode:
        raise SlurmError(f"{words[0]} failed: {done.stderr.strip()}", "See whether `sinfo` answers.")
    return done
