"""The jobs of a sweep: who shares what, who waits for whom, and what each asks for."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_eval.config.cluster_schema import ClusterConfig, Resources
from rlhf_eval.config.compose import compose, compose_cluster
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.runs.stages import NEEDS, STAGES
from rlhf_eval.sweep.graph import Job, Point, graph, needs_rollout_server, resources

ALL = tuple(name for name, _ in STAGES)
LARGEST = 1000
Configured = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def cluster() -> ClusterConfig:
    return compose_cluster([])


def points(configs: Sequence[RunConfig], open: tuple[str, ...] = ALL) -> list[Point]:
    return [Point(config, Path(f"runs/x/{number}"), open) for number, config in enumerate(configs)]


def named(jobs: Sequence[Job]) -> dict[str, Job]:
    assert len({job.name for job in jobs}) == len(jobs)
    return {job.name: job for job in jobs}


def study(config: RunConfig, reward_models: int, seeds: int) -> list[RunConfig]:
    """Many reward models, all runs of a seed before the next seed."""
    names = [f"rm{number}" for number in range(reward_models)]
    return [
        replace(config, seed=seed, reward_model=replace(config.reward_model, name=name))
        for seed in range(seeds)
        for name in names
    ]


def test_a_study_of_a_hundred_reward_models_is_five_jobs(lab_run: Configured, cluster: ClusterConfig) -> None:
    jobs = named(graph(points(study(lab_run("reward_model=random"), 100, 5)), cluster, LARGEST))
    sizes = {name: len(job.points) for name, job in jobs.items()}
    assert sizes == {"shared-1": 100, "train-1": 500, "generate-1": 500, "judge-1": 500, "judge_server-1": 0}
    first_seed = [(point.config.reward_model.name, point.config.seed) for point in jobs["shared-1"].points]
    assert first_seed == [(f"rm{number}", 0) for number in range(100)]
    assert jobs["train-1"].after == ("shared-1",)
    assert [jobs[name].follows for name in sizes] == [None, None, "train-1", "generate-1", None]
    assert [jobs[name].after for name in ("generate-1", "judge-1")] == [(), ()]
    assert jobs["judge-1"].asks == (("judge.base_url", "judge_server-1"),)
    assert jobs["judge_server-1"].with_first == ("generate-1",)


def test_best_of_n_samples_are_made_before_others_choose_among_them(
    lab_run: Configured, cluster: ClusterConfig
) -> None:
    best = study(lab_run("reward_model=random", "algorithm=best_of_n_lab"), 3, 2)
    untrained = lab_run("reward_model=untrained", "algorithm=best_of_n_lab")
    jobs = named(graph(points([untrained, *best]), cluster, LARGEST))
    answering = {name: job for name, job in jobs.items() if job.kind == "generate"}
    runs = {
        name: [(p.config.reward_model.name, p.config.seed) for p in job.points]
        for name, job in answering.items()
    }
    assert runs == {
        "generate-1": [("rm0", 0), ("rm0", 1)],
        "generate-2": [("untrained", 0)],
        "generate-3": [("rm1", 0), ("rm2", 0), ("rm1", 1), ("rm2", 1)],
    }
    assert [answering[name].after for name in runs] == [
        ("shared-1",),
        ("shared-1",),
        ("shared-1", "generate-1"),
    ]


def test_the_policy_base_answers_once_for_each_policy(lab_run: Configured, cluster: ClusterConfig) -> None:
    config = lab_run("reward_model=random", "prompts.arena_hard.baseline_answers=base")
    without = replace(config, benchmarks={})
    other = replace(without, policy=replace(without.policy, name="other"))
    runs = study(without, 2, 2) + study(other, 2, 2)
    jobs = named(graph(points(runs), cluster, LARGEST))
    shared = [point.config for point in jobs["shared-1"].points]
    assert [(c.policy.name, c.reward_model.name, c.seed) for c in shared] == [
        ("lab", "rm0", 0),
        ("other", "rm0", 0),
    ]
    # Where there are benchmarks, their tasks make the answers too.
    jobs = named(graph(points([config, *runs[1:4]]), cluster, LARGEST))
    assert [point.config for point in jobs["shared-1"].points] == [config]


def test_other_benchmarks_of_the_same_reward_model_are_other_shared_work(
    lab_run: Configured, cluster: ClusterConfig
) -> None:
    config = lab_run("reward_model=random")
    fewer = replace(config, benchmarks=dict(list(config.benchmarks.items())[:1]))
    without = replace(config, benchmarks={}, seed=3)
    jobs = named(graph(points([config, fewer, replace(fewer, seed=1), without]), cluster, LARGEST))
    assert [point.config for point in jobs["shared-1"].points] == [config, fewer]


def test_arrays_are_cut_at_the_largest_that_slurm_takes(lab_run: Configured, cluster: ClusterConfig) -> None:
    runs = points(study(lab_run("reward_model=random"), 7, 1))
    jobs = named(graph(runs, cluster, largest=3))
    assert [len(jobs[f"{kind}-{n}"].points) for kind in ("shared", "judge") for n in (1, 2, 3)] == [
        3,
        3,
        1,
    ] * 2
    for number in (1, 2, 3):
        assert jobs[f"train-{number}"].after == ("shared-1", "shared-2", "shared-3")
        assert jobs[f"generate-{number}"].follows == f"train-{number}"
        assert jobs[f"generate-{number}"].points == jobs[f"train-{number}"].points
    assert jobs["judge_server-1"].with_first == ("generate-1", "generate-2", "generate-3")
    assert [point for number in (1, 2, 3) for point in jobs[f"train-{number}"].points] == runs


@pytest.mark.parametrize(
    "words", [("reward_model=untrained",), ("reward_model=random", "algorithm=best_of_n_lab")]
)
def test_what_trains_no_weights_has_no_training_job(
    words: tuple[str, ...], lab_run: Configured, cluster: ClusterConfig
) -> None:
    jobs = graph(points([lab_run(*words)]), cluster, LARGEST)
    own = [(job.kind, job.stages) for job in jobs if job.kind not in ("shared", "judge_server")]
    assert own == [("generate", ("benchmark", "train", "generate")), ("judge", ("judge", "score"))]
    assert any(job.kind == "shared" for job in jobs) == (words[0] != "reward_model=untrained")


@pytest.mark.parametrize(
    ("open", "kinds"),
    [
        (ALL, ["shared", "train", "generate", "judge", "judge_server"]),
        (("train", "generate", "judge", "score"), ["train", "generate", "judge", "judge_server"]),
        (("benchmark",), ["shared", "train"]),
        (("generate", "judge", "score"), ["generate", "judge", "judge_server"]),
        (("judge", "score"), ["judge", "judge_server"]),
        (("score",), ["judge", "judge_server"]),
        ((), []),
    ],
)
def test_only_what_is_open_is_submitted(
    open: tuple[str, ...], kinds: list[str], lab_run: Configured, cluster: ClusterConfig
) -> None:
    jobs = graph(points([lab_run("reward_model=random")], open), cluster, LARGEST)
    assert [job.kind for job in jobs] == kinds
    chain = [job for job in jobs if job.kind in ("train", "generate", "judge")]
    assert [job.follows for job in chain] == [None, *(job.name for job in chain)][: len(chain)]


def test_runs_that_ask_for_other_resources_stand_in_other_arrays(
    lab_run: Configured, cluster: ClusterConfig
) -> None:
    small, two_machines = (
        lab_run("reward_model=random"),
        lab_run(
            "reward_model=random",
            "accelerate=ddp",
            "accelerate.machines=2",
            "algorithm.completions_per_device_batch=16",
        ),
    )
    large = replace(small, policy=replace(small.policy, size="70b"))
    judged = points([replace(small, seed=9)], ("judge", "score"))
    runs = [*points([small, large, two_machines, replace(small, seed=1)]), *judged]
    jobs = named(graph(runs, cluster, LARGEST))
    assert [len(jobs[f"train-{number}"].points) for number in (1, 2, 3)] == [2, 1, 1]
    assert "train-4" not in jobs
    assert [jobs[f"train-{number}"].gpus for number in (1, 2, 3)] == [1, 1, 2 * 4]
    assert jobs["generate-2"].resources.memory == "384G"
    assert jobs["judge-4"].points == tuple(judged)
    assert jobs["judge-4"].follows is None


def test_a_size_s_entry_comes_before_the_kind_s_and_that_before_the_run_s_own_needs(
    lab_run: Configured,
) -> None:
    config = lab_run(
        "reward_model=random",
        "accelerate=ddp",
        "accelerate.machines=2",
        "algorithm.completions_per_device_batch=16",
        "generation=vllm",
        "generation.tensor_parallel=4",
    )
    large = replace(config, policy=replace(config.policy, size="70b"))
    cluster = ClusterConfig(
        name="x",
        jobs={
            "train": Resources(memory="1G", time="5", options=("--exclusive",)),
            "generate": Resources(gpus=0),
        },
        sizes={"70b": {"train": Resources(memory="2G", gpus=6)}},
    )
    assert resources(config, "train", cluster) == Resources(
        nodes=2, gpus=4, memory="1G", time="5", options=("--exclusive",)
    )
    assert resources(large, "train", cluster) == Resources(
        nodes=2, gpus=6, memory="2G", time="5", options=("--exclusive",)
    )
    assert resources(config, "generate", cluster).gpus == 0  # said, though nothing
    assert resources(config, "generate", replace(cluster, jobs={})).gpus == 4
    served = replace(config, generation=replace(config.generation, base_url="http://elsewhere/v1"))
    assert resources(served, "generate", replace(cluster, jobs={})).gpus == 0
    assert resources(config, "shared", replace(cluster, jobs={})).gpus == 1
    assert resources(config, "judge", replace(cluster, jobs={})).gpus == 0


def test_shared_work_goes_by_the_reward_model_s_size(lab_run: Configured, cluster: ClusterConfig) -> None:
    config = lab_run("reward_model=random")
    large = replace(config, reward_model=replace(config.reward_model, name="large", size="70b"))
    shared = [job for job in graph(points([config, large]), cluster, LARGEST) if job.kind == "shared"]
    assert [(job.resources.gpus, job.resources.memory) for job in shared] == [(1, "96G"), (4, "384G")]


def test_training_on_cpus_asks_for_no_gpus(lab_run: Configured, cluster: ClusterConfig) -> None:
    config = lab_run("reward_model=random")
    assert resources(config, "train", cluster).gpus == 1
    on_cpus = replace(config, accelerate=replace(config.accelerate, device="cpu"))
    assert resources(on_cpus, "train", cluster).gpus == 0


def test_rollouts_of_a_vllm_server_take_one_node_more(lab_run: Configured, cluster: ClusterConfig) -> None:
    words = ("accelerate=ddp", "algorithm.completions_per_device_batch=16")
    config = lab_run("reward_model=random", *words, "algorithm.rollout.engine=vllm_server")
    jobs = named(graph(points([config]), cluster, LARGEST))
    assert jobs["train-1"].rollout_server
    assert jobs["train-1"].resources.nodes == 2
    assert not jobs["generate-1"].rollout_server
    elsewhere = lab_run(
        "reward_model=random",
        *words,
        "algorithm.rollout.engine=vllm_server",
        "algorithm.rollout.server_url=http://n9:8000",
    )
    assert not needs_rollout_server(elsewhere)
    assert resources(elsewhere, "train", cluster).nodes == 1


def test_a_judge_is_served_once_to_all_runs_that_ask_it(lab_run: Configured, cluster: ClusterConfig) -> None:
    config = lab_run("reward_model=random")
    addressed = replace(config, judge=replace(config.judge, base_url="http://elsewhere/v1"))
    hired = replace(config, judge=replace(config.judge, serve=()))
    other = replace(config, judge=replace(config.judge, model="other"))
    second = replace(config, second_judges={"other": other.judge, "hired": hired.judge}, seed=4)
    runs = [config, replace(config, seed=1), addressed, hired, other, second]
    jobs = named(graph(points(runs), cluster, LARGEST))
    servers = {name: job.judge for name, job in jobs.items() if job.kind == "judge_server"}
    assert servers == {"judge_server-1": config.judge, "judge_server-2": other.judge}
    asks = [(len(job.points), dict(job.asks)) for job in jobs.values() if job.kind == "judge"]
    first, another = "judge_server-1", "judge_server-2"
    assert asks == [
        (2, {"judge.base_url": first}),
        (2, {}),
        (1, {"judge.base_url": another}),
        (1, {"judge.base_url": first, "second_judges.other.base_url": another}),
    ]
    assert jobs[first].with_first == ("generate-1", "generate-4")
    assert all(not job.asks for job in jobs.values() if job.kind != "judge")


def test_no_server_where_the_cluster_has_no_place_for_one(lab_run: Configured) -> None:
    jobs = graph(points([lab_run("reward_model=random")]), compose_cluster(["cluster=lab"]), LARGEST)
    assert [job.kind for job in jobs] == ["shared", "train", "generate", "judge"]
    assert jobs[-1].asks == ()


def test_a_server_begins_at_once_where_answers_only_wait_to_be_judged(
    lab_run: Configured, cluster: ClusterConfig
) -> None:
    """Else they would wait through the training of the others, holding their nodes."""
    config = lab_run("reward_model=random")
    runs = [*points([config]), *points([replace(config, seed=1)], ("judge", "score"))]
    jobs = named(graph(runs, cluster, LARGEST))
    assert jobs["judge-2"].asks == jobs["judge-1"].asks
    assert jobs["judge_server-1"].with_first == ()


@st.composite
def sweeps(draw: st.DrawFn) -> tuple[list[tuple[int, tuple[str, ...]]], int]:
    """Numbers of configurations with the stages that are open, and the largest array."""
    open = st.sets(st.sampled_from(ALL)).map(lambda chosen: tuple(name for name in ALL if name in chosen))
    return draw(st.lists(st.tuples(st.integers(0, 6), open), max_size=12)), draw(st.integers(1, 5))


@pytest.fixture(scope="module")
def pool() -> list[RunConfig]:
    """Runs that differ in what they train, how much they ask for, and whom they ask."""
    config = compose(["experiment=lab", "reward_model=random"])
    rollouts = [
        "accelerate=ddp",
        "algorithm.completions_per_device_batch=16",
        "algorithm.rollout.engine=vllm_server",
    ]
    return [
        config,
        replace(config, policy=replace(config.policy, size="70b")),
        replace(config, judge=replace(config.judge, base_url="http://elsewhere/v1")),
        replace(config, benchmarks={}),
        compose(["experiment=lab", "reward_model=untrained"]),
        compose(["experiment=lab", "reward_model=random", "algorithm=best_of_n_lab"]),
        compose(["experiment=lab", "reward_model=random", *rollouts]),
    ]


@settings(max_examples=150)
@given(sweep=sweeps())
def test_every_open_stage_is_executed_once_and_after_what_it_needs(
    sweep: tuple[list[tuple[int, tuple[str, ...]]], int], pool: list[RunConfig], cluster: ClusterConfig
) -> None:
    chosen, largest = sweep
    runs = [
        Point(replace(pool[number], seed=seed), Path(f"runs/x/{seed}"), open)
        for seed, (number, open) in enumerate(chosen)
    ]
    jobs = graph(runs, cluster, largest)
    by_name = named(jobs)
    order = {job.name: number for number, job in enumerate(jobs)}
    shared = tuple(job.name for job in jobs if job.kind == "shared")
    for job in jobs:
        waits_for = [*job.after, *job.with_first, *([job.follows] if job.follows else [])]
        assert all(order[name] < order[job.name] for name in waits_for)
        assert len(job.points) <= largest
        assert (job.judge is None) == bool(job.points)
        if job.follows:
            assert by_name[job.follows].points == job.points  # task for task
        elif job.kind not in ("shared", "judge_server"):
            assert job.after == shared
        for field, name in job.asks:
            assert field == "judge.base_url"
            assert {point.config.judge for point in job.points} == {by_name[name].judge}
    own: list[Any] = [job for job in jobs if job.kind not in ("shared", "judge_server")]
    for run in runs:
        chain = [job for job in own if run in job.points]
        assert sum(job.points.count(run) for job in chain) == len(chain)
        assert [job.follows for job in chain] == [None, *(job.name for job in chain)][: len(chain)]
        stages = [stage for job in chain for stage in job.stages if stage in run.open]
        assert sorted(stages) == sorted(run.open)
        addressed = run.config.judge.base_url is not None
        assert all(bool(job.asks) != addressed for job in chain if job.kind == "judge")
        for place, stage in enumerate(stages):
            assert {need for need in NEEDS[stage] if need in run.open} <= set(stages[:place])
