"""A grid says in which fields of the algorithm runs of one experiment may differ, and in no others."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_eval.config.compose import compose, freeze, hash8, load
from rlhf_eval.config.grid import grid_point, grid_points, held_equal, point_in_words
from rlhf_eval.errors import ConfigError

LAB = ["experiment=lab", "reward_model=lab_clean"]
GRID = "grid={algorithm.kl_coefficient:[0.02,0.1],algorithm.learning_rate:[1e-6,5e-4]}"


def test_a_grid_survives_the_file_and_is_no_part_of_the_result(tmp_path: Path) -> None:
    config = compose([*LAB, GRID])
    assert config.grid == {
        "algorithm.kl_coefficient": (0.02, 0.1),
        "algorithm.learning_rate": (1e-6, 5e-4),
    }
    (tmp_path / "config.yaml").write_text(freeze(config))
    assert load(tmp_path / "config.yaml") == config
    assert hash8(config) == hash8(compose(LAB))


def test_all_points_and_where_a_run_is() -> None:
    config = compose([*LAB, GRID])
    assert [tuple(value for _, value in point) for point in grid_points(config)] == [
        (0.02, 1e-6),
        (0.02, 5e-4),
        (0.1, 1e-6),
        (0.1, 5e-4),
    ]
    assert grid_point(config) == grid_points(config)[3]  # the lab's own values
    assert point_in_words(grid_point(config)) == "algorithm.kl_coefficient=0.1 algorithm.learning_rate=0.0005"


def test_whole_numbers_stand_for_fractions() -> None:
    config = compose([*LAB, "grid={algorithm.kl_coefficient:[0,1]}", "algorithm.kl_coefficient=0"])
    assert grid_point(config) == grid_points(config)[0]


def test_without_a_grid_there_is_one_empty_point() -> None:
    config = compose(LAB)
    assert (grid_points(config), grid_point(config)) == ([()], ())


def test_the_untrained_policy_is_at_no_point_of_the_grid() -> None:
    config = compose(["experiment=lab", "reward_model=untrained", GRID, "algorithm.kl_coefficient=7"])
    assert (grid_points(config), grid_point(config)) == ([()], ())


def test_a_run_outside_its_grid_is_refused() -> None:
    config = compose([*LAB, GRID, "algorithm.kl_coefficient=0.3"])
    with pytest.raises(
        ConfigError, match=r"algorithm\.kl_coefficient: 0\.3 .*\(0\.02, 0\.1\)[\s\S]*experiment="
    ):
        grid_point(config)


def test_runs_of_a_grid_are_held_equal_in_all_else() -> None:
    one = compose([*LAB, GRID])
    other = compose([*LAB, GRID, "algorithm.kl_coefficient=0.02", "seed=9", "threads=2"])
    assert held_equal(one) == held_equal(other)
    assert held_equal(one) != held_equal(compose([*LAB, GRID, "algorithm.clip_range=0.1"]))
    assert held_equal(one) != held_equal(replace(one, grid={}))


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (
            "{algorithm.kl_coeficient:[0.1]}",
            r"'algorithm\.kl_coeficient'[\s\S]*mean 'algorithm\.kl_coefficient'",
        ),
        ("{kl_coefficient:[0.1]}", r"'kl_coefficient'[\s\S]*mean 'algorithm\.kl_coefficient'"),
        ("{algorithm.gae_lambda:[0.9]}", r"'algorithm\.gae_lambda'"),  # of PPO, and the lab's is GRPO
        ("{algorithm.completions_per_device_batch:[8]}", "completions_per_device_batch"),  # changes no result
        ("{algorithm.name:[a]}", r"'algorithm\.name'"),
        ("{algorithm.kind:[ppo]}", r"'algorithm\.kind'"),
        ("{reward_model.name:[a]}", r"'reward_model\.name'"),
        ("{seed:[1,2]}", "'seed'"),
        ("{judge.model:[a]}", r"'judge\.model'"),
        ("{algorithm.kl_coefficient:[]}", "at least one value"),
        ("{algorithm.kl_coefficient:[0.1,0.1]}", "each once"),
        ("{algorithm.kl_coefficient:0.1}", r"grid\.algorithm\.kl_coefficient: 0\.1 does not fit"),
        ("5", "grid: 5 does not fit"),
    ],
)
def test_a_wrong_grid_is_named(grid: str, message: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        compose([*LAB, f"grid={grid}"])
    assert re.search(message, str(refusal.value)), str(refusal.value)


def test_the_grid_of_a_shipped_experiment_can_stand_in_yaml(tmp_path: Path) -> None:
    from shutil import copytree

    from rlhf_eval.config.folders import conf_folder

    conf = tmp_path / "conf"
    copytree(conf_folder(), conf)
    with (conf / "experiment" / "lab.yaml").open("a") as file:
        file.write("\ngrid:\n  algorithm.kl_coefficient: [0.02, 1e-1]\n")
    assert compose(LAB, conf).grid == {"algorithm.kl_coefficient": (0.02, 0.1)}
