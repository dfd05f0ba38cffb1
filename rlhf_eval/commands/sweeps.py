"""`rlhf-eval sweep|status|cancel|logs`: many runs, on a cluster or here, and where they are."""

import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlhf_eval.commands.show import console, print_json, print_table, table
from rlhf_eval.errors import ConfigError

ENDED = ("done", "failed", "cancelled", "damaged")
"""States of runs with which nothing goes on by itself."""


def sweep(options: Namespace) -> int:
    from rlhf_eval.config.compose import compose_cluster
    from rlhf_eval.progress import progress_for_terminal
    from rlhf_eval.sweep import submission

    cluster_words = [word for word in options.overrides if word.lstrip("+~").startswith("cluster")]
    words = [word for word in options.overrides if word not in cluster_words]
    cluster = compose_cluster(cluster_words)
    if options.resume:
        if words:
            raise ConfigError(
                f"--resume takes the runs as they are frozen in {options.resume}, not {' '.join(words)}.",
                "Leave that out; a sweep with other values is a command of its own.",
            )
        runs = submission.existing(options.resume)
    else:
        runs = submission.new(_points(words, options.experiment))
    if options.dry_run:
        return _dry_run(runs, cluster, options.json)
    if options.local:
        with progress_for_terminal(silent=options.json) as progress:
            planned, outcomes = submission.execute_here(runs, cluster, options.local, progress)
        return _tell_outcomes(planned, outcomes, options.json)
    planned, folder = submission.submit(runs, cluster)
    return _tell_submitted(planned, folder, options.json)


def status(options: Namespace) -> int:
    from rlhf_eval.sweep.status import statuses

    if options.watch:
        return _watch(options.experiment_folder, options.state, options.watch)
    rows, notes = statuses(options.experiment_folder)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    rows = [row for row in rows if options.state in (None, row.state)]
    if options.json:
        return print_json([asdict(row) for row in rows])
    console().print(_status_table(rows))
    print(_counts(rows))
    return 0


def cancel(options: Namespace) -> int:
    from rlhf_eval.sweep.submission import cancel

    folder: Path = options.experiment_folder
    count = cancel(folder, {Path(name).name for name in options.runs})
    print(f"cancelled {count} tasks; `rlhf-eval sweep --resume {folder}` submits what is missing")
    return 0


def logs(options: Namespace) -> int:
    from rlhf_eval.sweep.logs import follow
    from rlhf_eval.sweep.status import status_of

    def ended() -> bool:
        return not options.follow or status_of(options.run).state in ENDED

    for text in follow(options.run, ended):
        print(text, end="", flush=True)
    return 0


def _points(words: Sequence[str], experiment: str | None) -> list[Any]:
    """The runs of a command line, checked."""
    from rlhf_eval.config.checks import in_experiment
    from rlhf_eval.sweep.grid import points

    return [in_experiment(config, experiment) for config in points(words)]


def _dry_run(runs: Any, cluster: Any, as_json: bool) -> int:
    """Say what would be submitted; the scripts are written to be read, and nothing else."""
    from rlhf_eval.sweep.forecast import forecast

    told = forecast(runs, cluster)
    if as_json:
        return print_json(told.as_json())
    print_table(
        ("run", "reward model", "policy", "algorithm", "seed", "stages"),
        [
            (
                point.path.name,
                point.config.reward_model.name,
                point.config.policy.name,
                point.config.algorithm.name,
                point.config.seed,
                ", ".join(point.open),
            )
            for point in told.plan.points
        ],
    )
    print_table(
        (
            "job",
            "tasks",
            "stages",
            "waits for",
            "nodes",
            "GPUs a node",
            "time limit",
            "GPU-hours at most",
            "script",
        ),
        [
            (
                job.name,
                len(job.points),
                ", ".join(job.stages),
                " ".join(name for name in (job.follows, *job.after) if name),
                job.resources.nodes or 1,
                job.resources.gpus or 0,
                job.resources.time,
                None if hours is None else f"{hours:,.0f}",
                script,
            )
            for job, hours, script in zip(told.jobs, told.gpu_hours, told.scripts, strict=True)
        ],
    )
    for line in told.in_words():
        print(line)
    print(_planned(told.plan, "would be submitted"))
    return 0


def _tell_submitted(planned: Any, folder: Path | None, as_json: bool) -> int:
    from rlhf_eval.files import read_jsonl
    from rlhf_eval.sweep import slurm
    from rlhf_eval.sweep.status import hopeless

    jobs = read_jsonl(folder / "jobs.jsonl") if folder else []
    for note in hopeless(slurm.queue([job["job_id"] for job in jobs]).values()):
        print(f"note: {note}", file=sys.stderr)
    if as_json:
        return print_json(
            {
                "submitted": [point.path.name for point in planned.points],
                "finished": [path.name for path in planned.finished],
                "busy": [path.name for path in planned.busy],
                "folder": str(folder) if folder else None,
                "jobs": [
                    {"name": job["name"], "job_id": job["job_id"], "tasks": len(job["runs"])} for job in jobs
                ],
            }
        )
    for job in jobs:
        tasks = f", {len(job['runs'])} tasks ({', '.join(job['stages'])})" if job["runs"] else ""
        print(f"{job['name']}: job {job['job_id']}{tasks}")
    print(f"{_planned(planned, 'submitted')}{f'; scripts and logs in {folder}' if folder else ''}")
    return 0


def _tell_outcomes(planned: Any, outcomes: Sequence[Any], as_json: bool) -> int:
    failed = {outcome.path: outcome.error for outcome in outcomes if outcome.state in ("failed", "held back")}
    if as_json:
        print_json(
            {
                "executed": [point.path.name for point in planned.points],
                "finished": [path.name for path in planned.finished],
                "busy": [path.name for path in planned.busy],
                "failed": {path.name: error for path, error in failed.items()},
            }
        )
    else:
        for path, error in failed.items():
            print(f"failed: {path}\n  {error}")
        print(f"{_planned(planned, 'executed')}, {len(failed)} failed")
    return 1 if failed else 0


def _planned(planned: Any, word: str) -> str:
    return (
        f"{len(planned.points)} runs {word}, {len(planned.finished)} were finished, "
        f"{len(planned.busy)} are being worked on"
    )


def _watch(experiment: Path, state: str | None, seconds: int) -> int:
    """Show the table until every run has ended; Ctrl-C ends it earlier."""
    from rich.console import Group
    from rich.live import Live

    from rlhf_eval.sweep.status import statuses

    with Live(console=console(), auto_refresh=False) as live:
        while True:
            rows, notes = statuses(experiment)
            shown = [row for row in rows if state in (None, row.state)]
            live.update(Group(_status_table(shown), _counts(rows), *notes), refresh=True)
            if all(row.state in ENDED for row in rows):
                return 0
            time.sleep(seconds)


def _status_table(rows: Sequence[Any]) -> Any:
    cells = []
    for row in rows:
        step = f"{row.step}/{row.steps}" if row.steps else ""
        left = _duration(row.seconds_left) if row.seconds_left is not None and row.state == "running" else ""
        waits = f"waits: {row.waits_for}" if row.waits_for else None
        said = "; ".join(filter(None, (row.error or waits, row.warning)))
        times = row.step_times or ""
        cells.append(
            (
                row.run,
                row.state,
                row.stage,
                step,
                left,
                row.stage_attempt or "",
                times,
                " ".join(row.jobs),
                said,
            )
        )
    columns = ("run", "state", "stage", "step", "left", "attempts", "a step takes", "jobs", "said")
    return table(columns, cells)


def _counts(rows: Sequence[Any]) -> str:
    from rlhf_eval.sweep.status import STATES

    counts = Counter(row.state for row in rows)
    told = f"{len(rows)} runs: " + ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    warned = sum(row.warning is not None for row in rows)
    return told + (f"; {warned} without gradient in most steps" if warned else "")


def _duration(seconds: float) -> str:
    minutes, hours = round(seconds / 60), seconds / 3600
    return f"{minutes} min" if hours < 2 else f"{hours:.1f} h"
