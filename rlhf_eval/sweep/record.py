"""What was submitted for an experiment, in `<experiment>/sweeps/`:

lock                held while a sweep is submitted
0001/command.txt    the command and when it was given
     cluster.yaml   the cluster's settings, resolved
     <job>.sbatch   a job's script;  <job>.runs: its run directories, one a task
     jobs.jsonl     a line for each job that SLURM took
     logs/          what the tasks print, <job>-<task>.log
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_eval.files import append_jsonl, holding, read_jsonl
from rlhf_eval.sweep.graph import Job
from rlhf_eval.sweep.slurm import TaskId


@dataclass(frozen=True)
class Task:
    """A task that SLURM took: one job of one run.

    Attributes:
        id: of the array, and number in it.
        kind: of its job.
        log: what it prints.
    """

    id: TaskId
    kind: str
    run: str
    log: Path

    @property
    def name(self) -> str:
        """As SLURM calls it, such as 12_3."""
        return f"{self.id[0]}_{self.id[1]}"


def sweeps_folder(experiment: Path) -> Path:
    """Where an experiment's sweeps are recorded."""
    return experiment / "sweeps"


def new_folder(experiment: Path) -> Path:
    """Make the folder of a new sweep: the next number."""
    folder = sweeps_folder(experiment)
    number = 1 + max((int(old.name) for old in folder.glob("[0-9]*")), default=0)
    new = folder / f"{number:04d}"
    new.mkdir(parents=True)
    return new


@contextmanager
def submitting(experiment: Path) -> Iterator[None]:
    """Hold the experiment while a sweep is planned and submitted; a second one waits."""
    with holding(sweeps_folder(experiment) / "lock"):
        yield


def keep(folder: Path, job: Job, job_id: int) -> None:
    """Write down that SLURM took a job."""
    runs = [point.path.name for point in job.points]
    row = {"name": job.name, "kind": job.kind, "job_id": job_id, "stages": list(job.stages), "runs": runs}
    append_jsonl(folder / "jobs.jsonl", row)


def servers_of(experiment: Path) -> list[int]:
    """Job ids of all servers that were submitted."""
    return [row["job_id"] for _, row in _jobs(experiment) if not row["runs"]]


def tasks_of(experiment: Path) -> dict[str, list[Task]]:
    """Everything that was submitted, by run, in the order of submission."""
    found: dict[str, list[Task]] = {}
    for folder, row in _jobs(experiment):
        for number, run in enumerate(row["runs"]):
            log = folder / "logs" / f"{row['name']}-{number}.log"
            found.setdefault(run, []).append(Task((row["job_id"], number), row["kind"], run, log))
    return found


def _jobs(experiment: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The sweep's folder and the line of every job that SLURM took, oldest first."""
    for file in sorted(sweeps_folder(experiment).glob("[0-9]*/jobs.jsonl")):
        for row in read_jsonl(file):
            yield file.parent, row
