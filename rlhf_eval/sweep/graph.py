"""The jobs of a sweep: which stages of which runs each executes, on what, and after which others.

    shared      benchmarks of each reward model, once for all of its runs
    train       benchmarks (from what `shared` left) and training
    generate    answers of the trained policy
    judge       judging and scoring, with one server of the judge for all where it needs one

A job is an array with one task a run. Runs that ask for the same resources form a lane: arrays of the same
runs in the same order, of which every task waits for its counterpart in the array before. So a run whose
training fails holds back its own answers and nothing else.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from rlhf_eval.config.cluster_schema import ClusterConfig, JobKind, Resources
from rlhf_eval.config.plain import fingerprint
from rlhf_eval.config.schema import JudgeConfig, RunConfig
from rlhf_eval.files import sha256_json
from rlhf_eval.generation.base_answers import uses_base
from rlhf_eval.runs.stages import UNTRAINED


@dataclass(frozen=True)
class Point:
    """A run that a sweep consists of.

    Attributes:
        path: its directory.
        open: the stages that are not done.
    """

    config: RunConfig
    path: Path
    open: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """An array of tasks.

    Attributes:
        name: its own in the sweep; files are named by it.
        stages: what each task executes.
        points: the run of each task.
        follows: name of the job whose task of the same number must have succeeded before.
        after: names of jobs that must have ended before, however they ended.
        with_first: names of jobs of which one must have begun.
        rollout_server: whether the last node of each task is for vLLM's server of rollouts.
        judge: whom a job of kind `judge_server` serves; it has no points.
        asks: names of the servers that the tasks ask, by the field that takes the address.
    """

    name: str
    kind: JobKind
    stages: tuple[str, ...]
    points: tuple[Point, ...]
    resources: Resources
    follows: str | None = None
    after: tuple[str, ...] = ()
    with_first: tuple[str, ...] = ()
    rollout_server: bool = False
    judge: JudgeConfig | None = None
    asks: tuple[tuple[str, str], ...] = ()

    @property
    def gpus(self) -> int:
        """GPUs of one task."""
        return (self.resources.nodes or 1) * (self.resources.gpus or 0)


def graph(points: Sequence[Point], cluster: ClusterConfig, largest: int) -> list[Job]:
    """The jobs that do what is open of runs; each stands after those that it waits for.

    Args:
        largest: tasks that an array may have.
    """
    jobs = list(_shared(points, cluster, largest))
    shared = tuple(job.name for job in jobs)
    servers = {judge: f"judge_server-{n}" for n, judge in enumerate(_judges(points, cluster), start=1)}
    lanes: dict[str, list[Point]] = {}
    for point in points:
        if point.open:
            lanes.setdefault(repr(_lane(point, cluster)), []).append(point)
    parts = (
        lane[start : start + largest] for lane in lanes.values() for start in range(0, len(lane), largest)
    )
    for number, part in enumerate(parts, start=1):
        before: str | None = None
        for kind, stages in _steps(part[0]):
            job = Job(
                f"{kind}-{number}",
                kind,
                stages,
                tuple(part),
                resources(part[0].config, kind, cluster),
                follows=before,
                after=() if before else shared,
                rollout_server=kind == "train" and needs_rollout_server(part[0].config),
                asks=_asks(part[0].config, servers, cluster) if kind == "judge" else (),
            )
            jobs.append(job)
            before = job.name
    for judge, name in servers.items():
        before_asking = [job.follows for job in jobs if name in dict(job.asks).values()]
        jobs.append(
            Job(
                name,
                "judge_server",
                (),
                (),
                cluster.jobs["judge_server"],
                # Not before answers are under way: it would stand idle through all of the training. At once
                # where some answers only wait to be judged.
                with_first=tuple(filter(None, before_asking)) if all(before_asking) else (),
                judge=judge,
            )
        )
    return jobs


def resources(config: RunConfig, kind: JobKind, cluster: ClusterConfig) -> Resources:
    """What a run's job asks for: by the cluster's entry for its size, else by the one for its kind, else by
    what follows from the run."""
    size = config.reward_model.size if kind == "shared" else config.policy.size
    found = _follows(config, kind)
    for said in (cluster.jobs.get(kind), cluster.sizes.get(size or "", {}).get(kind)):
        if said is not None:
            given = {field.name: getattr(said, field.name) for field in fields(said)}
            found = replace(
                found, **{name: value for name, value in given.items() if value is not None and value != ()}
            )
    return found


def needs_rollout_server(config: RunConfig) -> bool:
    """Whether a training wants a `trl vllm-serve` started beside it."""
    algorithm = config.algorithm
    return (
        config.reward_model.kind != UNTRAINED
        and algorithm.kind != "best_of_n"
        and algorithm.rollout.engine == "vllm_server"
        and algorithm.rollout.server_url is None
    )


def _follows(config: RunConfig, kind: JobKind) -> Resources:
    """GPUs and nodes as the run itself tells them."""
    accelerate, generation = config.accelerate, config.generation
    if kind == "train":
        gpus = 0 if accelerate.device == "cpu" else accelerate.processes // accelerate.machines
        return Resources(nodes=accelerate.machines + needs_rollout_server(config), gpus=gpus)
    if kind == "generate" and generation.base_url is None:
        return Resources(gpus=1 if generation.engine == "transformers" else generation.tensor_parallel)
    return Resources(gpus=1 if kind == "shared" else 0)


def _steps(point: Point) -> list[tuple[JobKind, tuple[str, ...]]]:
    """The jobs of one run that have something open, and the stages of each."""
    if point.config.reward_model.kind == UNTRAINED or point.config.algorithm.kind == "best_of_n":
        steps: list[tuple[JobKind, tuple[str, ...]]] = [("generate", ("benchmark", "train", "generate"))]
    else:
        steps = [("train", ("benchmark", "train")), ("generate", ("generate",))]
    steps.append(("judge", ("judge", "score")))
    return [(kind, stages) for kind, stages in steps if set(stages) & set(point.open)]


def _lane(point: Point, cluster: ClusterConfig) -> tuple[Any, ...]:
    """What runs of one lane have in common."""
    config, steps = point.config, _steps(point)
    asked = [resources(config, kind, cluster) for kind, _ in steps]
    return steps, asked, needs_rollout_server(config), [judge for _, judge in _served(config, cluster)]


def _served(config: RunConfig, cluster: ClusterConfig) -> list[tuple[str, JudgeConfig]]:
    """The judges of a run that the sweep serves to all of its runs, by the field of their address."""
    fields = {f"second_judges.{name}": judge for name, judge in config.second_judges.items()}
    return [
        (f"{field}.base_url", judge)
        for field, judge in ({"judge": config.judge} | fields).items()
        if judge.serve and judge.base_url is None and "judge_server" in cluster.jobs
    ]


def _judges(points: Sequence[Point], cluster: ClusterConfig) -> list[JudgeConfig]:
    """Every judge that is to be served, once."""
    open_points = [point for point in points if {"judge", "score"} & set(point.open)]
    return list(dict.fromkeys(judge for point in open_points for _, judge in _served(point.config, cluster)))


def _asks(
    config: RunConfig, servers: Mapping[JudgeConfig, str], cluster: ClusterConfig
) -> tuple[tuple[str, str], ...]:
    return tuple((field, servers[judge]) for field, judge in _served(config, cluster))


def _shared(points: Sequence[Point], cluster: ClusterConfig, largest: int) -> Iterator[Job]:
    """Each reward model's benchmarks, by the first run that has them open; its other runs find the scores in
    the experiment's store. A run that executes anything makes its policy base's answers first: where there
    are no benchmarks, the first run of each policy has a task for these alone."""
    first: dict[str, Point] = {}
    answered: set[str] = set()
    for point in points:
        config = point.config
        base = sha256_json([fingerprint(part) for part in (config.policy, config.generation, config.prompts)])
        if "benchmark" in point.open and config.benchmarks and config.reward_model.kind != UNTRAINED:
            key = sha256_json([fingerprint(config.reward_model), fingerprint(config.benchmarks)])
            if first.setdefault(key, point) is point:
                answered.add(base)
        elif "benchmark" in point.open and uses_base(config) and base not in answered:
            first.setdefault(base, point)
    lanes: dict[Resources, list[Point]] = {}
    for point in first.values():
        lanes.setdefault(resources(point.config, "shared", cluster), []).append(point)
    parts = [
        (asked, lane[start : start + largest])
        for asked, lane in lanes.items()
        for start in range(0, len(lane), largest)
    ]
    for number, (asked, part) in enumerate(parts, start=1):
        yield Job(f"shared-{number}", "shared", ("benchmark",), tuple(part), asked)
