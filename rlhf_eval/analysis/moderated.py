"""Variances of several groups, each known from few observations: a group's own, moderated by all of them."""

import numpy as np

SMALLEST = 1e-4
"""Of the pooled variance: a variance of zero, from runs that came out alike, has no logarithm."""


def moderated(variances: np.ndarray, degrees: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Posterior variances and their degrees of freedom, each of shape (groups,): empirical Bayes with a
    scaled inverse χ² prior, whose scale and degrees are found from all groups (Smyth 2004, §3 and §6.2).

    Groups that differ no more than by chance share one pooled variance; the more they differ beyond that, the
    more of its own each keeps. A group without degrees of its own has the prior's.

    Args:
        variances: shape (groups,), sample variances; of no matter where `degrees` is 0.
        degrees: shape (groups,), of freedom; at least one above 0.
    """
    from scipy.special import digamma, polygamma

    known = degrees > 0
    total = degrees.sum()
    pooled = float((degrees * variances)[known].sum() / total)
    everywhere = np.full(len(degrees), pooled), np.full(len(degrees), float(total))
    if known.sum() < 2 or pooled == 0:
        return everywhere
    half = degrees[known] / 2
    logs = np.log(np.maximum(variances[known], SMALLEST * pooled)) - digamma(half) + np.log(half)
    surplus = logs.var(ddof=1) - polygamma(1, half).mean()
    if surplus <= 0:
        return everywhere
    prior = 2 * _inverse_trigamma(float(surplus))
    if prior >= total:
        return everywhere
    scale = float(np.exp(logs.mean() + digamma(prior / 2) - np.log(prior / 2)))
    own = np.where(known, degrees * variances, 0.0)
    return (prior * scale + own) / (prior + degrees), prior + degrees


def _inverse_trigamma(value: float) -> float:
    """Where the trigamma function has a value above 0 (Newton's method, Smyth 2004, appendix)."""
    from scipy.special import polygamma

    argument = 0.5 + 1 / value
    for _ in range(50):
        trigamma = polygamma(1, argument)
        step = trigamma * (1 - trigamma / value) / polygamma(2, argument)
        argument += step
        if -step < 1e-10 * argument:
            break
    return float(argument)
