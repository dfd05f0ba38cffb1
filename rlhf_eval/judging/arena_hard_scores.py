"""What Arena-Hard's verdicts amount to: battle rows, the plain score, the style-controlled score.

A game becomes *battle rows*, each 1, ½ or 0 for the policy: one row for a slight win or a tie, three for a
clear one. The plain score is the mean of all battle rows. v2.0 is scored by category, since hard prompts and
creative writing have different baselines; a score over both is a summary of this project's own.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlhf_eval.errors import JudgeError
from rlhf_eval.judging.style_control import Battles, style_controlled
from rlhf_eval.judging.style_features import FEATURES
from rlhf_eval.judging.style_normalisation import Normalisation
from rlhf_eval.records import Verdict

GAMES = (0, 1)
CLEAR_WIN_ROWS = 3
BOOTSTRAPS = 1000
MIN_STYLE_QUESTIONS = 50
"""Fewer questions of a category do not hold a fit of five parameters."""


@dataclass(frozen=True, slots=True)
class CategoryScore:
    """Plain score of one category; score and error in [0, 1]."""

    questions: int
    score: float
    standard_error: float


@dataclass(frozen=True, slots=True)
class Scores:
    """Plain score of one policy; score and error in [0, 1].

    Attributes:
        prompt_ids: the questions whose two games both have a verdict, in set order.
        values: shape (questions,): the share of each question in the score, see `question_values`.
        categories: the same by category, in set order.
    """

    prompt_ids: list[str]
    values: np.ndarray
    score: float
    standard_error: float
    categories: dict[str, CategoryScore]


@dataclass(frozen=True, slots=True)
class Tally:
    """Battle rows of one policy on one question: their sum and their number."""

    wins: float
    rows: int


@dataclass(frozen=True, slots=True)
class Judged:
    """What one policy is style-controlled by, both by prompt id and of the same questions.

    Attributes:
        differences: shape (4,) each, see `style_features.difference`.
    """

    tallies: Mapping[str, Tally]
    differences: Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class StyleCategory:
    """Style-controlled score of one category, with the coefficients in the order of `FEATURES`."""

    score: float
    standard_error: float
    coefficients: np.ndarray


@dataclass(frozen=True, slots=True)
class StyleScores:
    """Style-controlled score of one policy; scores and errors in [0, 1].

    Attributes:
        score: mean of the categories' scores, each weighing as many questions as it has.
        standard_error: of that mean, from the categories' own.
        values: share of each question in the score by prompt id, see `StyleControlled.values`.
    """

    score: float
    standard_error: float
    values: dict[str, float]
    categories: dict[str, StyleCategory]


def battle_rows(verdict: Verdict) -> int:
    """How many battle rows a verdict counts."""
    clear = verdict.label is not None and (">>" in verdict.label or "<<" in verdict.label)
    return CLEAR_WIN_ROWS if clear else 1


def tally(verdicts: Sequence[Verdict]) -> dict[str, Tally]:
    """Battle rows by prompt id, of the questions whose two games both have a verdict.

    A question with a failed game is left out whole: one game alone would carry the judge's position bias.
    """
    games: dict[str, dict[int, Verdict]] = {}
    for verdict in verdicts:
        if verdict.preference is not None:
            games.setdefault(verdict.prompt_id, {})[verdict.game] = verdict
    return {
        prompt_id: Tally(
            wins=sum(battle_rows(v) * (v.preference or 0.0) for v in both.values()),
            rows=sum(map(battle_rows, both.values())),
        )
        for prompt_id, both in games.items()
        if len(both) == len(GAMES)
    }


def plain_scores(categories: Mapping[str, str], tallies: Mapping[str, Tally]) -> Scores:
    """The plain score over the tallied questions.

    The standard error comes from a bootstrap that resamples questions, since the rows of one question
    belong together; resampling rows, as the original does, halves it.

    Args:
        categories: of every question of the set, by prompt id.

    Raises:
        JudgeError: no question is tallied.
    """
    ids = [prompt_id for prompt_id in categories if prompt_id in tallies]
    if not ids:
        raise JudgeError(
            f"None of {len(categories)} Arena-Hard questions has a verdict on both games.",
            "Have the failed games judged again.",
        )
    wins = np.array([tallies[prompt_id].wins for prompt_id in ids], dtype=np.float64)
    rows = np.array([tallies[prompt_id].rows for prompt_id in ids], dtype=np.float64)

    def scored(chosen: np.ndarray) -> CategoryScore:
        w, r = wins[chosen], rows[chosen]
        return CategoryScore(int(chosen.sum()), float(w.sum() / r.sum()), _standard_error(w, r))

    kinds = np.array([categories[prompt_id] for prompt_id in ids])
    whole = scored(np.ones(len(ids), dtype=bool))
    return Scores(
        prompt_ids=ids,
        values=question_values(wins, rows),
        score=whole.score,
        standard_error=whole.standard_error,
        categories={str(kind): scored(kinds == kind) for kind in dict.fromkeys(kinds.tolist())},
    )


def style_scores(
    categories: Mapping[str, str], policies: Mapping[str, Judged], normalisation: Normalisation, length: str
) -> dict[str, StyleScores]:
    """Style-controlled scores of policies that one judge judged, their style coefficients shared.

    Args:
        categories: of every question of the set, by prompt id.
        policies: by name.
        length: by which counter all lengths were taken.

    Returns:
        By name; without those that have fewer than `MIN_STYLE_QUESTIONS` questions in a category of theirs.

    Raises:
        DataError: the normalisation is of other categories or of another counter.
    """
    fitting = {name: policy for name, policy in policies.items() if _can_be_fitted(categories, policy)}
    parts: dict[str, dict[str, StyleCategory]] = {name: {} for name in fitting}
    values: dict[str, dict[str, float]] = {name: {} for name in fitting}
    for category in dict.fromkeys(categories.values()):
        of_category = [prompt_id for prompt_id, kind in categories.items() if kind == category]
        here = [name for name, p in fitting.items() if any(i in p.tallies for i in of_category)]
        ids = [i for i in of_category if any(i in fitting[name].tallies for name in here)]
        if not ids:
            continue
        battles = battles_of(ids, [fitting[name] for name in here])
        fitted = style_controlled(battles, normalisation.constants(category, length))
        for row, name in enumerate(here):
            score, error = float(fitted.scores[row]), float(fitted.standard_errors[row])
            parts[name][category] = StyleCategory(score, error, fitted.coefficients)
            values[name] |= dict(zip(ids, fitted.values[row].tolist(), strict=True))
    return {name: _together(categories, parts[name], values[name]) for name in fitting}


def battles_of(ids: Sequence[str], policies: Sequence[Judged]) -> Battles:
    """The questions of one category as arrays; what a policy was not judged on counts no rows."""
    cells = [[policy.tallies.get(i, Tally(0.0, 0)) for i in ids] for policy in policies]
    nothing = np.zeros(len(FEATURES))
    return Battles(
        wins=np.array([[cell.wins for cell in row] for row in cells], dtype=np.float64),
        rows=np.array([[cell.rows for cell in row] for row in cells], dtype=np.float64),
        differences=np.array([[policy.differences.get(i, nothing) for i in ids] for policy in policies]),
    )


def question_values(wins: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The share of each question in the score, so that their plain mean *is* the score.

    The official score is a ratio of sums, Σ wins / Σ rows, in which a question with clear verdicts weighs up
    to three times as much as one without. With R the score and r̄ the mean number of rows, question q gets

        v_q = R + (wins_q − R · rows_q) / r̄

    The mean of v is R exactly, and resampling v reproduces, to first order, the sampling error of the ratio
    (Cochran 1977, ratio estimator), so that a paired bootstrap over prompts needs no weights. Where all
    questions have equally many rows, v_q is simply wins_q / rows_q; otherwise it can leave [0, 1].

    Args:
        wins: shape (questions,), sum of the battle rows.
        rows: shape (questions,), number of battle rows.
    """
    ratio = wins.sum() / rows.sum()
    return ratio + (wins - ratio * rows) / rows.mean()


def _standard_error(wins: np.ndarray, rows: np.ndarray) -> float:
    draws = np.random.default_rng(0).integers(0, len(wins), size=(BOOTSTRAPS, len(wins)))
    return float((wins[draws].sum(axis=1) / rows[draws].sum(axis=1)).std(ddof=1))


def _can_be_fitted(categories: Mapping[str, str], policy: Judged) -> bool:
    return min(Counter(categories[i] for i in policy.tallies).values(), default=0) >= MIN_STYLE_QUESTIONS


def _together(
    categories: Mapping[str, str], parts: dict[str, StyleCategory], values: dict[str, float]
) -> StyleScores:
    counts = Counter(categories[prompt_id] for prompt_id in values)
    shares = {category: counts[category] / len(values) for category in parts}
    return StyleScores(
        score=sum(shares[category] * part.score for category, part in parts.items()),
        standard_error=math.hypot(
            *(shares[category] * part.standard_error for category, part in parts.items())
        ),
        values=values,
        categories=parts,
    )
