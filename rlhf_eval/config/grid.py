"""The grid of an experiment: the points at which each of its reward models trains a policy."""

from itertools import product
from typing import Any

from rlhf_eval.config.plain import fingerprint, flat, result_fields
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import ConfigError

TRAINING = ("algorithm.", "accelerate.", "grid.")
"""Beginnings of the names in `held_equal` that are no matter to the untrained policy."""

Point = tuple[tuple[str, Any], ...]
"""A value for each field of a grid, in the order of `RunConfig.grid`; empty where there is no grid."""


def grid_points(config: RunConfig) -> list[Point]:
    """All points of the grid, the last field changing fastest; the one empty point for a run that trains
    nothing (kind `untrained`) or has no grid."""
    if config.reward_model.kind == "untrained":
        return [()]
    return [tuple(zip(config.grid, values, strict=True)) for values in product(*config.grid.values())]


def grid_point(config: RunConfig) -> Point:
    """Where in the grid the run itself is.

    Raises:
        ConfigError: a value of the run is not among those of the grid.
    """
    if config.reward_model.kind == "untrained":
        return ()
    own = flat(result_fields(config.algorithm), "algorithm")
    for name, values in config.grid.items():
        if own[name] not in values:
            raise ConfigError(
                f"{name}: {own[name]} is not in the experiment's grid ({', '.join(map(str, values))}).",
                f"Set {name} to one of these, or give the run another experiment=<name> with its own grid.",
            )
    return tuple((name, own[name]) for name in config.grid)


def held_equal(config: RunConfig) -> dict[str, Any]:
    """What runs that are compared agree in: dotted name → value of every field that changes results, but the
    seed and the fields of the grid; and the grid itself, as `grid.<field>`."""
    fields = flat(fingerprint(config))
    grid = {f"grid.{name}": list(values) for name, values in config.grid.items()}
    return {
        name: value for name, value in fields.items() if name != "seed" and name not in config.grid
    } | grid


def point_in_words(point: Point) -> str:
    """`algorithm.kl_coefficient=0.1 algorithm.learning_rate=3e-06`, as on a command line."""
    return " ".join(f"{name}={value}" for name, value in point)
