"""How many seeds and prompts an experiment needs, and the cheapest way to have them."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from math import inf
from typing import Any

from rlhf_eval.analysis.power import (
    MIN_REWARD_MODELS,
    MIN_SEEDS,
    Target,
    power,
    smallest_correlation,
    smallest_difference,
)
from rlhf_eval.analysis.variance import Components

MOST_SEEDS = 1000
"""More are taken to be out of reach."""
TABLE_SEEDS = (2, 3, 4, 5, 8, 10)
TABLE_SHARES = (0.125, 0.25, 0.5, 1.0)
"""Shares of the set whose power the table shows."""
TABLE_REWARD_MODELS = (5, 10, 20, 50)


@dataclass(frozen=True, slots=True)
class Costs:
    """What a training run and a judged prompt of one run cost, in one unit, such as GPU-hours or money."""

    run: float = 1.0
    prompt: float = 0.0

    def total(self, reward_models: int, seeds: int, prompts: int) -> float:
        """Of a whole experiment."""
        return reward_models * seeds * (self.run + prompts * self.prompt)


@dataclass(frozen=True, slots=True)
class Design:
    """One way to do it."""

    seeds: int
    prompts: int
    power: float
    cost: float


@dataclass(frozen=True, slots=True)
class ForModels:
    """What so many reward models need.

    Attributes:
        comparisons: corrected for.
        seeds: the fewest with all prompts of the set; None if no number of seeds does it.
        cheapest: None likewise.
        correlation: the smallest that so many reward models detect; None for fewer than four.
    """

    reward_models: int
    comparisons: int
    seeds: int | None
    cheapest: Design | None
    correlation: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer to `rlhf-eval power`.

    Attributes:
        prompts: that the set has.
        table: power of designs.
        chosen: what the number of reward models asked for needs.
        others: the same for other numbers of them.
        seed_floor: the fewest seeds with which any number of prompts does it; None if none does.
        smallest_difference: by seeds, separated with all prompts of the set.
        notes: in sentences.
    """

    components: Components
    target: Target
    costs: Costs
    prompts: int
    table: tuple[Design, ...]
    chosen: ForModels
    others: tuple[ForModels, ...]
    seed_floor: int | None
    smallest_difference: dict[int, float]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The documented contract of `rlhf-eval power --json`."""
        found = asdict(self)
        found["components"].pop("notes")
        return found | {"smallest_difference": {str(s): d for s, d in self.smallest_difference.items()}}


def plan(components: Components, target: Target, costs: Costs, prompts: int) -> Plan:
    """How to separate what is to be separated.

    Args:
        components: complete.
        prompts: that the set has; no more are offered.
    """
    levels = sorted({max(2, round(share * prompts)) for share in TABLE_SHARES})
    numbers = sorted({target.reward_models, *TABLE_REWARD_MODELS})
    by_number = {number: _for_models(components, target, costs, prompts, number) for number in numbers}
    chosen = by_number[target.reward_models]
    floor = _fewest_seeds(components, target, inf)
    return Plan(
        components=components,
        target=target,
        costs=costs,
        prompts=prompts,
        table=tuple(_design(components, target, costs, s, p) for s in TABLE_SEEDS for p in levels),
        chosen=chosen,
        others=tuple(row for number, row in by_number.items() if number != target.reward_models),
        seed_floor=floor,
        smallest_difference={
            seeds: smallest_difference(components, target, seeds, prompts) for seeds in TABLE_SEEDS
        },
        notes=(*components.notes, *_notes(components, target, prompts, chosen, floor)),
    )


def _for_models(components: Components, target: Target, costs: Costs, prompts: int, number: int) -> ForModels:
    own = replace(target, reward_models=number)
    enough = number >= MIN_REWARD_MODELS
    return ForModels(
        reward_models=number,
        comparisons=own.comparisons,
        seeds=_fewest_seeds(components, own, prompts),
        cheapest=_cheapest(components, own, costs, prompts),
        correlation=smallest_correlation(number, target.power, target.level) if enough else None,
    )


def _design(components: Components, target: Target, costs: Costs, seeds: int, prompts: int) -> Design:
    found = power(components, target, seeds, prompts)
    return Design(seeds, prompts, found, costs.total(target.reward_models, seeds, prompts))


def _fewest_seeds(components: Components, target: Target, prompts: float) -> int | None:
    def does(seeds: int) -> bool:
        return power(components, target, seeds, prompts) >= target.power

    return _fewest(does, MIN_SEEDS, MOST_SEEDS)


def _cheapest(components: Components, target: Target, costs: Costs, prompts: int) -> Design | None:
    """Of all designs that do it, the one of the lowest cost; of equal ones that of the fewest seeds."""

    def enough(seeds: int) -> int | None:
        return _fewest(lambda number: power(components, target, seeds, number) >= target.power, 2, prompts)

    best: Design | None = None
    first, least = _fewest_seeds(components, target, prompts), enough(MOST_SEEDS)
    if first is None or least is None:
        return None
    for seeds in range(first, MOST_SEEDS + 1):
        if best and costs.total(target.reward_models, seeds, least) >= best.cost:
            break  # no number of seeds needs fewer prompts
        needed = enough(seeds)
        assert needed is not None
        found = _design(components, target, costs, seeds, needed)
        if best is None or found.cost < best.cost:
            best = found
    return best


def _fewest(does: Callable[[int], bool], least: int, most: int) -> int | None:
    """The smallest number in [least, most] that does, where all above one that does do too; None if none."""
    if not does(most):
        return None
    while least < most:
        middle = (least + most) // 2
        if does(middle):
            most = middle
        else:
            least = middle + 1
    return most


def _notes(
    components: Components, target: Target, prompts: int, chosen: ForModels, floor: int | None
) -> list[str]:
    wanted = f"{target.difference:g} points with a power of {target.power:g}"
    notes = ["A single seed is not offered: it shows nothing of training luck, so no test can allow for it."]
    if chosen.seeds is None:
        least = smallest_difference(components, target, MOST_SEEDS, prompts)
        notes.append(
            f"No number of seeds separates {wanted} on {prompts} prompts: the spread over prompts alone "
            f"leaves {least:.2f} points. A larger set of prompts or fewer comparisons would help."
        )
    if floor is not None and floor > MIN_SEEDS:
        notes.append(
            f"With fewer than {floor} seeds no number of prompts separates {wanted}: the spread between "
            f"seeds ({components.seed:.2f} points) sets a floor that only seeds lower."
        )
    elif floor is None:
        notes.append(f"Neither prompts nor up to {MOST_SEEDS} seeds separate {wanted}.")
    return notes
