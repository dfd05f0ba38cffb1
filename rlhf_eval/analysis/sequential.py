"""When enough prompts are judged: tests that may be looked at after every prompt, and stopped at any time.

All policies are judged on the prompts of a set of N in one random order. For two reward models the
difference d_t of their values on the t-th prompt lies in [−1, 1], and what the judging of all prompts would
say is the sign of its mean over the N. Against "A is not better than B" a bettor stakes, prompt by prompt,
shares g of his capital on d_t being above what it would be on average if the mean over the N were zero:

    δ_t = −(d_1 + … + d_{t−1}) / (N − t + 1),        capital ·= 1 + g (d_t − δ_t) / (1 + δ_t)

If A is not better his capital is a supermartingale from 1, so it ever reaches 1/α with probability at most α
(Ville): betting without replacement, Waudby-Smith and Ramdas 2024 (JRSS-B 86(1), §5; arXiv:2010.09686), after
their 2020 paper on sampling without replacement. The capital is spread evenly over STAKES, so that no size of
the difference has to be guessed. Once even the worst outcome of all prompts left could not turn the sign, the
answer is certain, and after N prompts only equal scores are undecided.

The error is about these policies, this judge and this set of prompts. What other training seeds or other
prompts would give is not in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np

from rlhf_eval.errors import ConfigError

STAKES = np.geomspace(0.02, 0.9, 12)


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be settled.

    Attributes:
        kind: "top": which policies are the first `places`; "order": the order of all; "reference": which are
            better and which worse than the last one.
        places: of "top".
    """

    kind: Literal["top", "order", "reference"]
    places: int = 1

    def tests(self, policies: int) -> int:
        """How many one-sided tests could be false together: the level is divided by it.

        Of the first place only those n − 1 by which the best would be thrown out; else both sides of every
        pair that is asked about.
        """
        if self.kind == "top" and self.places == 1:
            return policies - 1
        return 2 * (policies - 1) if self.kind == "reference" else policies * (policies - 1)


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """What is known after some prompts.

    Attributes:
        better: shape (policies, policies), bool: row shown to be better than column.
        active: shape (policies,), bool: whose judging can still settle something.
        inside: shape (policies,), bool: of "top", shown to be among the first; nowhere else.
    """

    better: np.ndarray
    active: np.ndarray
    inside: np.ndarray

    @property
    def settled(self) -> bool:
        """Whether the question is answered."""
        return not self.active.any()


def question_named(text: str, policies: int) -> Question:
    """`best`, `top:K`, `order` or `untrained`.

    Args:
        policies: how many compete; of `untrained` with the untrained one.

    Raises:
        ConfigError: no such question, or not so many policies.
    """
    name, _, places = text.partition(":")
    if text == "best":
        return Question("top", 1)
    if text == "order":
        return Question("order")
    if text == "untrained":
        return Question("reference")
    if name == "top" and places.isdecimal() and 0 < int(places) < policies:
        return Question("top", int(places))
    raise ConfigError(
        f"'{text}' is no question about {policies} policies.",
        f"Ask for best, top:K with K from 1 to {policies - 1}, order, or untrained.",
    )


def log_capital(differences: np.ndarray, prompts: int) -> np.ndarray:
    """Logarithm of the capital against "not better" after each prompt, shape (t, …); +∞ where it is certain
    that the mean over all prompts is above zero.

    Args:
        differences: shape (t, …), in [−1, 1], of the first t prompts in random order.
        prompts: N, of the whole set.
    """
    from scipy.special import logsumexp

    seen = np.arange(1, len(differences) + 1).reshape(-1, *[1] * (differences.ndim - 1))
    sums = np.cumsum(differences, axis=0)
    expected = -(sums - differences) / (prompts - seen + 1)
    # Beyond ±1 the sign is certain already: what is staked there no longer matters.
    expected = np.clip(expected, -1 + 1e-9, 1.0)
    gains = (differences - expected) / (1 + expected)
    growth = np.log1p(STAKES * np.maximum(gains, -1.0)[..., None])
    capital = logsumexp(np.cumsum(growth, axis=0), axis=-1) - np.log(len(STAKES))
    # A sum of verdicts is exact to far less than that.
    return np.where(sums > prompts - seen + 1e-9, np.inf, capital)


def standing(values: Sequence[np.ndarray], prompts: int, question: Question, level: float = 0.05) -> Standing:
    """What the prompts judged so far show, with an error of at most `level` over all that is ever shown.

    Args:
        values: of each policy, shape (prompts judged,), in [0, 1] in the common random order; NaN where
            there is no verdict: that prompt counts as a tie in every pair. All that are `active` have been
            judged on the same prompts, the others on fewer.
        prompts: of the whole set.
    """
    better = _shown(values, prompts, question, level)
    inside, open_ = _progress(better, question)
    if all(len(mine) >= prompts for mine, needed in zip(values, open_.tolist(), strict=True) if needed):
        open_ = np.zeros_like(open_)  # all is judged: who is not told apart has the same score
    return Standing(better, open_, inside)


def _shown(values: Sequence[np.ndarray], prompts: int, question: Question, level: float) -> np.ndarray:
    """As `Standing.better`."""
    n = len(values)
    threshold = np.log(question.tests(n) / level)
    better = np.zeros((n, n), dtype=bool)
    for a, b in permutations(range(n), 2):
        both = min(len(values[a]), len(values[b]))
        if both and (question.kind != "reference" or n - 1 in (a, b)):
            differences = np.nan_to_num(values[a][:both] - values[b][:both])
            better[a, b] = log_capital(differences, prompts).max() >= threshold
    return better


def _progress(better: np.ndarray, question: Question) -> tuple[np.ndarray, np.ndarray]:
    """As `Standing.inside`, and which policies something is still open about."""
    n = len(better)
    known = better | better.T | np.eye(n, dtype=bool)
    if question.kind == "order":
        return np.zeros(n, dtype=bool), known.sum(axis=1) < n
    if question.kind == "reference":
        return np.zeros(n, dtype=bool), np.append(~known[-1, :-1], not known[-1].all())
    outside = better.sum(axis=0) >= question.places
    worse = better | (outside & ~np.eye(n, dtype=bool))
    inside = worse.sum(axis=1) >= n - question.places
    # Of who is out enough is known; who is in is still needed to show that others are out.
    decided = bool(np.all(inside | outside))
    return np.asarray(inside), np.asarray(~outside & (not decided))
