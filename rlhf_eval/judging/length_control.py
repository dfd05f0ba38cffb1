"""AlpacaEval 2's length-controlled win rate (Dubois et al. 2024, arXiv:2404.04475), deterministic.

A logistic regression explains who wins by the difference in length, by the instruction's difficulty and by
a constant; the length-controlled win rate is what it predicts when both answers are equally long. With
Δ = characters of the baseline's answer − characters of the policy's answer and sd its standard deviation
(n − 1), the linear predictor is

    θ₁·tanh(Δ / sd) + θ₂·difficulty + θ₃

fitted with an L1 penalty (liblinear) on every row twice, with label 1 at weight p and label 0 at weight
1 − p, p being the preference. The penalty's weight is chosen among ten by five-fold cross-validation of the
log loss. For the judge it was fitted to, a *regulariser* joins: two gamed versions of the baseline judged
against itself, at weight 0.1 a row and without the constant θ₃.

Two departures from the official code, both for the better: features belong to their row and are never
joined by position, and the spread is the sampling error of the estimate (see `LengthControlled.values`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

PENALTY_GRID = np.logspace(-4, 4, 10)
FOLDS = 5
REGULARISER_WEIGHT = 0.1
SEED = 123
"""Seed of liblinear's coordinate order; the official fit's, so that the numbers agree to rounding."""


@dataclass(frozen=True, slots=True)
class Regulariser:
    """The rows of AlpacaEval's `df_gamed.csv`, each of shape (rows,).

    Attributes:
        preference: in [0, 1], 1 = the gamed answer wins.
        length: Δ / sd, standardised by those who made the file.
        difficulty: of the instruction.
    """

    preference: np.ndarray
    length: np.ndarray
    difficulty: np.ndarray


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """A length-controlled win rate.

    Attributes:
        win_rate: in [0, 1].
        standard_error: of `win_rate`, over prompts; at most 0.5, the largest that a share can have. It is
            that large where the answers are all longer, or all shorter, than the baseline's: nothing then
            tells length from merit.
        values: shape (prompts,), in the order given: the share of each prompt in the estimate. Their mean is
            `win_rate`, and a bootstrap over them approximates, to first order, refitting on resampled
            prompts (infinitesimal jackknife; Efron 1982). A single value can lie outside [0, 1].
        fit: the terms used, in words.
    """

    win_rate: float
    standard_error: float
    values: np.ndarray
    fit: str


def length_controlled(
    preference: ArrayLike,
    length_difference: ArrayLike,
    difficulty: ArrayLike | None = None,
    regulariser: Regulariser | None = None,
) -> LengthControlled | None:
    """The length-controlled win rate of one policy.

    Args:
        preference: shape (prompts,), in [0, 1], 1 = the policy wins. The rows stand in the order of the
            evaluation set: the folds of the cross-validation depend on it.
        length_difference: shape (prompts,), characters of the baseline's answer minus the policy's.
        difficulty: shape (prompts,); None leaves the term out (also of the regulariser).
        regulariser: only where the judge is the one it was fitted to.

    Returns:
        None if there are fewer prompts than folds, so that there is nothing to fit.
    """
    y = np.asarray(preference, dtype=np.float64)
    if len(y) < FOLDS:
        return None
    delta = np.asarray(length_difference, dtype=np.float64)
    spread = delta.std(ddof=1)
    length = np.tanh(delta / spread) if spread > 0 else np.zeros_like(delta)
    middle = [] if difficulty is None else [np.asarray(difficulty, dtype=np.float64)]
    own = np.column_stack([length, *middle, np.ones_like(y)])
    features, target, weight = own, y, np.ones_like(y)
    if regulariser is not None:
        gamed = _gamed_features(regulariser, with_difficulty=difficulty is not None)
        features = np.vstack([gamed, own])
        target = np.concatenate([regulariser.preference, y])
        weight = np.concatenate([np.full(len(gamed), REGULARISER_WEIGHT), weight])
    theta = _fit(features, target, weight)
    at_equal_length = own.copy()
    at_equal_length[:, 0] = 0.0
    prediction = _logistic(at_equal_length @ theta)
    known = regulariser is not None or bool(delta.min() <= 0 <= delta.max())
    values = prediction + _influence(own, y, at_equal_length, features, weight, theta, known)
    return LengthControlled(
        win_rate=float(prediction.mean()),
        standard_error=min(0.5, float(values.std(ddof=1) / np.sqrt(len(values)))),
        values=values,
        fit=f"{_with(regulariser)} regulariser, {_with(difficulty)} difficulty",
    )


def _with(term: object | None) -> str:
    return "without" if term is None else "with"


def _gamed_features(regulariser: Regulariser, with_difficulty: bool) -> np.ndarray:
    length, no_constant = np.tanh(regulariser.length), np.zeros_like(regulariser.length)
    middle = [regulariser.difficulty] if with_difficulty else []
    return np.column_stack([length, *middle, no_constant])


def _fit(features: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Coefficients, shape (features,), at the penalty with the best mean log loss over the folds."""
    rows = np.arange(len(target))
    twice = np.concatenate([rows, rows])
    label = np.repeat([1, 0], len(rows))
    # Neither label may vanish: liblinear drops rows of weight zero and cannot fit a single class.
    uncertain = np.clip(target, 1e-12, 1 - 1e-12)
    probability = np.concatenate([uncertain, 1 - uncertain])

    def coefficients(chosen: np.ndarray, penalty: float, random: np.random.RandomState) -> np.ndarray:
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(
            l1_ratio=1.0, C=penalty, solver="liblinear", fit_intercept=False, random_state=random
        )
        model.fit(features[twice[chosen]], label[chosen], sample_weight=(probability * weight[twice])[chosen])
        return model.coef_[0]

    # What GroupKFold does with groups of equal size: the last row goes to the first fold, and so on round.
    fold = (len(rows) - 1 - rows) % FOLDS
    loss = np.zeros((FOLDS, len(PENALTY_GRID)))
    for k in range(FOLDS):
        random = np.random.RandomState(SEED)
        train, test = np.flatnonzero(fold[twice] != k), np.flatnonzero(fold == k)
        for j, penalty in enumerate(PENALTY_GRID):
            predicted = _logistic(features[test] @ coefficients(train, penalty, random))
            loss[k, j] = np.mean(weight[test] * _log_loss(target[test], predicted))
    best = PENALTY_GRID[np.argmin(loss.mean(axis=0))]
    return coefficients(np.arange(len(twice)), best, np.random.RandomState(SEED))


def _influence(
    own: np.ndarray,
    target: np.ndarray,
    at_equal_length: np.ndarray,
    features: np.ndarray,
    weight: np.ndarray,
    theta: np.ndarray,
    known: bool,
) -> np.ndarray:
    """How far each prompt moves the mean prediction through the coefficients, times the number of prompts.

    First-order change of the weighted log loss's minimum when one prompt's weight changes. Coefficients that
    the penalty holds at zero move with the others: to take them as known would make the estimate look exact.
    Centred, so that the mean of the estimate is kept exactly.

    Args:
        known: whether equal length lies among the lengths that were seen; the shape of tanh alone says what
            comes out beyond them.
    """
    fitted = _logistic(features @ theta)
    hessian = (features * (weight * fitted * (1 - fitted))[:, None]).T @ features
    predicted = _logistic(at_equal_length @ theta)
    gradient = (at_equal_length * (predicted * (1 - predicted))[:, None]).mean(axis=0)
    score = own * (target - _logistic(own @ theta))[:, None]
    inverse = np.linalg.pinv(hessian)
    if not known or not np.allclose(hessian @ inverse @ gradient, gradient):
        # The rows do not determine the rate at equal length: tanh or the penalty chose one. Shares of either
        # sign that give the largest standard error say so to whoever resamples them.
        influence = np.sqrt(len(target)) * np.where(np.arange(len(target)) % 2, -0.5, 0.5)
    else:
        influence = len(target) * score @ inverse @ gradient
    return influence - influence.mean()


def _logistic(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -x))


def _log_loss(target: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    predicted = np.clip(predicted, 1e-15, 1 - 1e-15)
    return -(target * np.log(predicted) + (1 - target) * np.log(1 - predicted))
