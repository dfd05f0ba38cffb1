"""What the numbers say, in sentences: the headline of the report and the last lines of the terminal."""

import numpy as np

from rlhf_eval.analysis.correlation import correlations
from rlhf_eval.analysis.ranking import Ranking
from rlhf_eval.analysis.tables import span

LISTED = 8
"""Names that a sentence may hold."""


def headline(ranking: Ranking) -> list[str]:
    """Which reward model is best, how sure that is, and how much the benchmark told."""
    sentences = [*_best(ranking), *_untrained(ranking), *_gradients(ranking), *_benchmark(ranking)]
    if ranking.spearman_gold is not None:
        sentences.append(
            f"Against the gold utility, which is known here, the ranking has a Spearman correlation of "
            f"{ranking.spearman_gold:.2f}."
        )
    return sentences


def not_separable(ranking: Ranking) -> list[str]:
    """Candidates that cannot be told apart from the first one (Holm over all pairs), best first."""
    candidates = [i for i, row in enumerate(ranking.rows) if not row.control]
    rivals = [i for i in candidates[1:] if not ranking.apart[candidates[0], i]]
    return [ranking.rows[i].reward_model for i in rivals]


def _best(ranking: Ranking) -> list[str]:
    candidates = [row for row in ranking.rows if not row.control]
    if not candidates:
        return ["Only controls are finished: there is no reward model to recommend yet."]
    best = candidates[0]
    sentences = [
        f"{best.reward_model} gives the best policy: {best.score:.1f} % {ranking.metric.title} "
        f"(95 % interval {best.low:.1f} to {best.high:.1f}), rank {span(best.rank_low, best.rank_high)} "
        f"of {len(ranking.rows)} at 95 %."
    ]
    rivals = not_separable(ranking)
    if len(candidates) > 1:
        sentences.append(
            f"It is the best of the {len(candidates)} candidates with a probability "
            f"{_probability(best.probability_best or 0.0)}; "
            + (
                f"it cannot be told apart from {_list(rivals)}."
                if rivals
                else "its lead over each of the others is proven (Holm, 5 % for all comparisons together)."
            )
        )
    if best.control_difference is not None and (best.control_difference_low or 0.0) <= 0:
        control = max((row for row in ranking.rows if row.control), key=lambda row: row.score)
        beats = "does not beat" if best.control_difference <= 0 else "does not surely beat"
        sentences.append(f"It {beats} the control {control.reward_model}: do not trust this experiment yet.")
    return sentences


def _untrained(ranking: Ranking) -> list[str]:
    if ranking.untrained is None:
        return ["No untrained policy was scored: whether training helped at all is not known."]
    base = f"the untrained policy ({ranking.untrained.score:.1f} %)"
    candidates = [row for row in ranking.rows if not row.control]
    worse = [row.reward_model for row in candidates if not row.better_than_untrained]
    if not worse:
        return [f"Every candidate's policy is better than {base}."]
    return [f"Not shown to be better than {base}: {_list(worse)}."]


def _gradients(ranking: Ranking) -> list[str]:
    candidates = [row for row in ranking.rows if not row.control]
    warned = [f"{row.reward_model} ({row.warning})" for row in candidates if row.warning]
    return (
        [f"In most training steps the rewards taught the policy nothing: {_list(warned)}."] if warned else []
    )


def _benchmark(ranking: Ranking) -> list[str]:
    candidates = [row for row in ranking.rows if not row.control and row.benchmark is not None]
    if len(candidates) < 2:
        return []
    favourite = max(candidates, key=lambda row: row.benchmark or 0.0)
    place = candidates.index(favourite) + 1
    sentences = [
        f"The benchmark {ranking.benchmark} would have chosen {favourite.reward_model} "
        f"({favourite.benchmark:.1f} %), number {place} of the {len(candidates)} candidates downstream."
    ]
    found = correlations(ranking)[0]
    if not np.isnan(found.spearman.estimate):
        sentences.append(
            f"Over the {found.n} candidates its accuracy orders the outcomes with a Spearman correlation of "
            f"{found.spearman} (brackets: 95 % interval over reward models like these)."
        )
    if found.warning:
        sentences.append(found.warning)
    return sentences


def _probability(share: float) -> str:
    """A share of draws in words: no number of draws makes a certainty."""
    if share > 0.99:
        return "above 99 %"
    return "below 1 %" if share < 0.01 else f"of {100 * share:.0f} %"


def _list(names: list[str]) -> str:
    if len(names) > LISTED:
        names = [*names[: LISTED - 1], f"{len(names) - LISTED + 1} others"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
