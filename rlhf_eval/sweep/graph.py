"""The jobs of a sweep: which stages of which runs each executes, on what, and after which others.

    shared      benchmarks of each reward model and answers of the policy base, once for all of their runs
    train       benchmarks (from what `shared` left) and training
    generate    answers of the trained policy
    judge       judging and scoring, with one server of the judge for all where it needs one

A job is an array with one task a run. Runs that ask for the same resources form a lane: arrays of the same
runs in the same order, of which every task waits for its counterpart in the array before. So a run whose
training fails holds back its own answers and nothing else. Best-of-n runs choose among samples that they
share: the first makes them, in an array before the others'.
"""

from collections.abc import Iterable, Iterator, Sequence
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
    first = _first_to_sample(points)
    lanes: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: point.path not in first):
        if point.open:
            role = (_shares_samples(point), point.path in first)
            lanes.setdefault(repr((_lane(point, cluster), role)), []).append(point)
    samplers: tuple[str, ...] = ()
    for number, part in enumerate(_arrays(lanes.values(), largest), start=1):
        config, leads = part[0].config, part[0].path in first
        waits_for = (*shared, *samplers) if _shares_samples(part[0]) and not leads else shared
        before: str | None = None
        for kind, stages in _steps(part[0]):
            asked = _served(config, cluster) if kind == "judge" else []
            job = Job(
                f"{kind}-{number}",
                kind,
                stages,
                tuple(part),
                resources(config, kind, cluster),
                follows=before,
                after=() if before else waits_for,
                rollout_server=kind == "train" and needs_rollout_server(config),
                asks=tuple((field, servers[judge]) for field, judge in asked),
            )
            jobs.append(job)
            before = job.name
        if leads:
            samplers = (*samplers, f"generate-{number}")
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
    """Whether a training wants vLLM's server started beside it."""
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


def _shared(points: Sequence[Point], cluster: ClusterConfig, largest: int) -> Iterator[Job]:
    """Each reward model's benchmarks, by the first run that has them open; its other runs find the scores in
    the experiment's store. A run that executes anything makes its policy base's answers first: where there
    are no benchmarks, the first run of each policy has a task for these alone."""
    first: dict[str, Point] = {}
    for point in points:
        config = point.config
        if "benchmark" not in point.open:
            continue
        if config.benchmarks and config.reward_model.kind != UNTRAINED:
            key = sha256_json([fingerprint(config.reward_model), fingerprint(config.benchmarks)])
            first.setdefault(key, point)
        elif uses_base(config):
            first.setdefault(_base(config), point)
    answered = {_base(point.config) for point in first.values() if point.config.benchmarks}
    lanes: dict[Resources, list[Point]] = {}
    for key, point in first.items():
        if key not in answered:
            lanes.setdefault(resources(point.config, "shared", cluster), []).append(point)
    for number, part in enumerate(_arrays(lanes.values(), largest), start=1):
        asked = resources(part[0].config, "shared", cluster)
        yield Job(f"shared-{number}", "shared", ("benchmark",), tuple(part), asked)


def _base(config: RunConfig) -> str:
    """Whose answers are the baseline where that is the policy base."""
    return sha256_json([fingerprint(part) for part in (config.policy, config.generation, config.prompts)])


def _shares_samples(point: Point) -> bool:
    """Whether a run chooses among samples that other reward models' runs choose among too."""
    config = point.config
    trains = config.reward_model.kind != UNTRAINED
    return trains and config.algorithm.kind == "best_of_n" and "generate" in point.open


def _first_to_sample(points: Sequence[Point]) -> set[Path]:
    """Of the runs that share samples, the first of each kind: others would wait for it with their GPUs."""
    first: dict[str, Path] = {}
    for point in filter(_shares_samples, points):
        key = sha256_json([_base(point.config), fingerprint(point.config.algorithm), point.config.seed])
        first.setdefault(key, point.path)
    return set(first.values())


def _arrays(lanes: Iterable[list[Point]], largest: int) -> Iterator[list[Point]]:
    """Lanes, cut to what an array may have."""
    for lane in lanes:
        for start in range(0, len(lane), largest):
            yield lane[start : start + largest]
