"""The numbers that each figure shows, one observation a row: the CSV beside it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from rlhf_eval.analysis.experiment import RunRecord
from rlhf_eval.analysis.frontier import Frontier
from rlhf_eval.analysis.head_to_head import HeadToHead
from rlhf_eval.analysis.metrics import METRICS
from rlhf_eval.analysis.ranking import Ranking

CONTROLLED = (
    (METRICS["alpaca_eval.win_rate"], METRICS["alpaca_eval.length_controlled_win_rate"]),
    (METRICS["arena_hard.score"], METRICS["arena_hard.style_controlled_score"]),
)
"""Each evaluation's plain score, and the one with length or style taken out."""


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


def mean_curve(rows: Sequence[dict[str, Any]], field: str, distance: str = "sqrt_kl") -> np.ndarray:
    """Mean over seeds of distance and `field` at each checkpoint that every seed has, shape (checkpoints,
    2)."""
    by_step = defaultdict(list)
    for row in rows:
        by_step[row["step"]].append((row[distance], row[field]))
    most = max(map(len, by_step.values()), default=0)
    found = [np.mean(by_step[step], axis=0) for step in sorted(by_step) if len(by_step[step]) == most]
    return np.array(found).reshape(-1, 2)


def frontier_rows(found: Sequence[Frontier]) -> list[dict[str, Any]]:
    """Gains over the initial policy and their fits, one checkpoint of one run a row."""
    return [
        {
            "reward_model": frontier.reward_model,
            "control": frontier.control,
            "policy": frontier.policy,
            "algorithm": frontier.algorithm,
            **asdict(point),
            **{
                f"{reward}_fit": None
                if fitted is None
                else float(fitted.fit.at(np.array([point.distance]))[0])
                for reward, fitted in (("proxy", frontier.proxy), ("gold", frontier.gold))
            },
        }
        for frontier in found
        for point in frontier.points
    ]


def head_to_head_rows(matrix: HeadToHead) -> list[dict[str, Any]]:
    """The numbers of the win-rate matrix, one pair of policies a row; NaN cells are left out."""
    return [
        {"policy": one, "against": other, "wins_percent": float(matrix.shares[i, j])}
        for i, one in enumerate(matrix.names)
        for j, other in enumerate(matrix.names)
        if not np.isnan(matrix.shares[i, j])
    ]


def length_rows(runs: Sequence[RunRecord], ranking: Ranking) -> list[dict[str, Any]]:
    """Length and style against score: one reward model and evaluation a row, means over its finished seeds.

    `controlled_score` is the score with the effect of length (AlpacaEval) or style (Arena-Hard: length,
    headings, lists, bold words) taken out; None where it could not be fitted.
    """
    of: dict[str, list[RunRecord]] = defaultdict(list)
    for run in runs:
        if run.finished:
            of[run.reward_model].append(run)
    names = [row.reward_model for row in ranking.rows] + (
        [ranking.untrained.name] if ranking.untrained else []
    )
    place_of = {row.reward_model: place for place, row in enumerate(ranking.rows, 1)}
    rows = []
    for plain, controlled in CONTROLLED:
        for name in names:
            found = [run.scores.get(plain.evaluation, {}) for run in of[name]]
            rows.append(
                {
                    "reward_model": name,
                    "place": place_of.get(name),
                    "control": of[name][0].control,
                    "evaluation": plain.evaluation,
                    "mean_characters": _mean(one.get("mean_characters") for one in found),
                    "score": _mean(one.get(plain.summary_field) for one in found),
                    "controlled_score": _mean(one.get(controlled.summary_field) for one in found),
                }
            )
    return [row for row in rows if row["mean_characters"] is not None and row["score"] is not None]


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(numbers)) if numbers else None
