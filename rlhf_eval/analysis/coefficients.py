"""Correlation coefficients along the last axis, for many bootstrap draws at once."""

import numpy as np


def pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's r along the last axis; NaN where an axis is constant."""
    x = x - x.mean(axis=-1, keepdims=True)
    y = y - y.mean(axis=-1, keepdims=True)
    scale = np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1))
    return np.divide((x * y).sum(axis=-1), scale, out=np.full(np.shape(scale), np.nan), where=scale > 1e-12)


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's ρ along the last axis: Pearson's r of mid-ranks."""
    from scipy.stats import rankdata

    return pearson(rankdata(x, axis=-1), rankdata(y, axis=-1))


def kendall(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Kendall's τ-b along the last axis: the cosine of the signs of all pairwise differences."""
    one, other = np.triu_indices(np.shape(x)[-1], k=1)
    dx, dy = np.sign(x[..., one] - x[..., other]), np.sign(y[..., one] - y[..., other])
    scale = np.sqrt((dx**2).sum(axis=-1) * (dy**2).sum(axis=-1))
    return np.divide((dx * dy).sum(axis=-1), scale, out=np.full(np.shape(scale), np.nan), where=scale > 0)
