"""Each policy against each other, prompt by prompt: who is preferred to the baseline by more?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlhf_eval.analysis.experiment import RunRecord
from rlhf_eval.analysis.ranking import Ranking

POLICIES = 40
"""At most so many policies stand in the matrix: the best by rank, and the untrained policy."""


@dataclass(frozen=True, slots=True, eq=False)
class HeadToHead:
    """The win-rate matrix.

    Attributes:
        names: reward models, best first, then the untrained policy.
        shares: shape (policies, policies): percent of prompts on which the row's policy has the higher value,
            equal values as half a win, averaged over the pairs of their seeds within a policy base and
            algorithm. NaN on the diagonal, and where
            two have no prompt in common. `shares + shares.T` is 100.
        left_out: reward models that did not fit in.
    """

    names: tuple[str, ...]
    shares: np.ndarray
    left_out: int


def head_to_head(runs: Sequence[RunRecord], ranking: Ranking) -> HeadToHead:
    """The matrix over the prompts of the evaluation that the ranking is by.

    Two policies were not set side by side by the judge: both were compared with one baseline, and of two
    answers the one that was preferred to it more strongly wins the prompt.

    Args:
        runs: those that were ranked; unfinished ones are passed over.
    """
    names = [row.reward_model for row in ranking.rows[:POLICIES]]
    names += [ranking.untrained.name] if ranking.untrained else []
    evaluation = ranking.metric.evaluation
    place = {name: i for i, name in enumerate(names)}
    chosen = [run for run in runs if run.finished and run.reward_model in place]
    column_of = {
        id: i for i, id in enumerate({id: None for r in chosen for id in r.per_prompt[evaluation].prompt_ids})
    }
    values = np.full((len(chosen), len(column_of)), np.nan)
    for i, run in enumerate(chosen):
        scores = run.per_prompt[evaluation]
        values[i, [column_of[id] for id in scores.prompt_ids]] = scores.value
    with np.errstate(invalid="ignore"):
        shares = np.array([_wins(own, values) for own in values])
    shares[~_of_one_setting(chosen)] = np.nan
    owner = np.array([place[run.reward_model] for run in chosen])
    matrix = np.full((len(names), len(names)), np.nan)
    for i in range(len(names)):
        for j in range(len(names)):
            pairs = shares[np.ix_(owner == i, owner == j)]
            if i != j and not np.isnan(pairs).all():
                matrix[i, j] = 100 * np.nanmean(pairs)
    return HeadToHead(tuple(names), matrix, max(0, len(ranking.rows) - POLICIES))


def _of_one_setting(runs: Sequence[RunRecord]) -> np.ndarray:
    """Which pairs of runs share policy base and algorithm, (runs, runs); the untrained policy has any."""
    policies, algorithms = (
        np.array([getattr(run, part) for run in runs]) for part in ("policy", "algorithm")
    )
    untrained = np.array([run.untrained for run in runs])
    alike = algorithms[:, None] == algorithms
    return (policies[:, None] == policies) & (alike | untrained[:, None] | untrained)


def _wins(own: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share of the common prompts that one run wins of each other one, shape (runs,)."""
    common = ~np.isnan(own) & ~np.isnan(others)
    won = ((own > others) + 0.5 * (own == others)) * common
    n = common.sum(axis=1)
    return np.divide(won.sum(axis=1), n, out=np.full(len(n), np.nan), where=n > 0)
