"""Which runs a sweep consists of."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from rlhf_eval.config.compose import compose
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.rewards.kinds import check_kinds


def points(
    overrides: list[str], reward_models: Iterable[str], seeds: Iterable[int], conf: Path | None = None
) -> list[RunConfig]:
    """Every reward model with every seed, all else equal; all reward models of a seed before the next seed.

    Args:
        overrides: what the runs share, as Hydra overrides.
        reward_models: choices of the group `reward_model`.

    Raises:
        ConfigError: a choice, a field or a value that cannot be.
    """
    bases = [compose([*overrides, f"reward_model={name}"], conf) for name in reward_models]
    for base in bases:
        check_kinds(base)
    return [replace(base, seed=seed) for seed in seeds for base in bases]
