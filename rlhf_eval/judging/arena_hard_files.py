"""Scores of judgments in Arena-Hard's published format, without a judge and without a network."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_eval.errors import DataError
from rlhf_eval.judging.arena_hard import named_normalisation
from rlhf_eval.judging.arena_hard_answers import answers_by_id
from rlhf_eval.judging.arena_hard_judgments import Judgments, read_judgments
from rlhf_eval.judging.arena_hard_scores import (
    Judged,
    Scores,
    StyleScores,
    Tally,
    battles_of,
    plain_scores,
    style_scores,
    tally,
)
from rlhf_eval.judging.style_features import FEATURES, OWN_LENGTH, PUBLISHED_LENGTH, difference, style
from rlhf_eval.judging.style_normalisation import Normalisation, pool_constants
from rlhf_eval.judging.verdicts import refuse_if_too_many_failed

MAX_FAILED_SHARE = 0.02
NO_ANSWERS = "not fitted: it needs the answers of the model and of its baselines"
TOO_FEW = "not fitted: too few questions"


def score_judgments(
    judgments: str, assets: Path | None = None, max_failed_share: float = MAX_FAILED_SHARE
) -> dict[str, Any]:
    """Scores of one file of judgments in percent, see `score_models`.

    Args:
        assets: folder laid out like arena-hard-auto's `data/arena-hard-v2.0`: `question.jsonl`, against which
            the judgments are checked, and `model_answer/<model>.jsonl`, which style control needs; each also
            `.gz`.
    """
    questions = find(assets, "question.jsonl") if assets else None
    if assets and questions is None:
        raise DataError(
            f"{assets} holds no question.jsonl.", "Name the folder of arena-hard-auto's data set."
        )
    read = read_judgments(judgments, questions)
    named = {read.model, *read.baselines.values()}
    answers = (
        {name: find(assets, f"model_answer/{Path(name).name}.jsonl") for name in named} if assets else {}
    )
    return score_models([read], answers, max_failed_share=max_failed_share)[0]


def find(folder: Path, name: str) -> str | None:
    """The file of that name in a folder, as it is or compressed."""
    places = (folder / name, folder / f"{name}.gz")
    return next((str(place) for place in places if place.is_file()), None)


def score_models(
    judged: Sequence[Judgments],
    answers: Mapping[str, str | None],
    normalisation: str | None = None,
    max_failed_share: float = MAX_FAILED_SHARE,
) -> list[dict[str, Any]]:
    """Plain and style-controlled scores of models that one judge judged, in percent, in the order given.

    Style control fits all models together, as arena-hard-auto does. Lengths are the published `token_len` if
    every answer of every model concerned has one, else `style_features.OWN_LENGTH` for all of them.

    Args:
        answers: source of each model's and each baseline's answers by model; models without are not
            style-controlled.
        normalisation: source of frozen style constants; None reads scores off at answers of equal style.

    Returns:
        For each model `model, judge, baseline, n` (questions scored), `failed` (questions left out), `score,
        standard_error, style_controlled_score, style_controlled_standard_error, style_control` (how it was
        fitted, or why not) and `categories`, the same by category.

    Raises:
        DataError: several judges, one model twice, answers that do not belong to the questions, or constants
            of another kind.
        JudgeError: more than `max_failed_share` of a model's verdicts failed.
    """
    _require_one_judge(judged)
    for of_model in judged:
        refuse_if_too_many_failed(of_model.verdicts, max_failed_share)
    tallies = {of_model.model: tally(of_model.verdicts) for of_model in judged}
    categories = {i: category for of_model in judged for i, category in of_model.categories.items()}
    constants = named_normalisation(normalisation)
    policies, length = _styled(judged, tallies, answers)
    controlled = style_scores(categories, policies, constants, length)
    fitted = f"length as {length}, read off at {constants.name}, models fitted together: {len(controlled)}"
    return [
        _result(
            of_model,
            plain_scores(of_model.categories, tallies[of_model.model]),
            controlled.get(of_model.model),
            fitted if of_model.model in controlled else TOO_FEW if of_model.model in policies else NO_ANSWERS,
        )
        for of_model in judged
    ]


def pool_normalisation(name: str, judged: Sequence[Judgments], answers: Mapping[str, str]) -> Normalisation:
    """The style constants of a pool of models, by category, as arena-hard-auto would take them from it.

    Args:
        name: of the pool, for results to say so.

    Raises:
        DataError: answers are missing, or do not vary in some feature.
    """
    tallies = {of_model.model: tally(of_model.verdicts) for of_model in judged}
    policies, length = _styled(judged, tallies, answers)
    if len(policies) < len(judged):
        raise DataError(
            f"{len(judged) - len(policies)} of {len(judged)} models of the pool have no answers.",
            "Give the answers of all of them and of their baselines.",
        )
    categories = {i: category for of_model in judged for i, category in of_model.categories.items()}
    constants = {}
    for category in dict.fromkeys(categories.values()):
        ids = [i for i, kind in categories.items() if kind == category]
        battles = battles_of(ids, list(policies.values()))
        constants[category] = pool_constants(battles.differences, battles.rows)
    return Normalisation(name, length, constants)


def _require_one_judge(judged: Sequence[Judgments]) -> None:
    judges = sorted({of_model.judge for of_model in judged})
    twice = [name for name, count in Counter(of_model.model for of_model in judged).items() if count > 1]
    if len(judges) != 1 or twice:
        what = f"model {twice[0]} stands twice" if twice else f"{len(judges)} judges: {', '.join(judges)}"
        raise DataError(f"Judgments cannot be scored together: {what}.", "Score each judge by itself.")


def _styled(
    judged: Sequence[Judgments],
    tallies: Mapping[str, Mapping[str, Tally]],
    answers: Mapping[str, str | None],
) -> tuple[dict[str, Judged], str]:
    """The models whose answers and baselines are there, and by which counter lengths were taken."""
    with_answers = [
        of_model
        for of_model in judged
        if all(answers.get(name) for name in (of_model.model, *of_model.baselines.values()))
    ]
    wanted: dict[str, dict[str, None]] = {}
    for of_model in with_answers:
        for uid in tallies[of_model.model]:
            for name in (of_model.model, of_model.baselines[of_model.categories[uid]]):
                wanted.setdefault(name, {})[uid] = None
    loaded = {name: answers_by_id(str(answers[name]), ids) for name, ids in wanted.items()}
    counted = all(answer.style is not None for of_name in loaded.values() for answer in of_name.values())

    def measured(name: str, uid: str) -> np.ndarray:
        answer = loaded[name][uid]
        return answer.style if counted and answer.style is not None else style(answer.text)

    policies = {
        of_model.model: Judged(
            tallies=tallies[of_model.model],
            differences={
                uid: difference(
                    measured(of_model.model, uid), measured(of_model.baselines[of_model.categories[uid]], uid)
                )
                for uid in tallies[of_model.model]
            },
        )
        for of_model in with_answers
    }
    return policies, PUBLISHED_LENGTH if counted else OWN_LENGTH


def _result(of_model: Judgments, plain: Scores, controlled: StyleScores | None, note: str) -> dict[str, Any]:
    asked = Counter(of_model.categories.values())
    categories = {}
    for category, part in plain.categories.items():
        fitted = controlled.categories[category] if controlled else None
        categories[category] = {
            "n": part.questions,
            "failed": asked[category] - part.questions,
            "baseline": of_model.baselines[category],
            "score": 100 * part.score,
            "standard_error": 100 * part.standard_error,
            "style_controlled_score": 100 * fitted.score if fitted else None,
            "style_controlled_standard_error": 100 * fitted.standard_error if fitted else None,
            "style_coefficients": dict(zip(FEATURES, fitted.coefficients.tolist(), strict=True))
            if fitted
            else None,
        }
    return {
        "model": of_model.model,
        "judge": of_model.judge,
        "baseline": ", ".join(sorted(set(of_model.baselines.values()))),
        "n": len(plain.prompt_ids),
        "failed": len(of_model.categories) - len(plain.prompt_ids),
        "score": 100 * plain.score,
        "standard_error": 100 * plain.standard_error,
        "style_controlled_score": 100 * controlled.score if controlled else None,
        "style_controlled_standard_error": 100 * controlled.standard_error if controlled else None,
        "style_control": note,
        "categories": categories,
    }
