"""Where the noise of a score comes from: variance components of a pilot, or a prior in their place.

The value of reward model g's seed s on prompt p is

    y_gsp = μ_g + π_p + (gp) + a_gs + e_gsp

with π_p the hardness of the prompt, which is the same for all and cancels from differences; (gp) how well a
reward model's policies do on this prompt in particular; a_gs the luck of a training; e_gsp the rest: a
training's luck on one prompt, sampling, the judge. Seeds stand within reward models, prompts are crossed with
both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlhf_eval.analysis.metrics import METRICS
from rlhf_eval.analysis.run_record import RunRecord
from rlhf_eval.analysis.scores import value_matrix
from rlhf_eval.errors import DataError


@dataclass(frozen=True, slots=True)
class Components:
    """Standard deviations in points of percent of a score; see the module.

    Attributes:
        seed: of a_gs; None where no reward model of a pilot has two seeds.
        prompt: of (gp).
        residual: of e_gsp; None as `seed`, and then `prompt` holds it.
        seed_degrees: of freedom with which `seed` is known; None for a prior.
        notes: what a reader must know of these numbers.
    """

    seed: float | None
    prompt: float
    residual: float | None
    seed_degrees: int | None = None
    notes: tuple[str, ...] = ()


PRIOR = Components(seed=1.5, prompt=20.0, residual=22.0)
"""Where there is no pilot. `prompt` and `residual` together make 30 points: over AlpacaEval's 805 prompts the
difference of two published models, of win rates of 30 and 71 %, has a standard deviation of 30 √2 (22 √2 to
33 √2 for win rates of 14 to 77 %; annotations of gpt-4-1106-preview). How that divides, about in half, and
the 1.5 points of `seed` are assumptions: a pilot with two seeds replaces them."""


def estimate_components(values: np.ndarray, groups: np.ndarray) -> Components:
    """Variance components by analysis of variance, unbiased but for the cut at zero (Searle, Casella and
    McCulloch 1992, §4.7; unequal numbers of seeds by unweighted means of cells).

    Args:
        values: shape (prompts, runs), percent; prompts with a NaN are left out.
        groups: shape (runs,), integers 0 … G−1: whose seed a run is; pooled over them.

    Raises:
        DataError: fewer than two prompts without a NaN.
    """
    values = values[~np.isnan(values).any(axis=1)]
    prompts = len(values)
    if prompts < 2:
        raise DataError(
            f"{prompts} prompts have a verdict in every run, too few to estimate variances.",
            "Give a pilot with more prompts, or a prior: --seed-sd, --prompt-sd and --residual-sd.",
        )
    membership = np.equal.outer(groups, np.arange(groups.max() + 1)).astype(float)
    sizes = membership.sum(axis=0)
    cells = values @ membership / sizes
    degrees = int((sizes - 1).sum())
    notes: list[str] = []
    residual = seed = None
    if degrees:
        deviations = values - cells[:, groups]
        luck = deviations.mean(axis=0)
        residual = float(((deviations - luck) ** 2).sum() / (degrees * (prompts - 1)))
        seed = max(float((luck**2).sum() / degrees) - residual / prompts, 0.0)
    else:
        notes.append(
            "Every reward model has one seed: the spread between seeds is unknown and taken from the prior; "
            "the spread within a prompt counts as the reward model's, so that more seeds seem to help less "
            "than they do."
        )
    if 0 < degrees < 10:
        notes.append(
            f"The spread between seeds is known from {degrees} degrees of freedom only: it could be "
            f"{_factor(degrees):.1f} times as large (95 %). Plan for more."
        )
    deviations = cells - cells.mean(axis=0)
    if len(sizes) > 1:
        deviations = deviations - deviations.mean(axis=1, keepdims=True)
    else:
        notes.append(
            "One reward model: the hardness of prompts cannot be told from its own strengths, so the spread "
            "over prompts is an upper bound."
        )
    between = float((deviations**2).sum()) / ((prompts - 1) * max(len(sizes) - 1, 1))
    prompt = max(between - (residual or 0.0) * float((1 / sizes).mean()), 0.0)

    def root(variance: float | None) -> float | None:
        return None if variance is None else float(np.sqrt(variance))

    return Components(root(seed), float(np.sqrt(prompt)), root(residual), degrees or None, tuple(notes))


def pilot_components(runs: Sequence[RunRecord], metric: str = "alpaca_eval.win_rate") -> Components:
    """Variance components of an experiment's finished runs, from its candidates, or its controls if there is
    no candidate; the untrained policy has no training luck and stands aside.

    Args:
        runs: from `load_runs`.
        metric: a key of METRICS.

    Raises:
        DataError: no run of a reward model is finished, or one lacks the metric, or the prompts are too few.
    """
    trained = [run for run in runs if run.finished and not run.untrained]
    chosen = [run for run in trained if not run.control] or trained
    if not chosen:
        raise DataError(
            "No run of a reward model is finished: there is no pilot to learn from.",
            "Wait for one, or leave the folder out to plan with a prior.",
        )
    names = sorted({run.reward_model for run in chosen})
    groups = np.array([names.index(run.reward_model) for run in chosen])
    return estimate_components(100 * value_matrix(METRICS[metric], chosen), groups)


def completed(found: Components, prior: Components = PRIOR) -> Components:
    """Components with the prior's `seed` where a pilot does not tell it."""
    if found.seed is not None:
        return found
    return replace(found, seed=prior.seed, residual=0.0)


def _factor(degrees: int) -> float:
    """How many times its estimate a standard deviation can be (upper limit of the 95 % interval)."""
    from scipy.stats import chi2

    return float(np.sqrt(degrees / chi2.ppf(0.025, degrees)))
