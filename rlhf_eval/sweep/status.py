"""Where every run of an experiment is: what its directory says, and what SLURM says of its jobs."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from shutil import which

from rlhf_eval.config.compose import CHECKSUM, is_edited, load
from rlhf_eval.errors import ConfigError
from rlhf_eval.files import read_tail
from rlhf_eval.learning import gradient_steps_in, gradient_warning
from rlhf_eval.runs.directory import RunDirectory, run_directories
from rlhf_eval.runs.step_times import StepTimes, step_times
from rlhf_eval.sweep import slurm
from rlhf_eval.sweep.record import Task, tasks_of
from rlhf_eval.sweep.slurm import TaskId, TaskState

STATES = ("pending", "queued", "running", "interrupted", "cancelled", "failed", "done", "damaged")
NAME = re.compile(r"(?P<reward_model>.+)--(?P<policy>.+)--(?P<algorithm>.+)--s(?P<seed>\d+)--[0-9a-f]{8}")
"""As `config.compose.run_name` makes it; no name in it holds `--`."""
SKEW_SECONDS = 60
ENDED_WELL = "COMPLETED"
TAIL = 4096
"""Bytes of a log that its last line is looked for in."""


@dataclass(frozen=True)
class RunStatus:
    """One run.

    Attributes:
        attempt: how often the run was executed, by jobs and commands together.
        stage_attempt: how often its present stage was begun.
        seconds_left: of the stage under way, by its last steps; None where that is not known.
        jobs: its tasks in SLURM's queue, such as 12_3.
        waits_for: SLURM's reason why the next of them does not run yet.
        training_steps: those in its `metrics.jsonl`.
        no_gradient_steps: those of them in which the rewards gave the policy nothing to learn from.
        warning: in words, if those are more than half; None otherwise.
    """

    run: str
    reward_model: str | None
    seed: int | None
    state: str
    stage: str | None
    step: int
    steps: int
    attempt: int
    error: str | None
    updated: str | None
    step_times: StepTimes | None
    stage_attempt: int
    seconds_left: float | None
    jobs: tuple[str, ...] = ()
    waits_for: str | None = None
    training_steps: int = 0
    no_gradient_steps: int = 0
    warning: str | None = None


def statuses(experiment: Path) -> tuple[list[RunStatus], list[str]]:
    """Every run by name, and notes on what could not be known. One call of squeue and at most one of sacct.

    Raises:
        DataError: there is no such folder.
    """
    rows = [_from_directory(directory) for directory in run_directories(experiment)]
    tasks = tasks_of(experiment)
    notes = _skewed(rows)
    try:
        states = _ask(rows, tasks)
    except slurm.SlurmError as error:
        notes.append(f"{error.what} What follows is from the runs' own files alone.")
        return rows, notes
    rows = [_from_scheduler(row, tasks.get(row.run, []), states) for row in rows]
    return rows, notes + hopeless(states.values())


def status_of(run: Path) -> RunStatus:
    """A single run, by its directory; one call of squeue and at most one of sacct.

    Raises:
        SlurmError: SLURM does not answer.
    """
    row, tasks = _from_directory(RunDirectory(run)), tasks_of(run.parent).get(run.name, [])
    return _from_scheduler(row, tasks, _ask([row], {run.name: tasks}))


def hopeless(states: Iterable[TaskState]) -> list[str]:
    """A note on tasks that will not start however long they wait."""
    reasons = Counter(state.reason for state in states if state.waits and state.reason in slurm.HOPELESS)
    return [
        f"{count} tasks wait for what will not come by itself: SLURM says {reason}. Cancel them, mend the "
        "cluster's settings and resume."
        for reason, count in reasons.items()
    ]


def _from_directory(directory: RunDirectory) -> RunStatus:
    now, times = directory.status(), step_times(directory.metrics_file)
    left = (now["steps"] - now["step"]) * times.seconds if times and now["stage"] == "train" else None
    no_gradient_steps, training_steps = gradient_steps_in(directory.metrics_file)
    row = RunStatus(
        run=directory.path.name,
        reward_model=None,
        seed=None,
        state=now["state"],
        stage=now["stage"],
        step=now["step"],
        steps=now["steps"],
        attempt=now["attempt"],
        stage_attempt=now["stage_attempt"],
        error=now["error"].splitlines()[0] if now["error"] else None,
        updated=now["updated_at"],
        step_times=times,
        seconds_left=left,
        training_steps=training_steps,
        no_gradient_steps=no_gradient_steps,
        warning=gradient_warning(no_gradient_steps, training_steps),
    )
    # Reading a thousand configurations takes seconds; their checksums and the directories' names do not.
    named = NAME.fullmatch(row.run)
    try:
        text = directory.config_file.read_text(encoding="utf-8", errors="replace")
        if named and CHECKSUM in text and not is_edited(text):
            return replace(row, reward_model=named["reward_model"], seed=int(named["seed"]))
        config = load(directory.config_file)
    except (ConfigError, FileNotFoundError) as error:
        return replace(row, state="damaged", error=getattr(error, "what", str(error)))
    return replace(row, reward_model=config.reward_model.name, seed=config.seed)


def _ask(rows: Sequence[RunStatus], tasks: Mapping[str, Sequence[Task]]) -> dict[TaskId, TaskState]:
    """What SLURM knows of the tasks of runs that are not done."""
    open_runs = {row.run for row in rows if row.state != "done"}
    jobs = {task.id[0] for run, group in tasks.items() if run in open_runs for task in group}
    if not jobs or which("squeue") is None:
        return {}
    states = slurm.queue(sorted(jobs))
    if gone := jobs - {job for job, _ in states}:
        states = slurm.history(sorted(gone)) | states
    return states


def _from_scheduler(row: RunStatus, tasks: Sequence[Task], states: Mapping[TaskId, TaskState]) -> RunStatus:
    """What the files say, with what SLURM knows of the run's jobs."""
    if row.state == "done":
        return row
    known = [(task, state) for task in tasks if (state := slurm.state_of(task.id, states))]
    row = replace(row, jobs=tuple(task.name for task, state in known if state.active))
    if row.state == "damaged":
        return row
    # The first of the last sweep's jobs that has not succeeded tells how the run stands; those after it wait
    # for it. Work that is shared with other runs is done by the run itself where it failed.
    for task, state in known:
        if task.log.parent != tasks[-1].log.parent or state.state == ENDED_WELL:
            continue
        if state.waits:
            return replace(row, state="queued", waits_for=state.reason, error=None)
        if state.runs and not (row.state == "failed" and state.state == "COMPLETING"):
            return replace(row, state="running")
        if task.kind == "shared" or row.state == "failed":
            continue
        word = "cancelled" if state.state == "CANCELLED" else "failed"
        return replace(row, state=word, error=_how(task, state))
    return row


def _how(task: Task, state: TaskState) -> str:
    """How a job ended that has not said so itself."""
    where = f" on {state.nodes}" if state.nodes and "None" not in state.nodes else ""
    line = last_line(task.log)
    if line is None and state.state != "CANCELLED":
        said = f", without a log: {task.log.parent} may not be shared with that node"
    else:
        said = f"; its log ends: {line}" if line else ""
    return f"{task.kind} job {task.name} ended as {state.state}{where}{said}"


def last_line(log: Path) -> str | None:
    """The last line of a log that says something; None where there is no log."""
    if not log.exists():
        return None
    lines = read_tail(log, TAIL).decode("utf-8", "replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _skewed(rows: Sequence[RunStatus]) -> list[str]:
    """A note where a run was updated after now."""
    now = datetime.now(UTC)
    ahead = {
        row.run: (datetime.fromisoformat(row.updated) - now).total_seconds() for row in rows if row.updated
    }
    name, seconds = max(ahead.items(), key=lambda item: item[1], default=("", 0.0))
    if seconds <= SKEW_SECONDS:
        return []
    return [
        f"The clocks differ: {name} was updated {seconds:.0f} s after this machine's now. Times of different "
        "machines cannot be compared; nothing else depends on them."
    ]
