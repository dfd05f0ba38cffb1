"""How reward goes with the distance from the initial policy: the fits of Gao et al. 2023.

"Scaling laws for reward model overoptimization", with d = √KL in √nats:

    best of n                R(d) = d (α − β d)
    reinforcement learning   R(d) = d (α − β log d)

R is reward gained over the initial policy, so R(0) = 0. Both are linear in α and β: plain least squares, in
which a point at d = 0 has no say. With β > 0 the curve turns, at d = α / 2β and d = exp(α / β − 1): what is
gained by going farther in proxy reward is lost in gold reward.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Form = Literal["best_of_n", "rl"]

Points = tuple[np.ndarray, np.ndarray]
"""Distances d > 0 and the rewards gained there, both of shape (n,)."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted curve.

    Attributes:
        form: which of the two formulas.
        alpha: reward per √nat (α).
        beta: β, in the same unit times 1/√nat for best of n.
        r_squared: share of the variance between the points that the curve explains, negative where their mean
            would do better; None where all points are equal.
        residual_sd: standard deviation of the points around the curve, with n − 2 degrees of freedom.
    """

    form: Form
    alpha: float
    beta: float
    r_squared: float | None
    residual_sd: float

    def at(self, distances: np.ndarray) -> np.ndarray:
        """Reward gained at these distances, shape (n,)."""
        return design(self.form, distances) @ np.array([self.alpha, self.beta])

    @property
    def turn(self) -> float:
        """The distance at which the curve is highest; see `turns`."""
        return float(turns(self.form, np.array([[self.alpha, self.beta]]))[0])


def design(form: Form, distances: np.ndarray) -> np.ndarray:
    """What α and β are multiplied with at each distance, shape (n, 2)."""
    positive = np.where(distances > 0, distances, 1.0)
    bend = distances**2 if form == "best_of_n" else distances * np.log(positive)
    return np.stack([distances, -bend], axis=1)


def turns(form: Form, coefficients: np.ndarray) -> np.ndarray:
    """Where curves are highest, shape (n,): infinite where a curve has no turn (β ≤ 0), 0 where it falls from
    the start.

    Args:
        coefficients: α and β of each, shape (n, 2).
    """
    alpha, beta = coefficients.T
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        places = np.maximum(alpha / (2 * beta), 0.0) if form == "best_of_n" else np.exp(alpha / beta - 1)
    return np.where(beta > 0, places, np.inf)


def fit(form: Form, points: Points) -> Fit | None:
    """Least squares; None with fewer than three points, or all at one distance."""
    distances, gains = points
    if len(gains) < 3 or not _settled(form, distances):
        return None
    alpha, beta = _least_squares(form, points)
    residual = float(((gains - design(form, distances) @ [alpha, beta]) ** 2).sum())
    total = float(((gains - gains.mean()) ** 2).sum())
    return Fit(
        form=form,
        alpha=float(alpha),
        beta=float(beta),
        r_squared=1 - residual / total if total > 0 else None,
        residual_sd=float(np.sqrt(residual / (len(gains) - 2))),
    )


def together(seeds: Sequence[Points]) -> Points:
    """The points of all seeds as one set."""
    return np.concatenate([d for d, _ in seeds]), np.concatenate([gains for _, gains in seeds])


def draws(form: Form, seeds: Sequence[Points], bootstraps: int = 2000, seed: int = 0) -> np.ndarray:
    """What α and β could have been with other seeds and other samples, shape (bootstraps, 2).

    Seeds are drawn with replacement, each with the curve fitted to it alone. Of S seeds the deviations from
    the common curve are stretched by √(S / (S − 1)), because that curve lies closer to them than to others.
    To the common curve of those drawn the noise of points around each seed's curve is added: normal, with a
    variance, pooled over seeds, that is itself drawn from what its degrees of freedom leave open. So of one
    seed the intervals of α and β are Student's, and hold nothing of training luck.

    Args:
        seeds: at least one, each of which `fit` can fit.
        seed: of the random numbers; the same seed gives the same draws.
    """
    rng = np.random.default_rng(seed)
    designs = [design(form, distances) for distances, _ in seeds]
    own = np.array([_least_squares(form, points) for points in seeds])
    common = np.array(_least_squares(form, together(seeds)))
    squares = [
        float(((gains - x @ c) ** 2).sum()) for x, c, (_, gains) in zip(designs, own, seeds, strict=True)
    ]
    degrees = sum(len(x) - 2 for x in designs)
    count = len(seeds)
    stretched = common + (np.sqrt(count / (count - 1)) if count > 1 else 0.0) * (own - common)
    # Normal equations of each seed; those of a draw are sums over the seeds drawn.
    information = np.array([x.T @ x for x in designs])
    moments = (information @ stretched[:, :, None])[:, :, 0]
    times = rng.multinomial(count, np.full(count, 1 / count), size=bootstraps).astype(float)
    inverse = np.linalg.inv(np.tensordot(times, information, axes=1))
    drawn = (inverse @ (times @ moments)[:, :, None])[:, :, 0]
    scale = np.sqrt(sum(squares) / rng.chisquare(degrees, size=(bootstraps, 1)))
    noise = np.linalg.cholesky(inverse) @ rng.standard_normal((bootstraps, 2, 1))
    return drawn + scale * noise[:, :, 0]


def _settled(form: Form, distances: np.ndarray) -> bool:
    """Whether points at these distances settle both α and β, up to rounding."""
    columns = design(form, distances)
    sizes = np.linalg.norm(columns, axis=0)
    return bool(sizes.all() and np.linalg.svd(columns / sizes, compute_uv=False)[-1] > 1e-6)


def _least_squares(form: Form, points: Points) -> np.ndarray:
    """α and β."""
    distances, gains = points
    return np.linalg.lstsq(design(form, distances), gains, rcond=None)[0]
