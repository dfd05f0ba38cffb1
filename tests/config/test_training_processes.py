"""Reward models that several training processes cannot use are refused before anything is loaded."""

from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_eval.commands.benchmarks import with_benchmarks
from rlhf_eval.config.checks import LEAST_GROUP, check_training
from rlhf_eval.config.compose import compose, freeze, groups, load
from rlhf_eval.errors import ConfigError
from rlhf_eval.training import reward_function
from tests.config.test_compose import ASKED_OF_THE_USER

LARGE = "reward_model=nemotron_70b"
POLICY = "policy=tulu3_8b_sft"
PROCESSES = "accelerate=zero3"
MEMBER = "reward_model.ensemble.members.skywork.reward_model"


def chosen(reward_model: str) -> list[str]:
    return [POLICY, f"reward_model={reward_model}", *ASKED_OF_THE_USER.get(reward_model, [])]


@pytest.mark.parametrize("choice", groups()["reward_model"])
def test_a_shipped_reward_model_trains_in_several_processes_unless_it_is_spread(choice: str) -> None:
    config = compose(chosen(choice))
    for processes in ("ddp", "zero2", "zero3"):
        if config.reward_model.device_map:
            with pytest.raises(ConfigError, match=r"reward serve.*reward_model=served"):
                compose([*chosen(choice), f"accelerate={processes}"])
        else:
            compose([*chosen(choice), f"accelerate={processes}"])


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        (["reward_model=random", "reward_model@gold_reward_model=nemotron_70b"], "gold_reward_model"),
        (
            ["reward_model=flipped_skywork_v2_llama_8b", "reward_model.inner.device_map=auto"],
            "reward_model.inner",
        ),
        ([*chosen("ensemble_minimum"), f"{MEMBER}.device_map=auto"], MEMBER),
    ],
)
def test_whatever_every_process_would_load_is_refused_by_its_field(overrides: list[str], field: str) -> None:
    own = [word for word in overrides if word != POLICY]
    with pytest.raises(ConfigError, match=f"^{field}.device_map=auto: each of the 8 ") as refusal:
        compose([POLICY, PROCESSES, *own])
    group = "reward_model@gold_reward_model" if field.startswith("gold") else "reward_model"
    assert f"then {group}=served" in str(refusal.value)
    assert f"set {field}.device_map=null" in str(refusal.value)
    assert compose([POLICY, PROCESSES, *own, f"{field}.device_map=null"])


@pytest.mark.parametrize(
    "overrides",
    [
        [LARGE],
        [LARGE, PROCESSES, "algorithm=best_of_n"],
        [LARGE, PROCESSES, "accelerate.processes=1"],
        [LARGE, PROCESSES, "accelerate.processes=2", "accelerate.machines=2"],
        [LARGE, PROCESSES, "reward_model.device_map=null"],
        ["reward_model=untrained", PROCESSES, "reward_model@gold_reward_model=nemotron_70b"],
        ["reward_model=served", PROCESSES, "reward_model.device_map=auto"],
    ],
)
def test_where_no_gpu_is_shared_by_copies_of_it_a_reward_model_may_be_spread(overrides: list[str]) -> None:
    assert compose([POLICY, *overrides])


def test_what_trains_nothing_takes_a_spread_reward_model_in_an_experiment_of_many_processes() -> None:
    words = ["experiment=skywork_question", LARGE]
    assert with_benchmarks(words, ["ppe_correctness"], None).reward_model.device_map == "auto"
    with pytest.raises(ConfigError, match=r"reward_model\.device_map=auto"):
        compose(words)


def test_a_run_of_an_earlier_version_is_still_read(tmp_path: Path) -> None:
    config = compose([POLICY, PROCESSES, "reward_model=skywork_v2_llama_8b"])
    spread = replace(config, reward_model=replace(config.reward_model, device_map="auto"))
    (tmp_path / "config.yaml").write_text(freeze(spread))
    assert load(tmp_path / "config.yaml") == spread
    with pytest.raises(ConfigError):
        check_training(spread)


GOLD = "reward_model@gold_reward_model=served"
KNOCKOUT = "reward_model.group.schedule=knockout"
PAIRS = "reward_model.comparability=pair"


@pytest.mark.parametrize(
    ("reward_model", "overrides", "calls"),
    [
        ("served", [], 1),
        ("served", ["accelerate.processes=2"], 1),
        ("served", [GOLD, "gold_reward_model.endpoint.deadline_seconds=1"], 2),
        ("served", [PAIRS, KNOCKOUT], 3),  # rounds of a group of 8
        (
            "served",
            [PAIRS, KNOCKOUT, "algorithm=ppo", "prompts.held_out_limit=64"],
            2,
        ),  # 4 samples standardise
        ("api_judge", [], 2),  # both orders
        ("api_judge", [KNOCKOUT], 6),
    ],
)
def test_a_deadline_is_refused_that_could_have_processes_wait_in_vain(
    reward_model: str, overrides: list[str], calls: int
) -> None:
    words, highest = [POLICY, PROCESSES, f"reward_model={reward_model}", *overrides], 2700 // calls
    field = "reward_model.endpoint.deadline_seconds"
    assert compose([*words, f"{field}={highest}"])
    with pytest.raises(ConfigError, match=f"^{field}={highest + 1} is too long") as refusal:
        compose([*words, f"{field}={highest + 1}"])
    assert f"Set {field}={highest} or less." in str(refusal.value)


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        (["reward_model=random", GOLD], "gold_reward_model"),
        (["reward_model=flipped_skywork_v2_llama_8b"], "reward_model.inner"),
        (chosen("ensemble_minimum"), MEMBER),
    ],
)
def test_a_deadline_is_refused_by_its_field(overrides: list[str], field: str) -> None:
    words = [POLICY, PROCESSES, *(word for word in overrides if word != POLICY)]
    with pytest.raises(ConfigError, match=f"^{field}.endpoint.deadline_seconds=2701 is too long"):
        compose([*words, f"{field}.endpoint.deadline_seconds=2701"])
    assert compose([*words, f"{field}.endpoint.deadline_seconds=2700"])
    for alone in ("accelerate.processes=1", "algorithm=best_of_n"):
        assert compose([*words, f"{field}.endpoint.deadline_seconds=1e6", alone])


def test_calls_are_counted_as_training_makes_them() -> None:
    assert reward_function.NORMALISER_SAMPLES == LEAST_GROUP
