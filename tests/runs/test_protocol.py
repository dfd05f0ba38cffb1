"""Runs of an experiment are compared on equal terms: what differs from the first one is refused by name."""

import json
import multiprocessing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from rlhf_eval.config.compose import compose
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import ConfigError, DataError
from rlhf_eval.runs.protocol import hold

GRID = "grid={algorithm.kl_coefficient:[0.02,0.1]}"


def lab(reward_model: str = "lab_clean", *overrides: str) -> RunConfig:
    return compose(["experiment=lab", f"reward_model={reward_model}", *overrides])


def files(experiment: Path) -> dict[str, dict]:
    folder = experiment / "shared" / "protocol"
    return {path.name: json.loads(path.read_text()) for path in folder.iterdir()}


def test_reward_models_and_seeds_may_differ(tmp_path: Path) -> None:
    hold(tmp_path, lab())
    before = files(tmp_path)
    assert set(before) == {"lab--grpo_lab.json", "lab--grpo_lab--training.json"}
    for config in (lab(), lab("lab_flipped", "seed=3"), lab("random", "threads=2"), lab("length_only")):
        hold(tmp_path, config)
    assert files(tmp_path) == before
    names = {name for fields in before.values() for name in fields}
    assert {"judge.model", "prompts.train", "gold_reward_model.name", "algorithm.learning_rate"} <= names
    assert "seed" not in names
    assert not any(name.startswith("reward_model.") for name in names)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("algorithm.steps=41", "algorithm.steps: 40 there, 41 asked for"),
        ("judge.temperature=0.5", "judge.temperature: 0.0 there, 0.5 asked for"),
        ("algorithm.lora={rank: 4}", "algorithm.lora.rank: absent there, 4 asked for"),
        ("prompts.held_out_limit=5", "prompts.held_out_limit"),
        ("gold_reward_model.name=other", "gold_reward_model.name"),
        (GRID, "grid.algorithm.kl_coefficient: absent there, [0.02, 0.1] asked for"),
    ],
)
def test_what_differs_is_refused_by_name(tmp_path: Path, override: str, told: str) -> None:
    hold(tmp_path, lab())
    before = files(tmp_path)
    with pytest.raises(ConfigError) as refusal:
        hold(tmp_path, lab("random", override))
    assert told in refusal.value.what
    assert str(tmp_path) in refusal.value.what
    assert "experiment=<name>" in refusal.value.cure
    assert "algorithm.name=<name>" in refusal.value.cure
    assert files(tmp_path) == before


def test_everything_that_differs_is_told_at_once(tmp_path: Path) -> None:
    hold(tmp_path, lab())
    with pytest.raises(ConfigError) as refusal:
        hold(tmp_path, lab("random", "algorithm.steps=41", "judge.temperature=0.5"))
    assert "algorithm.steps" in refusal.value.what
    assert "judge.temperature" in refusal.value.what


def test_another_algorithm_or_name_has_a_protocol_of_its_own(tmp_path: Path) -> None:
    hold(tmp_path, lab())
    hold(tmp_path, lab("random", "algorithm.steps=41", "algorithm.name=longer"))
    hold(tmp_path, lab("random", "algorithm=best_of_n_lab"))
    hold(tmp_path / "other", lab("random", "algorithm.steps=41"))
    assert len(files(tmp_path)) == 6


def test_runs_of_a_grid_may_differ_in_its_fields_and_values_only(tmp_path: Path) -> None:
    hold(tmp_path, lab("lab_clean", GRID))
    hold(tmp_path, lab("random", GRID, "algorithm.kl_coefficient=0.02"))
    with pytest.raises(ConfigError, match=r"algorithm\.kl_coefficient: 0\.3 is not in"):
        hold(tmp_path, lab("random", GRID, "algorithm.kl_coefficient=0.3"))
    with pytest.raises(ConfigError, match=r"algorithm\.clip_range: 0\.2 there, 0\.1 asked for"):
        hold(tmp_path, lab("random", GRID, "algorithm.clip_range=0.1"))
    with pytest.raises(
        ConfigError, match=r"grid\.algorithm\.kl_coefficient: \[0\.02, 0\.1\] there, \[0\.1\]"
    ):
        hold(tmp_path, lab("random", "grid={algorithm.kl_coefficient:[0.1]}"))


@pytest.mark.parametrize("first", ["untrained", "trained"])
def test_the_untrained_policy_is_held_to_all_but_training(tmp_path: Path, first: str) -> None:
    untrained = lab("untrained", "algorithm.steps=1", "algorithm.kl_coefficient=5")
    trained = lab("lab_clean", GRID)
    configs = [untrained, trained] if first == "untrained" else [trained, untrained]
    for config in configs:
        hold(tmp_path, config)
    for wrong in (lab("untrained", "judge.temperature=0.5"), lab("random", GRID, "judge.temperature=0.5")):
        with pytest.raises(ConfigError, match=r"judge\.temperature"):
            hold(tmp_path, wrong)


def test_a_refused_run_sets_no_protocol(tmp_path: Path) -> None:
    hold(tmp_path, lab("untrained"))
    with pytest.raises(ConfigError, match=r"judge\.temperature"):
        hold(tmp_path, lab("random", "judge.temperature=0.5", "algorithm.steps=41"))
    hold(tmp_path, lab("random"))


def test_a_damaged_protocol_is_named(tmp_path: Path) -> None:
    hold(tmp_path, lab())
    (tmp_path / "shared" / "protocol" / "lab--grpo_lab.json").write_text('{"jud')
    with pytest.raises(DataError, match=r"lab--grpo_lab\.json is not JSON"):
        hold(tmp_path, lab())


def _start(
    experiment: Path, steps: int, barrier: Barrier, refused: "multiprocessing.Queue[int | None]"
) -> None:
    config = lab("random", f"algorithm.steps={steps}")
    barrier.wait()
    try:
        hold(experiment, config)
    except ConfigError:
        refused.put(None)
    else:
        refused.put(steps)


def test_of_many_that_start_at_once_one_sets_the_protocol(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(8), context.Queue()
    processes = [
        context.Process(target=_start, args=(tmp_path, 40 + number // 2, barrier, queue))
        for number in range(8)
    ]
    for process in processes:
        process.start()
    outcomes = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    steps = files(tmp_path)["lab--grpo_lab--training.json"]["algorithm.steps"]
    assert sorted(outcomes, key=str) == sorted([steps, steps, *[None] * 6], key=str)
    assert len(files(tmp_path)) == 2  # nothing temporary is left
