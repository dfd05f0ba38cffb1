"""Which runs a sweep consists of."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from rlhf_eval.config.compose import compose
from rlhf_eval.config.grid import Point, grid_points
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.rewards.kinds import check_kinds


def points(
    overrides: list[str], reward_models: Iterable[str], seeds: Iterable[int], conf: Path | None = None
) -> list[RunConfig]:
    """Every reward model at every point of the experiment's grid with every seed, all else equal; all runs of
    a seed before the next seed. The untrained policy, which no field of the grid changes, has one run a seed.

    Args:
        overrides: what the runs share, as Hydra overrides; `config.grid` among them, and the values of its
            fields are taken from there.
        reward_models: choices of the group `reward_model`.

    Raises:
        ConfigError: a choice, a field or a value that cannot be.
    """
    configs = []
    for name in reward_models:
        words = [*overrides, f"reward_model={name}"]
        base = compose(words, conf)
        check_kinds(base)
        # Composed anew and not replaced, so that every value is checked as if it stood on a command line.
        configs += [
            compose([*words, *_overrides(point)], conf) if point else base for point in grid_points(base)
        ]
    return [replace(config, seed=seed) for seed in seeds for config in configs]


def _overrides(point: Point) -> list[str]:
    """A point as Hydra overrides; text is quoted, so that Hydra takes it as it is."""
    return [f'{name}="{value}"' if isinstance(value, str) else f"{name}={value}" for name, value in point]
