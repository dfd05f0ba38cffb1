"""A grid is every reward model with every seed, all else equal."""

from dataclasses import replace

import pytest

from rlhf_eval.config.compose import run_name
from rlhf_eval.errors import ConfigError
from rlhf_eval.sweep.demo import REWARD_MODELS
from rlhf_eval.sweep.grid import points


def test_runs_differ_in_reward_model_and_seed_only() -> None:
    runs = points(["experiment=lab", "algorithm.steps=7"], REWARD_MODELS, range(2))
    assert len({run_name(run) for run in runs}) == 2 * len(REWARD_MODELS)
    assert [run.seed for run in runs] == [0] * 9 + [1] * 9
    first = runs[0]
    assert all(replace(run, reward_model=first.reward_model, seed=first.seed) == first for run in runs)
    assert first.algorithm.kind == "grpo"
    assert first.algorithm.steps == 7


def test_one_wrong_name_fails_the_grid() -> None:
    with pytest.raises(ConfigError, match="lab_claen"):
        points(["experiment=lab"], ["lab_clean", "lab_claen"], [0])
