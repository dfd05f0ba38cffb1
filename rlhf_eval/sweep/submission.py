"""From the runs that are asked for to jobs in the queue: plan, freeze, render, submit."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rlhf_eval.config.cluster_schema import ClusterConfig
from rlhf_eval.config.compose import dump, load, run_path
from rlhf_eval.config.inputs import require_inputs
from rlhf_eval.config.plain import plain
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import ConfigError, DataError
from rlhf_eval.files import write_text
from rlhf_eval.progress import Progress
from rlhf_eval.runs.directory import PENDING, RunDirectory, now, run_directories
from rlhf_eval.runs.protocol import hold
from rlhf_eval.runs.provenance import command_line
from rlhf_eval.runs.stages import STAGES, open_stages
from rlhf_eval.sweep import slurm
from rlhf_eval.sweep.graph import Job, Point, graph
from rlhf_eval.sweep.local import LocalTask, Outcome, run_tasks
from rlhf_eval.sweep.record import Task, keep, new_folder, servers_of, submitting, tasks_of
from rlhf_eval.sweep.render import render

ALL = tuple(name for name, _ in STAGES)
FIRST_TASKS = 8
"""SLURM begins an array with its first tasks: one of so many is looked at for whether it has begun."""
Runs = Mapping[Path, RunConfig]
"""Configurations by run directory, all in one experiment's folder."""


@dataclass(frozen=True)
class Plan:
    """What a sweep is to do.

    Attributes:
        points: runs with something open that nobody works on.
        finished: runs that have nothing open.
        busy: runs that a job or a process works on, or that wait in the queue.
    """

    points: tuple[Point, ...]
    finished: tuple[Path, ...]
    busy: tuple[Path, ...]


def plan(runs: Runs, active: Collection[str]) -> Plan:
    """Look at every run's directory.

    Args:
        active: names of runs with a task in the queue.

    Raises:
        ConfigError: an input is missing.
    """
    points, finished, busy = [], [], []
    for path, config in runs.items():
        directory = RunDirectory(path)
        if path.name in active or directory.is_working():
            busy.append(path)
        elif not directory.config_file.exists():
            require_inputs(config)
            points.append(Point(config, path, ALL))
        elif left := open_stages(config, path):
            points.append(Point(config, path, tuple(left)))
        elif directory.status()["state"] == "done":
            finished.append(path)
        else:  # it was killed between its last stage and saying so
            points.append(Point(config, path, ALL[-1:]))
    return Plan(tuple(points), tuple(finished), tuple(busy))


def new(configs: Sequence[RunConfig]) -> Runs:
    """Runs where their configurations place them.

    Raises:
        ConfigError: they belong to several experiments.
    """
    runs = {run_path(config): config for config in configs}
    experiments = list(dict.fromkeys(path.parent for path in runs))
    if len(experiments) > 1:
        raise ConfigError(
            f"A sweep belongs to one experiment, not to {', '.join(map(str, experiments))}.",
            "Give a command for each.",
        )
    return runs


def existing(experiment: Path) -> Runs:
    """An experiment's runs with their frozen configurations.

    Raises:
        ConfigError: one was edited or is damaged, or there is none.
        DataError: there is no such folder.
    """
    runs = {directory.path: load(directory.config_file) for directory in run_directories(experiment)}
    if not runs:
        raise ConfigError(f"{experiment} holds no runs.", "Start some with `rlhf-eval sweep`.")
    return runs


def active_tasks(experiment: Path) -> list[Task]:
    """The tasks of an experiment that wait in SLURM's queue or run."""
    tasks = [task for group in tasks_of(experiment).values() for task in group]
    states = slurm.queue(sorted({task.id[0] for task in tasks}))
    return [task for task in tasks if task.id in states and states[task.id].active]


def active_runs(experiment: Path) -> set[str]:
    """Names of the runs that have such a task."""
    return {task.run for task in active_tasks(experiment)}


def cancel(experiment: Path, runs: Collection[str]) -> int:
    """Take an experiment's jobs and servers out of SLURM's queue, or only the jobs of single runs.

    Returns:
        The number of tasks that were to do something.

    Raises:
        ConfigError: there is no SLURM.
        DataError: nothing was submitted for one of the runs.
    """
    slurm.require_slurm()
    if unknown := set(runs) - set(tasks_of(experiment)):
        raise DataError(
            f"Nothing was submitted to SLURM for {', '.join(sorted(unknown))} of {experiment}.",
            "`rlhf-eval status` lists the runs; a run that executes here is ended by Ctrl-C or SIGTERM.",
        )
    wanted = [task.name for task in active_tasks(experiment) if not runs or task.run in runs]
    slurm.cancel([*wanted, *([] if runs else map(str, servers_of(experiment)))])
    return len(wanted)


def freeze(points: Sequence[Point]) -> None:
    """Make the directory of every run, with its configuration as it is now.

    Raises:
        ConfigError: a run would not keep to the experiment's protocol, or its directory is another run's.
    """
    for point in points:
        hold(point.path.parent, point.config)
        directory = RunDirectory.open(point.path, point.config)
        if directory.status() != PENDING:  # what ended it last time is no longer how it stands
            with directory.locked():
                directory.update_status(state="pending", stage=point.open[0], step=0, steps=0, error=None)


def submit(runs: Runs, cluster: ClusterConfig) -> tuple[Plan, Path | None]:
    """Freeze what is missing of runs and give it to SLURM.

    Returns:
        What was planned, and the sweep's folder; None where nothing is missing.

    Raises:
        ConfigError: there is no SLURM, or a run cannot be.
        SlurmError: sbatch refused a job; those before it are taken back.
    """
    slurm.require_slurm()
    experiment = next(iter(runs)).parent
    with submitting(experiment):
        planned = plan(runs, active_runs(experiment))
        if not planned.points:
            return planned, None
        freeze(planned.points)
        folder = new_folder(experiment)
        write_text(folder / "command.txt", f"{command_line()}\n{now()}\n")
        write_text(folder / "cluster.yaml", dump(plain(cluster)))
        jobs = graph(planned.points, cluster, slurm.largest_array())
        scripts = {job.name: render(job, cluster, folder) for job in jobs}
        ids: dict[str, int] = {}
        tasks = {job.name: len(job.points) for job in jobs}
        try:
            for job in jobs:
                ids[job.name] = slurm.submit(scripts[job.name], _dependencies(job, ids, tasks))
                keep(folder, job, ids[job.name])
        except BaseException:
            with suppress(slurm.SlurmError):
                slurm.cancel([str(number) for number in ids.values()])
            raise
    return planned, folder


def execute_here(
    runs: Runs, cluster: ClusterConfig, processes: int, progress: Progress
) -> tuple[Plan, list[Outcome]]:
    """Do what is missing of runs on this machine: the same jobs, `processes` tasks at a time."""
    experiment = next(iter(runs)).parent
    with submitting(experiment):
        planned = plan(runs, ())
        freeze(planned.points)
    tasks: list[LocalTask] = []
    numbers: dict[str, list[int]] = {}
    for job in graph(planned.points, cluster, max(1, len(planned.points))):
        after = tuple(number for name in job.after for number in numbers[name])
        numbers[job.name] = list(range(len(tasks), len(tasks) + len(job.points)))
        for index, point in enumerate(job.points):
            follows = numbers[job.follows][index] if job.follows else None
            tasks.append(LocalTask(point.config, point.path, job.stages, follows, after))
    return planned, run_tasks(tasks, processes, progress)


def _dependencies(job: Job, ids: Mapping[str, int], tasks: Mapping[str, int]) -> list[str]:
    """As --dependency takes them; all must hold."""
    if job.with_first:
        first = [(name, n) for name in job.with_first for n in range(min(FIRST_TASKS, tasks[name]))]
        return ["?".join(f"after:{ids[name]}_{n}" for name, n in first)]
    follows = [f"aftercorr:{ids[job.follows]}"] if job.follows else []
    return [*follows, *(f"afterany:{ids[name]}" for name in job.after)]
