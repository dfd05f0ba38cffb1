"""`rlhf-eval reward …` and the part of `validate` that loads one reward model."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_eval.commands.show import print_json, print_table

if TYPE_CHECKING:
    from rlhf_eval.config.schema import LabConfig
    from rlhf_eval.progress import Progress

GROUP_SIZES = (4, 8, 16)
"""For which the cost of a group of completions is told."""


def reward(options: Namespace) -> int:
    from rlhf_eval.progress import progress_for_terminal
    from rlhf_eval.rewards.commands import score_file, serve

    config = reward_model_of(options.overrides)
    if options.action == "serve":
        serve(config, options.host, options.port)
        return 0
    with progress_for_terminal() as progress:
        counts = score_file(config, options.input, options.output, progress)
    print(f"{options.output}: {', '.join(f'{name} {count}' for name, count in counts.items())}")
    return 0


def validate_reward_model(options: Namespace) -> int:
    """Load one reward model and compare it with its golden scores; 1 if one disagrees."""
    from rlhf_eval.rewards.commands import check_golden
    from rlhf_eval.training.cost import group_calls

    config = reward_model_of(options.overrides, silent=options.json)
    golden = check_golden(config)
    calls = {size: group_calls(config, size) for size in GROUP_SIZES}
    agrees = all(row["agrees"] for row in golden)
    if options.json:
        shown = {"reward_model": config.name, "loaded": True, "card": asdict(config.card), "golden": golden}
        print_json(shown | {"group_calls": calls})
        return 0 if agrees else 1
    card = config.card
    openness = (
        {True: "yes", False: "no", None: "?"}[x] for x in (card.open_weights, card.open_data, card.open_code)
    )
    columns = ("reward model", "kind", "base model", "licence", "open weights", "open data", "open code")
    print_table(columns, [(config.name, config.kind, card.base_model or "?", card.licence or "?", *openness)])
    if card.training_data:
        print(f"trained on: {', '.join(card.training_data)}")
    for row in golden:
        word = "agrees" if row["agrees"] else "DIFFERS"
        print(f"golden score {row['expected']:g} ± {row['tolerance']:g}: {row['score']} {word}")
    print("texts read per group of " + ", ".join(f"{size}: {count}" for size, count in calls.items()))
    print("loaded" if golden else "loaded; its configuration has no golden scores to compare with")
    return 0 if agrees else 1


def reward_model_of(overrides: Sequence[str], silent: bool = False) -> Any:
    """The checked configuration of one reward model; the lab is built if it stands there."""
    from rlhf_eval.config.compose import compose
    from rlhf_eval.config.inputs import require_inputs
    from rlhf_eval.progress import progress_for_terminal
    from rlhf_eval.rewards.kinds import check_kinds
    from rlhf_eval.sources import localise

    config = compose(["experiment=lab", *overrides], trains=False)
    check_kinds(config)
    require_inputs(config)
    with progress_for_terminal(silent=silent) as progress:
        return localise(config.reward_model, world_for(config.lab, [config.reward_model], progress))


def world_for(lab: "LabConfig | None", parts: Sequence[Any], progress: "Progress") -> Path | None:
    """The folder of the lab's world; it is built if what decides about a result of `parts` stands in it."""
    from rlhf_eval.config.plain import fingerprint, flat
    from rlhf_eval.lab.build import ensure, world_path
    from rlhf_eval.sources import LAB

    values = [value for part in parts for value in flat(fingerprint(part)).values()]
    if lab and any(isinstance(value, str) and value.startswith(LAB) for value in values):
        return ensure(lab, 2, progress)
    return world_path(lab) if lab else None
