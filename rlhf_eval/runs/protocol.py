"""What the runs of an experiment have in common, so that its reward models are compared on equal terms.

The first run of an experiment writes it down under `<experiment>/shared/protocol/`; later ones must agree:

    <policy>--<algorithm>.json            policy, prompts, generation, judges, benchmarks, gold reward model …
    <policy>--<algorithm>--training.json  algorithm, accelerate, grid: not for runs that train nothing
"""

import os
import secrets
from pathlib import Path
from typing import Any

from rlhf_eval.config.grid import TRAINING, grid_point, held_equal
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import ConfigError
from rlhf_eval.files import read_json, write_json


def hold(experiment: Path, config: RunConfig) -> None:
    """Hold a run to the protocol of its experiment, or make the run's own the protocol if it is the first.

    A run may differ from the others of its policy and algorithm in reward model, seed and the fields of the
    grid, and in nothing else that changes results. Any number of processes may call it at once.

    Args:
        experiment: the experiment's folder.

    Raises:
        ConfigError: the run is not in its own grid, or differs from the protocol; all differing fields are
            named.
        DataError: a protocol file is damaged.
    """
    grid_point(config)
    shared, training = protocol(config)
    stem = experiment / "shared" / "protocol" / f"{config.policy.name}--{config.algorithm.name}"
    parts = [(stem.with_name(f"{stem.name}.json"), shared)]
    if config.reward_model.kind != "untrained":
        parts.append((stem.with_name(f"{stem.name}--training.json"), training))
    differing: list[str] = []
    for file, ours in parts:
        if file.exists() or not differing:  # a run that is refused sets no protocol
            differing += _differences(_claimed(file, ours), ours)
    if differing:
        raise ConfigError(
            f"{experiment} compares reward models under one protocol ({stem}*.json), and this run would not "
            "keep to it. They differ in " + "; ".join(differing) + ".",
            "Go back to those values, or give the new setting its own experiment=<name> or "
            "algorithm.name=<name>; delete these files if no run under the old protocol is kept.",
        )


def protocol(config: RunConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """What all runs of an experiment share, and what those that train share; dotted name → value."""
    fields = held_equal(config)
    fields = {name: value for name, value in fields.items() if not name.startswith("reward_model.")}
    training = {name: value for name, value in fields.items() if name.startswith(TRAINING)}
    return {name: value for name, value in fields.items() if name not in training}, training


def _claimed(file: Path, ours: dict[str, Any]) -> dict[str, Any]:
    """What the file says: ours if we are the first. A link either makes the whole file or finds another's."""
    if not file.exists():
        temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
        write_json(temporary, ours)
        try:
            os.link(temporary, file)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return read_json(file)


def _differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    return [
        f"{name}: {theirs.get(name, 'absent')} there, {ours.get(name, 'absent')} asked for"
        for name in dict.fromkeys([*theirs, *ours])
        if theirs.get(name, "absent") != ours.get(name, "absent")
    ]
