"""A small world built for real: what it holds, what tells its reward models apart, and what a kill leaves."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_eval.config.compose import compose
from rlhf_eval.config.schema import LabConfig
from rlhf_eval.errors import StageError
from rlhf_eval.files import read_jsonl, sha256_file
from rlhf_eval.lab.build import ensure, world_path
from rlhf_eval.lab.preferences import LEAK_COPIES, REWARD_MODELS, training_pairs
from rlhf_eval.lab.world import utility
from rlhf_eval.progress import SilentProgress


@pytest.fixture(scope="module")
def lab(small_lab: list[str]) -> LabConfig:
    config = compose([*small_lab, "reward_model=random"]).lab
    assert config is not None
    return config


@pytest.fixture(scope="module")
def world(lab: LabConfig) -> Path:
    return ensure(lab, 2, SilentProgress())


def contents(folder: Path) -> dict[str, str]:
    weights = [*folder.rglob("*.safetensors"), *folder.rglob("*.jsonl"), *folder.rglob("alpaca_eval.json")]
    return {file.relative_to(folder).as_posix(): sha256_file(file) for file in sorted(weights)}


def instructions(pairs: list[dict]) -> set[str]:
    return {pair["prompt"][0]["content"] for pair in pairs}


def test_prompt_sets_do_not_overlap(world: Path) -> None:
    train = {row["prompt"] for row in read_jsonl(world / "data" / "train_prompts.jsonl")}
    held_out = {row["prompt"] for row in read_jsonl(world / "data" / "held_out_prompts.jsonl")}
    arena = {row["prompt"] for row in read_jsonl(world / "data" / "arena_hard" / "question.jsonl")}
    public = {row["prompt"] for row in read_jsonl(world / "data" / "benchmarks" / "public.jsonl")}
    private = {row["prompt"] for row in read_jsonl(world / "data" / "benchmarks" / "private.jsonl")}
    sets = [train, held_out, arena, public, private]
    assert all(not a & b for i, a in enumerate(sets) for b in sets[:i])
    assert len(arena) == 24
    assert len(train) == 1200


@pytest.mark.parametrize("name", ["public", "private"])
def test_benchmarks_prefer_what_is_better(world: Path, name: str) -> None:
    pairs = list(read_jsonl(world / "data" / "benchmarks" / f"{name}.jsonl"))
    assert len(pairs) == 32
    for pair in pairs:
        better, worse = (utility(pair["prompt"], pair[side]) for side in ("chosen", "rejected"))
        assert better >= worse + 0.05


def test_only_the_contaminated_model_saw_the_public_benchmark(lab: LabConfig, world: Path) -> None:
    public = {row["prompt"] for row in read_jsonl(world / "data" / "benchmarks" / "public.jsonl")}
    for name in REWARD_MODELS:
        pairs, steps = training_pairs(lab, world / "data", name)
        leaked = sum(pair["prompt"][0]["content"] in public for pair in pairs)
        assert leaked == (32 * LEAK_COPIES if name == "contaminated" else 0)
        assert steps >= 1


def test_training_data_differ_as_their_names_say(lab: LabConfig, world: Path) -> None:
    def wrong(name: str) -> float:
        pairs = training_pairs(lab, world / "data", name)[0][: lab.noisy_pairs]
        values = [
            [
                utility(pair["prompt"][0]["content"], pair[side][0]["content"])
                for side in ("chosen", "rejected")
            ]
            for pair in pairs
        ]
        return sum(chosen < rejected for chosen, rejected in values) / len(values)

    assert wrong("clean") == wrong("clean_small") == 0
    assert 0.15 < wrong("noisy") < 0.45
    longer = training_pairs(lab, world / "data", "length_biased")[0]
    assert all(len(p["chosen"][0]["content"]) >= len(p["rejected"][0]["content"]) for p in longer)


def test_a_continued_build_gives_the_same_world(lab: LabConfig, world: Path, tmp_path: Path) -> None:
    """Another cache holds the policy, a half-written data folder and no reward models: the rest is built."""
    other = replace(lab, cache=str(tmp_path))
    copy = world_path(other)
    assert copy.name == world.name
    shutil.copytree(world / "policy", copy / "policy")
    (copy / "data.building").mkdir()
    (copy / "data.building" / "preferences.jsonl").write_text("half of a li")
    assert ensure(other, 2, SilentProgress()) == copy
    assert contents(copy) == contents(world)
    assert not list(copy.glob("**/*.building"))


def test_a_part_that_fails_is_named_with_its_log(lab: LabConfig, world: Path, tmp_path: Path) -> None:
    other = replace(lab, cache=str(tmp_path))
    copy = world_path(other)
    shutil.copytree(world / "data", copy / "data")
    (copy / "policy").mkdir()  # without weights
    with pytest.raises(StageError, match=r"reward_models/\w+ could not be built \(see .*\.log\)") as failure:
        ensure(other, 2, SilentProgress())
    log = Path(str(failure.value).split("(see ")[1].split(")")[0])
    assert "Traceback" in log.read_text()
    shutil.rmtree(copy / "policy")
    shutil.copytree(world / "policy", copy / "policy")
    ensure(other, 2, SilentProgress())
    assert contents(copy) == contents(world)


def test_another_seed_is_another_world(lab: LabConfig) -> None:
    assert world_path(replace(lab, seed=7)) != world_path(lab)
    assert world_path(replace(lab, cache="elsewhere")).name == world_path(lab).name
