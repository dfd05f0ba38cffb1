"""A grid is every reward model at every point with every seed, all else equal."""

from dataclasses import replace

import pytest

from rlhf_eval.config.compose import run_name
from rlhf_eval.config.grid import grid_point
from rlhf_eval.errors import ConfigError
from rlhf_eval.sweep.demo import REWARD_MODELS
from rlhf_eval.sweep.grid import points


def test_runs_differ_in_reward_model_and_seed_only() -> None:
    runs = points(
        ["experiment=lab", "algorithm.steps=7", f"reward_model={','.join(REWARD_MODELS)}", "seed=0,1"]
    )
    assert len({run_name(run) for run in runs}) == 2 * len(REWARD_MODELS)
    assert [run.seed for run in runs] == [0] * 9 + [1] * 9
    first = runs[0]
    assert all(replace(run, reward_model=first.reward_model, seed=first.seed) == first for run in runs)
    assert first.algorithm.kind == "grpo"
    assert first.algorithm.steps == 7


def test_every_reward_model_gets_the_same_grid() -> None:
    grid = "grid={algorithm.kl_coefficient:[0,0.5],algorithm.loss_type:[grpo,dr_grpo]}"
    runs = points(
        [
            "experiment=lab",
            grid,
            "algorithm.kl_coefficient=9",
            "reward_model=lab_clean,random",
            "seed=range(3,5)",
        ]
    )
    assert len({run_name(run) for run in runs}) == len(runs) == 2 * 4 * 2
    found = [(run.seed, run.reward_model.name, *(value for _, value in grid_point(run))) for run in runs]
    assert found == [
        (seed, name, coefficient, loss)
        for seed in (3, 4)
        for name in ("lab_clean", "random")
        for coefficient in (0, 0.5)
        for loss in ("grpo", "dr_grpo")
    ]


def test_the_untrained_policy_has_one_run_a_seed() -> None:
    runs = points(
        [
            "experiment=lab",
            "grid={algorithm.kl_coefficient:[0,0.5]}",
            "reward_model=untrained,random",
            "seed=0,1",
        ]
    )
    names = [run.reward_model.name for run in runs]
    assert (names.count("untrained"), names.count("random")) == (2, 4)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("{algorithm.kl_coefficient:[high]}", r"algorithm\.kl_coefficient: 'high' does not fit"),
        ("{algorithm.steps:[10,0]}", r"algorithm\.steps: 0 does not fit"),
        ("{algorithm.prompts_per_step:[16,3]}", "completions_per_device_batch: 128 does not divide 24"),
    ],
)
def test_a_value_that_cannot_be_fails_the_grid(grid: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        points(["experiment=lab", f"grid={grid}", "reward_model=lab_clean"])


def test_one_wrong_name_fails_the_grid() -> None:
    with pytest.raises(ConfigError, match="lab_claen"):
        points(["experiment=lab", "reward_model=lab_clean,lab_claen"])
