"""Correlation coefficients along the last axis, for many samples at once, and the same without each point."""

from collections.abc import Callable

import numpy as np

CONSTANT = 1e-12
"""An axis whose values differ by less than this share of their size is constant."""


def pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's r along the last axis; NaN where an axis is constant."""
    x, y = centred(x), centred(y)
    return _ratio((x * y).sum(axis=-1), (x**2).sum(axis=-1), (y**2).sum(axis=-1))


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's ρ along the last axis: Pearson's r of mid-ranks."""
    from scipy.stats import rankdata

    return pearson(rankdata(x, axis=-1), rankdata(y, axis=-1))


def kendall(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Kendall's τ-b along the last axis: the cosine of the signs of all pairwise differences."""
    one, other = np.triu_indices(np.shape(x)[-1], k=1)
    dx, dy = np.sign(x[..., one] - x[..., other]), np.sign(y[..., one] - y[..., other])
    return _ratio((dx * dy).sum(axis=-1), (dx**2).sum(axis=-1), (dy**2).sum(axis=-1))


COEFFICIENTS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "pearson": pearson,
    "spearman": spearman,
    "kendall": kendall,
}


def pearson_without_each(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's r with one point left out, shape (…, n): entry i is that without point i."""
    x, y = centred(x), centred(y)
    n = x.shape[-1]

    def without(products: np.ndarray) -> np.ndarray:
        """Σ (a − ā)(b − b̄) without each point, from the products of deviations from all points' means."""
        left = products.sum(axis=-1, keepdims=True) - n / (n - 1) * products
        return np.where(np.abs(left) < 1e-13 * n, 0.0, left)

    return _ratio(without(x * y), without(x * x), without(y * y))


def spearman_without_each(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's ρ with one point left out, shape (…, n): the others are ranked anew."""
    n = x.shape[-1]
    return np.stack([spearman(np.delete(x, i, axis=-1), np.delete(y, i, axis=-1)) for i in range(n)], axis=-1)


def kendall_without_each(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Kendall's τ-b with one point left out, shape (…, n)."""
    dx = np.sign(x[..., :, None] - x[..., None, :])
    dy = np.sign(y[..., :, None] - y[..., None, :])

    def without(products: np.ndarray) -> np.ndarray:
        of_point = products.sum(axis=-1)
        return of_point.sum(axis=-1, keepdims=True) - 2 * of_point

    return _ratio(without(dx * dy), without(dx**2), without(dy**2))


WITHOUT_EACH: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "pearson": pearson_without_each,
    "spearman": spearman_without_each,
    "kendall": kendall_without_each,
}


def centred(x: np.ndarray) -> np.ndarray:
    """Deviations from the mean, the largest 1 in size; all 0 where the axis is constant."""
    x = np.asarray(x, dtype=np.float64)
    size = np.abs(x).max(axis=-1, keepdims=True)
    x = x / np.where(size > 0, size, 1.0)
    deviations = x - x.mean(axis=-1, keepdims=True)
    largest = np.abs(deviations).max(axis=-1, keepdims=True)
    return np.where(largest > CONSTANT, deviations / np.where(largest > 0, largest, 1.0), 0.0)


def _ratio(products: np.ndarray, x_squares: np.ndarray, y_squares: np.ndarray) -> np.ndarray:
    scale = np.sqrt(np.asarray(x_squares * y_squares))
    ratio = np.divide(products, scale, out=np.full(np.shape(scale), np.nan), where=scale > 0)
    return np.clip(ratio, -1.0, 1.0)
