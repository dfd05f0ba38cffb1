"""How far judges can be relied on: with themselves when sides are swapped, with each other, and about kin."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlhf_eval.records import Verdict

FAMILIES = {
    "openai": r"gpt|chatgpt|\bo[1345](?:-|\b)",
    "anthropic": r"claude",
    "google": r"gemini|gemma|palm",
    "meta": r"llama|tulu",
    "alibaba": r"qwen|qwq",
    "mistral": r"mistral|mixtral",
    "deepseek": r"deepseek",
    "lab": r"^lab",
}
"""Family → how its models' names look. Tülu is a Llama; a fine-tuned model belongs to its base's family."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two judges on the same comparisons.

    Attributes:
        n: comparisons that both decided on, draws included.
        same: share with the same winner, or with a draw for both, in percent.
        kappa: Cohen's κ (Cohen 1960) over win, draw and loss; NaN if one of them always says the same.
        correlation: Pearson's r of the preferences; NaN if one is constant.
    """

    n: int
    same: float
    kappa: float
    correlation: float


def position_consistency(verdicts: Sequence[Verdict]) -> tuple[int, float]:
    """Questions with both games decided, and the share, in percent, where both name the same winner.

    A judge that always prefers the answer shown first is never consistent.
    """
    games: dict[str, list[float]] = {}
    for verdict in verdicts:
        if verdict.preference is not None:
            games.setdefault(verdict.prompt_id, []).append(np.sign(verdict.preference - 0.5))
    pairs = [signs for signs in games.values() if len(signs) == 2]
    same = sum(first == second for first, second in pairs)
    return len(pairs), 100 * same / len(pairs) if pairs else float("nan")


def agreement(one: Sequence[Verdict], other: Sequence[Verdict]) -> Agreement:
    """How far two judges agree on the same games of the same prompts."""
    first, second = _preferences(one), _preferences(other)
    shared = sorted(first.keys() & second.keys())
    a, b = (np.array([side[key] for key in shared]) for side in (first, second))
    if not shared:
        return Agreement(0, float("nan"), float("nan"), float("nan"))
    winner_a, winner_b = np.sign(a - 0.5), np.sign(b - 0.5)
    same = float(np.mean(winner_a == winner_b))
    chance = sum(float(np.mean(winner_a == sign) * np.mean(winner_b == sign)) for sign in (-1, 0, 1))
    kappa = (same - chance) / (1 - chance) if chance < 1 else float("nan")
    constant = np.ptp(a) == 0 or np.ptp(b) == 0
    correlation = float("nan") if constant else float(np.corrcoef(a, b)[0, 1])
    return Agreement(len(shared), 100 * same, kappa, correlation)


def family(model: str) -> str | None:
    """The family of a model by its name; None if it is of none that is known."""
    return next((name for name, look in FAMILIES.items() if re.search(look, model.lower())), None)


def favour(verdicts: Mapping[str, Sequence[Verdict]], judge: str) -> float:
    """How much more one judge prefers the policy than the others do on the same comparisons, in points.

    Beside the families of judge, policy and baseline this shows self-preference (Panickssery et al. 2024,
    arXiv:2404.13076): a judge that favours its kin prefers them more than judges of other families do.
    """
    own = _preferences(verdicts[judge])
    others = [_preferences(group) for name, group in verdicts.items() if name != judge]
    shared = sorted(set(own).intersection(*others)) if others else []
    if not shared:
        return float("nan")
    mean = np.mean([[group[key] for key in shared] for group in others])
    return 100 * float(np.mean([own[key] for key in shared]) - mean)


def _preferences(verdicts: Sequence[Verdict]) -> dict[tuple[str, str, int], float]:
    return {(v.evaluation, v.prompt_id, v.game): v.preference for v in verdicts if v.preference is not None}
