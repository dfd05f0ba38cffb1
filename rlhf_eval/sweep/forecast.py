"""What a sweep will take, told before anything is submitted."""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any

from rlhf_eval.config.cluster_schema import ClusterConfig
from rlhf_eval.judging import forecast as judging
from rlhf_eval.lab.build import is_built, world_path
from rlhf_eval.sources import localise
from rlhf_eval.sweep import slurm
from rlhf_eval.sweep.graph import Job, graph
from rlhf_eval.sweep.render import render
from rlhf_eval.sweep.submission import Plan, Runs, active_runs, plan

TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<first>\d+)(?::(?P<second>\d+))?(?::(?P<third>\d+))?")
USUAL_ARRAY = 1000
"""Largest array where no SLURM can be asked."""
DRY_RUN = "dry-run"


@dataclass(frozen=True)
class SweepForecast:
    """What would be submitted.

    Attributes:
        gpu_hours: of each job at most, all its tasks at their time limit and none interrupted; None where it
            has no limit of its own.
        scripts: each job's, as it would be submitted.
        queue_known: whether SLURM was asked which runs it has already.
    """

    plan: Plan
    jobs: list[Job]
    gpu_hours: list[float | None]
    scripts: list[Path]
    judging: judging.Forecast
    queue_known: bool

    def in_words(self) -> list[str]:
        """For the terminal."""
        known = [hours for hours in self.gpu_hours if hours is not None]
        unknown = [job.name for job, hours in zip(self.jobs, self.gpu_hours, strict=True) if hours is None]
        beside = f", beside {', '.join(unknown)} without a time limit" if unknown else ""
        said = [f"at most {sum(known):,.0f} GPU-hours{beside}", *judging.in_words(self.judging)]
        return said if self.queue_known else [*said, "No SLURM answers here: which runs it has is not known."]

    def as_json(self) -> dict[str, Any]:
        """As `rlhf-eval sweep --dry-run --json` prints it."""
        return {
            "runs": [
                {
                    "run": point.path.name,
                    "reward_model": point.config.reward_model.name,
                    "policy": point.config.policy.name,
                    "algorithm": point.config.algorithm.name,
                    "seed": point.config.seed,
                    "stages": list(point.open),
                }
                for point in self.plan.points
            ],
            "finished": [path.name for path in self.plan.finished],
            "busy": [path.name for path in self.plan.busy],
            "jobs": [
                {
                    "name": job.name,
                    "tasks": len(job.points),
                    "stages": list(job.stages),
                    "follows": job.follows,
                    "after": list(job.after),
                    "nodes": job.resources.nodes or 1,
                    "gpus": job.resources.gpus or 0,
                    "time": job.resources.time,
                    "gpu_hours": hours,
                    "script": str(script),
                }
                for job, hours, script in zip(self.jobs, self.gpu_hours, self.scripts, strict=True)
            ],
            "judge_calls": self.judging.calls,
            "judge_calls_unknown": self.judging.unknown,
            "money": self.judging.money,
        }


def forecast(runs: Runs, cluster: ClusterConfig) -> SweepForecast:
    """Plan a sweep and write its scripts into `<experiment>/sweeps/dry-run/`; freeze and submit nothing.

    Raises:
        ConfigError: an input is missing.
    """
    experiment = next(iter(runs)).parent
    active, largest, queue_known = set[str](), USUAL_ARRAY, False
    if which("sbatch"):
        with suppress(slurm.SlurmError):  # a machine that has its programs and no cluster
            active, largest, queue_known = active_runs(experiment), slurm.largest_array(), True
    planned = plan(runs, active)
    jobs = graph(planned.points, cluster, largest)
    folder = experiment / "sweeps" / DRY_RUN
    scripts = [render(job, cluster, folder) for job in jobs]
    judged = [point.config for point in planned.points if "judge" in point.open]
    places = [localise(c, world_path(c.lab)) if c.lab and is_built(c.lab) else c for c in judged]
    told = judging.forecasts(places)
    return SweepForecast(planned, jobs, [_gpu_hours(job) for job in jobs], scripts, told, queue_known)


def hours(limit: str) -> float:
    """A time limit as `--time` takes it: minutes, minutes:seconds, hours:minutes:seconds, days-hours,
    days-hours:minutes, days-hours:minutes:seconds. Infinite where it is none, as UNLIMITED and 0 are."""
    parts = TIME.fullmatch(limit)
    if parts is None:
        return float("inf")
    first, second, third = (float(parts[name] or 0) for name in ("first", "second", "third"))
    if not (parts["days"] or parts["third"]):
        first, second, third = 0.0, first, second
    return (24 * float(parts["days"] or 0) + first + second / 60 + third / 3600) or float("inf")


def _gpu_hours(job: Job) -> float | None:
    if not job.gpus:
        return 0.0
    limit = hours(job.resources.time) if job.resources.time else float("inf")
    return None if limit == float("inf") else max(1, len(job.points)) * job.gpus * limit
