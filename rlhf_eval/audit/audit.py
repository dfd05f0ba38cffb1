"""An audit from beginning to end: every reward model is loaded once, answers everything, and makes room."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rlhf_eval.audit.ablation import SHIPPED, Ablation, affected
from rlhf_eval.audit.gap import public_private_gap
from rlhf_eval.audit.paired import drop_against_panel, paired_drop
from rlhf_eval.audit.perturbation import rewrites
from rlhf_eval.benchmarks.evaluate import Loaded, Measured, evaluate, model_for, score_items
from rlhf_eval.benchmarks.items import Item
from rlhf_eval.benchmarks.statistics import prompts_of
from rlhf_eval.rewards.stored import StoredRewardModel

SEED = 0
"""Of the rewrites: the same for every reward model and every audit."""


@dataclass(frozen=True)
class Change:
    """Some items of a benchmark before and after a change of their texts, in the same order."""

    benchmark: Loaded
    method: str
    group: str
    name: str
    description: str
    originals: Sequence[Item]
    variants: Sequence[Item]


@dataclass(frozen=True)
class Answers:
    """What one reward model made of everything.

    Attributes:
        measured: by benchmark.
        before, after: credits by place of the change, shape (items,) each.
    """

    measured: Mapping[str, Measured]
    before: list[np.ndarray]
    after: list[np.ndarray]


def planned_changes(benchmarks: Sequence[Loaded], own: Ablation | None) -> list[Change]:
    """Every artifact that is taken out and every rewrite, of all benchmarks.

    Args:
        own: the user's ablation, made on every benchmark; None makes those that are shipped for a benchmark.

    Raises:
        DataError: an ablation changes nothing in a benchmark.
    """
    changes = []
    items_of = {
        # Others have no right answer.
        b.config.name: [item for item in b.items if len(set(item.labels)) > 1]
        for b in benchmarks
    }
    holding = [name for name, items in items_of.items() if own and affected(items, own.artifact)]
    for benchmark in benchmarks:
        items = items_of[benchmark.config.name]
        # A pattern of one's own that is nowhere is an error, which `variants` raises.
        wanted = own if not holding or benchmark.config.name in holding else None
        ablation = wanted if own else SHIPPED.get(benchmark.config.kind)
        if ablation:
            originals, variants = ablation.variants(benchmark.config.name, items)
            changes += [
                Change(
                    benchmark,
                    "ablation",
                    ablation.name,
                    arm.name,
                    arm.description,
                    originals,
                    variants[arm.name],
                )
                for arm in ablation.arms
            ]
        for name, rewrite in rewrites().items():
            variants_of = {item.id: item for item in rewrite.apply(items, SEED)}
            originals = [item for item in items if item.id in variants_of]
            if originals:
                changed = [variants_of[item.id] for item in originals]
                changes.append(
                    Change(benchmark, "perturbation", "", name, rewrite.description, originals, changed)
                )
    return changes


def ask(model: StoredRewardModel, benchmarks: Sequence[Loaded], changes: Sequence[Change]) -> Answers:
    """Let one reward model score benchmarks and changes."""
    measured = {m.benchmark.config.name: m for m in evaluate(model, benchmarks)}
    models = {name: model_for(m.benchmark, model) for name, m in measured.items()}
    if not model.only_compares:  # one pass for each benchmark, so that batches are full
        for name, salted in models.items():
            variants = [
                v for change in changes if change.benchmark.config.name == name for v in change.variants
            ]
            salted.score([item.prompt.answered(text) for item in variants for text in item.completions])
    before, after = [], []
    for change in changes:
        name = change.benchmark.config.name
        kind, found = change.benchmark.kind, measured[name]
        credit = dict(zip((item.id for item in found.benchmark.items), found.summary.right, strict=True))
        before.append(np.array([credit[item.id] for item in change.originals]))
        scores = score_items(models[name], change.variants, kind.both_orders)
        after.append(kind.summarise(change.variants, scores).right)
    return Answers(measured, before, after)


def ask_all(
    open_model: Callable[[str], StoredRewardModel],
    names: Sequence[str],
    benchmarks: Sequence[Loaded],
    changes: Sequence[Change],
) -> dict[str, Answers]:
    """The answers of every reward model; each is opened, asked and let go before the next."""
    return {name: ask(open_model(name), benchmarks, changes) for name in names}


def accuracy_rows(answers: Mapping[str, Answers], benchmarks: Sequence[Loaded]) -> list[dict[str, Any]]:
    """The audited reward model's number on every benchmark, with the panel's beside it."""
    audited, *panel = answers
    return [
        answers[audited].measured[benchmark.config.name].as_json()
        | {
            "private": benchmark.config.private,
            "panel": {name: answers[name].measured[benchmark.config.name].summary.accuracy for name in panel},
        }
        for benchmark in benchmarks
    ]


def gap_rows(answers: Mapping[str, Answers], benchmarks: Sequence[Loaded]) -> list[dict[str, Any]]:
    """Every public benchmark against every private one."""
    audited, *panel = answers

    def credits(benchmark: Loaded) -> dict[str, np.ndarray]:
        name = benchmark.config.name
        return {model: found.measured[name].summary.right for model, found in answers.items()}

    return [
        asdict(
            public_private_gap(
                (public.config.name, private.config.name), credits(public), credits(private), audited, panel
            )
        )
        for public in benchmarks
        if not public.config.private
        for private in benchmarks
        if private.config.private
    ]


def change_row(place: int, change: Change, answers: Mapping[str, Answers]) -> dict[str, Any]:
    """What one change did to every reward model, and to the audited one beyond the panel."""
    audited, *panel = answers
    prompts = prompts_of(change.originals)
    pairs = {name: (found.before[place], found.after[place]) for name, found in answers.items()}
    models = []
    for name, (before, after) in pairs.items():
        drop = paired_drop(before, after, prompts)
        models.append(
            {
                "reward_model": name,
                "original": drop.original,
                "changed": drop.variant,
                "drop": drop.drop,
                "low": drop.low,
                "high": drop.high,
                "p": drop.p,
                "fell": drop.fell,
                "rose": drop.rose,
            }
        )
    beyond = dict.fromkeys(("panel_drop", "difference", "difference_low", "difference_high", "difference_p"))
    if panel:
        excess = drop_against_panel(*pairs[audited], [pairs[name] for name in panel], prompts)
        beyond = {
            "panel_drop": excess.panel_drop,
            "difference": excess.difference,
            "difference_low": excess.low,
            "difference_high": excess.high,
            "difference_p": excess.p,
        }
    own = {name: value for name, value in models[0].items() if name != "reward_model"}
    about = {"name": change.name, "description": change.description, "n": len(change.originals)}
    return about | own | beyond | {"models": models}


def change_sections(
    changes: Sequence[Change], answers: Mapping[str, Answers]
) -> dict[str, list[dict[str, Any]]]:
    """The rows of all changes under `ablation` and `perturbation`, by benchmark."""
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for place, change in enumerate(changes):
        key = (change.method, change.benchmark.config.name, change.group)
        found.setdefault(key, []).append(change_row(place, change, answers))
    return {
        "ablation": [
            {
                "benchmark": benchmark,
                "rule": group,
                "n": rows[0]["n"],
                "figure": f"ablation_{benchmark}",
                "arms": rows,
            }
            for (method, benchmark, group), rows in found.items()
            if method == "ablation"
        ],
        "perturbation": [
            {"benchmark": benchmark, "figure": f"perturbation_{benchmark}", "rewrites": rows}
            for (method, benchmark, _), rows in found.items()
            if method == "perturbation"
        ],
    }
