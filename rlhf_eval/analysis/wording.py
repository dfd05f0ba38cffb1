"""What the numbers say, in sentences: the headline of the report and the last lines of the terminal."""

import numpy as np

from rlhf_eval.analysis.correlation import correlations
from rlhf_eval.analysis.intervals import percentile_interval
from rlhf_eval.analysis.ranking import Ranking
from rlhf_eval.analysis.tables import span


def headline(ranking: Ranking) -> list[str]:
    """Which reward model is best, how sure that is, and how much the benchmark told."""
    sentences = [*_best(ranking), *_untrained(ranking), *_benchmark(ranking)]
    if ranking.spearman_gold is not None:
        sentences.append(
            f"Against the gold utility, which is known here, the ranking has a Spearman correlation of "
            f"{ranking.spearman_gold:.2f}."
        )
    return sentences


def not_separable(ranking: Ranking) -> list[str]:
    """Candidates whose paired difference to the first one may be zero at 95 %, best first."""
    candidates = [i for i, row in enumerate(ranking.rows) if not row.control]
    if not candidates:
        return []
    differences = ranking.draws[:, candidates[:1]] - ranking.draws[:, candidates[1:]]
    low, _ = percentile_interval(differences)
    return [ranking.rows[i].reward_model for i, least in zip(candidates[1:], low, strict=True) if least <= 0]


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
    noise = "prompts" if all(row.n_seeds == 1 for row in ranking.rows) else "prompts and seeds"
    rivals = not_separable(ranking)
    if rivals:
        sentences.append(
            f"It cannot be told apart from {_list(rivals)}: the difference is within the noise of {noise}."
        )
    elif len(candidates) > 1:
        sentences.append(
            f"Its lead over each other candidate, taken singly, is larger than the noise of {noise}."
        )
    ahead = [row.reward_model for row in ranking.rows if row.control and row.score >= best.score]
    if ahead:
        sentences.append(f"It does not beat the control {_list(ahead)}: do not trust this experiment yet.")
    return sentences


def _untrained(ranking: Ranking) -> list[str]:
    if ranking.untrained is None:
        return []
    base = ranking.untrained.score
    worse = [row.reward_model for row in ranking.rows if not row.control and row.score <= base]
    if not worse:
        return [f"Every candidate's policy scores above the untrained policy ({base:.1f} %)."]
    return [f"Not above the untrained policy ({base:.1f} %): {_list(worse)}."]


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
            f"{found.spearman} (brackets: measurement noise)."
        )
    if found.warning:
        sentences.append(found.warning)
    return sentences


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
