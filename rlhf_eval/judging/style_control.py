"""Style control of Arena-Hard: Bradley–Terry strengths with the effect of style taken out.

Li et al. 2024, arXiv:2406.11939; arena-hard-auto's `show_result.py` and `utils/math_utils.py`. With
y the outcome of one battle row, β_m the strength of model m over its baseline and z the standardised style
difference (`style_features.difference`), P(y = 1) = σ(β_m + z·γ), fitted by maximum likelihood over all rows
of all models, γ shared; the style-controlled score is σ(β_m).

All rows of one model on one question share z, so that their number and their sum are sufficient, and a
bootstrap over questions multiplies both. Every bootstrap is a full refit, by Newton's method from the fit of
the whole, several at once.
"""

from dataclasses import dataclass

import numpy as np

from rlhf_eval.judging.style_features import FEATURES
from rlhf_eval.judging.style_normalisation import Constants

BOOTSTRAPS = 1000
RIDGE = 1e-6
"""Penalty ½·RIDGE·|θ|²: gives a model that loses every row, or a feature that never varies, a finite fit. Of
no influence elsewhere: it stands beside some hundred battle rows."""
TOLERANCE = 1e-6
"""Newton's method ends when no parameter moves by more; the error left is of the order of its square."""
MAX_STEPS = 200
CELLS = 50_000
"""Bootstraps × models × questions that are fitted at once: as many as stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Battles:
    """The verdicts of one category on some models, on the questions of the set.

    Attributes:
        wins: shape (models, questions), sum of the battle rows.
        rows: shape (models, questions), their number; 0 where a question is not scored.
        differences: shape (models, questions, 4), see `style_features.difference`; 0 where rows is 0.
    """

    wins: np.ndarray
    rows: np.ndarray
    differences: np.ndarray


@dataclass(frozen=True, slots=True)
class StyleControlled:
    """Style-controlled scores of the models of one `Battles`; scores and errors in [0, 1].

    Attributes:
        scores: shape (models,).
        standard_errors: shape (models,), from a bootstrap over questions.
        values: shape (models, questions), the share of each question in the score: their mean is the score,
            and their spread its sampling error to first order (infinitesimal jackknife), so that policies
            can be compared by a paired bootstrap over prompts. Single ones can leave [0, 1].
        coefficients: γ in the order of `FEATURES`, per unit of the standardised difference.
    """

    scores: np.ndarray
    standard_errors: np.ndarray
    values: np.ndarray
    coefficients: np.ndarray


def style_controlled(battles: Battles, constants: Constants, bootstraps: int = BOOTSTRAPS) -> StyleControlled:
    """Fit strengths and style coefficients, and their sampling error over questions.

    Args:
        battles: every model has at least one battle row.
        constants: by which differences are standardised; scores are read off at their mean.
    """
    models, questions = battles.rows.shape
    design = np.concatenate(
        [np.ones((models, questions, 1)), constants.standardised(battles.differences)], axis=2
    )
    once = np.ones((1, questions))
    fitted = _fit(battles, design, once, np.zeros((1, models + len(FEATURES))))
    draws = np.random.default_rng(0).multinomial(questions, np.full(questions, 1 / questions), bootstraps)
    block = max(1, CELLS // battles.rows.size)
    resampled = np.concatenate(
        [_fit(battles, design, draws[i : i + block], fitted) for i in range(0, bootstraps, block)]
    )
    scores = _sigmoid(fitted[0, :models])
    return StyleControlled(
        scores=scores,
        standard_errors=_sigmoid(resampled[:, :models]).std(axis=0, ddof=1),
        values=_values(battles, design, fitted, scores),
        coefficients=fitted[0, models:],
    )


def _fit(battles: Battles, design: np.ndarray, counts: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Maximum-likelihood parameters (β, γ) of several samples of questions at once.

    Args:
        design: shape (models, questions, 5), a one and the standardised differences.
        counts: shape (samples, questions), how often each question stands in each sample.
        start: shape (1 or samples, models + 4).

    Returns:
        Shape (samples, models + 4).
    """
    models, questions, width = design.shape
    squares = (design[..., :, None] * design[..., None, :]).reshape(models, questions, width * width)
    rows = counts * battles.rows[:, None, :]
    won = np.matmul(counts * battles.wins[:, None, :], design)
    theta = np.repeat(start, len(counts) // len(start), axis=0)
    log_odds = _log_odds(theta, design)
    for _ in range(MAX_STEPS):
        expected = _sigmoid(log_odds)
        lost = rows * expected
        gradient = _joined(won - np.matmul(lost, design)) - RIDGE * theta
        lost *= 1 - expected
        information = _information(np.matmul(lost, squares), models, width)
        step = np.linalg.solve(information, gradient[..., None])[..., 0]
        direction = _log_odds(step, design)
        # Newton's step, shortened where it would move any log-odds by more than 1: so it converges from
        # anywhere (Sun and Tran-Dinh 2019, Mathematical Programming 178, on the logistic loss).
        reach = np.maximum(direction.max(axis=(0, 2)), -direction.min(axis=(0, 2)))
        length = np.where(reach > 1, np.log1p(reach) / np.maximum(reach, 1), 1)
        theta = theta + length[:, None] * step
        log_odds += length[:, None] * direction
        if np.abs(step).max() < TOLERANCE:
            break
    return theta


def _log_odds(theta: np.ndarray, design: np.ndarray) -> np.ndarray:
    """Of a win of every model on every question, shape (models, samples, questions)."""
    models = len(design)
    style = np.matmul(theta[:, models:], design[..., 1:].transpose(0, 2, 1))
    return theta[:, :models].T[:, :, None] + style


def _joined(parts: np.ndarray) -> np.ndarray:
    """Sums by model, (models, samples, 5) → (samples, models + 4): a strength each, style of all together."""
    return np.concatenate([parts[..., 0].T, parts[..., 1:].sum(axis=0)], axis=1)


def _information(curvature: np.ndarray, models: int, width: int) -> np.ndarray:
    """The information matrices, shape (samples, models + 4, models + 4), from each model's 5 × 5 part."""
    parts = curvature.reshape(models, -1, width, width)
    size = models + width - 1
    matrix = np.zeros((parts.shape[1], size, size))
    every = np.arange(models)
    matrix[:, every, every] = parts[..., 0, 0].T
    matrix[:, :models, models:] = parts[..., 0, 1:].transpose(1, 0, 2)
    matrix[:, models:, :models] = parts[..., 1:, 0].transpose(1, 2, 0)
    matrix[:, models:, models:] = parts[..., 1:, 1:].sum(axis=0)
    return matrix + RIDGE * np.eye(size)


def _values(battles: Battles, design: np.ndarray, fitted: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Score + questions × its derivative by each question's weight, shape (models, questions)."""
    models, questions, width = design.shape
    expected = _sigmoid(_log_odds(fitted, design))[:, 0]
    surprise = (battles.wins - battles.rows * expected)[..., None] * design
    by_question = _joined(surprise)
    squares = design[..., :, None] * design[..., None, :]
    spread = battles.rows * expected * (1 - expected)
    curvature = np.einsum("mq,mqij->mij", spread, squares).reshape(models, 1, width * width)
    moved = np.linalg.solve(_information(curvature, models, width)[0], by_question.T)[:models]
    shares = questions * (scores * (1 - scores))[:, None] * moved
    return scores[:, None] + shares - shares.mean(axis=1, keepdims=True)


def _sigmoid(log_odds: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(−x)); 0 where that overflows."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-log_odds))
