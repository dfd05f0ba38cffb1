"""Which runs a sweep consists of."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from rlhf_eval.config.compose import compose, run_path
from rlhf_eval.config.folders import groups
from rlhf_eval.config.grid import Point, grid_points
from rlhf_eval.config.overrides import parse_override, values
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.rewards.kinds import check_kinds


def points(overrides: Sequence[str], conf: Path | None = None) -> list[RunConfig]:
    """Every combination of the values that overrides give (`reward_model=a,b seed=range(0,5)`), at every
    point of the experiment's grid: each run once, all runs of a seed before the next seed.

    Fields of the grid take their values from there. The untrained policy, which no field of the grid changes,
    has one run a seed.

    Raises:
        ConfigError: a choice, a field or a value that cannot be.
    """
    known = groups(conf)
    axes: list[list[str]] = []
    seeds: list[str] = []
    for text in overrides:
        override = parse_override(text)
        if not override.is_sweep_override():
            axes.append([text])
            continue
        found = values(override, known.get(override.key_or_group, ()))
        if override.key_or_group == "seed":
            seeds = found
        else:
            axes.append([f"{override.get_key_element()}={value}" for value in found])
    combinations = [list(words) for words in product(*axes)]
    # A seed is checked once, and composed no more than that: it takes a tenth of a second.
    checked = [compose([*combinations[0], f"seed={seed}"], conf).seed for seed in seeds]
    configs = [config for words in combinations for config in _at_grid_points(words, conf)]
    if checked:
        configs = [replace(config, seed=seed) for seed in checked for config in configs]
    return list({run_path(config): config for config in configs}.values())


def _at_grid_points(words: list[str], conf: Path | None) -> list[RunConfig]:
    base = compose(words, conf)
    check_kinds(base)
    # Composed anew and not replaced, so that every value is checked as if it stood on a command line.
    return [compose([*words, *_overrides(point)], conf) if point else base for point in grid_points(base)]


def _overrides(point: Point) -> list[str]:
    """A point as Hydra overrides; text is quoted, so that Hydra takes it as it is."""
    return [f'{name}="{value}"' if isinstance(value, str) else f"{name}={value}" for name, value in point]
