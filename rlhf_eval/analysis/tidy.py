"""The numbers that each figure shows, one observation a row: the CSV beside it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlhf_eval.analysis.experiment import RunRecord
from rlhf_eval.analysis.ranking import Ranking


def ranking_rows(ranking: Ranking) -> list[dict[str, Any]]:
    """The numbers of the ranking figure."""
    untrained = []
    if ranking.untrained:
        u = ranking.untrained
        untrained = [dict.fromkeys(ranking.as_json()[0]) | {"reward_model": u.name, "control": True}]
        untrained[0] |= {"n_seeds": u.n_seeds, "score": u.score, "low": u.low, "high": u.high}
    return [{**row, "metric": ranking.metric.name} for row in [*ranking.as_json(), *untrained]]


def correlation_rows(ranking: Ranking) -> list[dict[str, Any]]:
    """The numbers of the correlation figure."""
    return [
        {
            "reward_model": row.reward_model,
            "control": row.control,
            "benchmark": ranking.benchmark,
            "accuracy": row.benchmark,
            "accuracy_low": row.benchmark_low,
            "accuracy_high": row.benchmark_high,
            "metric": ranking.metric.name,
            "score": row.score,
            "score_low": row.low,
            "score_high": row.high,
        }
        for row in ranking.rows
        if row.benchmark is not None
    ]


def curve_rows(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """The numbers of the curves, one checkpoint of one finished run a row; KL in nats per completion.

    A sampled KL may come out slightly negative near the initial policy; √KL takes it as zero.
    """
    return [
        {
            "reward_model": run.reward_model,
            "control": run.control,
            "seed": run.seed,
            "step": row["step"],
            "kl": row["kl"],
            "sqrt_kl": float(np.sqrt(max(row["kl"], 0.0))),
            "proxy_reward": row["proxy_reward"],
            "gold_reward": row.get("gold_reward"),
            "length_tokens": row["length_tokens"],
        }
        for run in runs
        if run.finished and not run.untrained
        for row in run.curves
    ]
