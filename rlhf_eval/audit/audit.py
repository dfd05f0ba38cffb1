"""An audit from beginning to end: every reward model is loaded once, answers everything, and makes room."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rlhf_eval.audit.ablation import SHIPPED, Ablation, affected
from rlhf_eval.audit.gap import Credits, public_private_gap
from rlhf_eval.audit.paired import drop_against_panel, paired_drop
from rlhf_eval.audit.perturbation import rewrites
from rlhf_eval.benchmarks.evaluate import Loaded, Measured, evaluate, model_for, score_items
from rlhf_eval.benchmarks.items import Item, Scores
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
        before, after: credits by place of the change, shape (items,) each; NaN where a score is invalid.
    """

    measured: Mapping[str, Measured]
    before: list[np.ndarray]
    after: list[np.ndarray]


def planned_changes(benchmarks: Sequence[Loaded], own: Ablation | None) -> list[Change]:
    """Every artifact that is taken out and every rewrite, of all benchmarks.

    Args:
        own: the user's ablation, made on every benchmark that has the artifact; None makes those that are
            shipped for a benchmark, where it has it.

    Raises:
        DataError: no benchmark has the user's artifact.
    """
    changes = []
    for benchmark in benchmarks:
        items = counted(benchmark)
        ablation = own or SHIPPED.get(benchmark.config.kind)
        if ablation and affected(items, ablation.artifact):
            changes += _ablated(benchmark, items, ablation)
        for name, rewrite in rewrites().items():
            variants = {item.id: item for item in rewrite.apply(items, SEED)}
            originals = [item for item in items if item.id in variants]
            if originals:
                changed = [variants[item.id] for item in originals]
                changes.append(
                    Change(benchmark, "perturbation", "", name, rewrite.description, originals, changed)
                )
    if own and not any(change.method == "ablation" for change in changes):
        own.variants(benchmarks[0].config.name, benchmarks[0].items)  # says that it is nowhere
    return changes


def counted(benchmark: Loaded) -> list[Item]:
    """The items that count for a benchmark's number: no tied votes, no prior sets."""
    nothing = [np.zeros(len(item.completions)) for item in benchmark.items]
    weight = benchmark.kind.summarise(benchmark.items, nothing).weight
    return [item for item, share in zip(benchmark.items, weight, strict=True) if share > 0]


def _ablated(benchmark: Loaded, items: Sequence[Item], ablation: Ablation) -> list[Change]:
    originals = affected(items, ablation.artifact)
    found = [
        Change(
            benchmark, "ablation", ablation.name, arm.name, arm.description, originals, arm.apply(originals)
        )
        for arm in ablation.arms
    ]
    return [change for change in found if change.variants != change.originals]


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
        scores = dict(zip((i.id for i in measured[name].benchmark.items), measured[name].scores, strict=True))
        before.append(_credits(change.benchmark, change.originals, [scores[i.id] for i in change.originals]))
        changed = score_items(models[name], change.variants, change.benchmark.kind.both_orders)
        after.append(_credits(change.benchmark, change.variants, changed))
    return Answers(measured, before, after)


def _credits(benchmark: Loaded, items: Sequence[Item], scores: Scores) -> np.ndarray:
    """Credits of some items; NaN where a score is invalid, since nothing is known of it then."""
    valid = np.array([np.isfinite(score).all() for score in scores])
    return np.where(valid, benchmark.kind.summarise(items, scores).right, np.nan)


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

    def credits(benchmark: Loaded) -> Credits:
        found = {name: answer.measured[benchmark.config.name].summary for name, answer in answers.items()}
        right = {name: summary.right for name, summary in found.items()}
        return Credits(benchmark.config.name, right, found[audited].weight, prompts_of(benchmark.items))

    return [
        asdict(public_private_gap(credits(public), credits(private), audited, panel))
        for public in benchmarks
        if not public.config.private
        for private in benchmarks
        if private.config.private
    ]


def change_row(place: int, change: Change, answers: Mapping[str, Answers]) -> dict[str, Any] | None:
    """What one change did to every reward model, and to the audited one beyond the panel.

    Items that one of them could not score before or after are left out and counted as `invalid`; None if none
    is left.
    """
    audited, *panel = answers
    whole = {name: (found.before[place], found.after[place]) for name, found in answers.items()}
    valid = np.all([np.isfinite(side) for pair in whole.values() for side in pair], axis=0)
    if not valid.any():
        return None
    pairs = {name: (before[valid], after[valid]) for name, (before, after) in whole.items()}
    prompts = [p for p, v in zip(prompts_of(change.originals), valid, strict=True) if v]
    models = []
    for name, (before, after) in pairs.items():
        drop = asdict(paired_drop(before, after, prompts))
        drop["changed"] = drop.pop("variant")
        models.append({"reward_model": name} | drop)
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
    about = {"name": change.name, "description": change.description, "invalid": int((~valid).sum())}
    return about | own | beyond | {"models": models}


def change_sections(
    changes: Sequence[Change], answers: Mapping[str, Answers]
) -> dict[str, list[dict[str, Any]]]:
    """The rows of all changes under `ablation` and `perturbation`, by benchmark."""
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for place, change in enumerate(changes):
        key = (change.method, change.benchmark.config.name, change.group)
        if row := change_row(place, change, answers):
            found.setdefault(key, []).append(row)
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
