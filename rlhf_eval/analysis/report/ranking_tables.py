"""The tables of the sections on the ranking, the benchmark, and length."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from rlhf_eval.analysis.correlation import Correlation
from rlhf_eval.analysis.frontier import Frontier
from rlhf_eval.analysis.head_to_head import HeadToHead
from rlhf_eval.analysis.metrics import METRICS
from rlhf_eval.analysis.ranking import Ranking, RankRow
from rlhf_eval.analysis.report.data_table import (
    DataTable,
    name_column,
    number_column,
    text_column,
    with_data,
)
from rlhf_eval.analysis.tables import span
from rlhf_eval.analysis.tidy import CONTROLLED, head_to_head_rows


def ranking_data(ranking: Ranking) -> DataTable:
    """The ranking: candidates, then controls, then the untrained policy; columns without data left out."""
    metric, rows = ranking.metric.title, _rows(ranking)
    columns = (
        name_column("Reward model", "reward_model"),
        number_column("Rank", "rank", digits=None),
        number_column("95 %", "rank_span"),
        number_column("Tier", "tier", digits=None),
        number_column("Best with, %", "probability_best_percent", digits=0),
        number_column(metric, "score"),
        number_column("95 %", "low", "high"),
        number_column("Over untrained", "difference"),
        number_column("95 %", "difference_low", "difference_high"),
        text_column("Proven better", "better_than_untrained"),
        number_column("Seeds", "n_seeds", digits=None),
        text_column("No gradient in steps", "no_gradient_in"),
    )
    return DataTable(
        "ranking",
        f"{metric} over {ranking.n_prompts:,} prompts, in percent; differences in points. Ranks count "
        f"candidates and controls "
        "together. Members of a tier cannot be told apart from its first (Holm over all pairs). “Best with”: "
        "the share "
        "of draws in which a candidate leads the others. “Proven better” than the untrained policy: Holm "
        "over the reward models.",
        with_data(columns, rows),
        rows,
        "stages/score/per_prompt.jsonl and metrics.jsonl of every finished run",
        group="kind",
    )


def scores_data(ranking: Ranking) -> DataTable:
    """What else is known of each reward model: its lead over the controls, every metric, every benchmark,
    gold."""
    rows = _rows(ranking)
    metrics = [m for m in METRICS.values() if m is not ranking.metric]
    columns = (
        name_column("Reward model", "reward_model"),
        number_column("Over best control", "control_difference"),
        number_column("95 %", "control_difference_low", "control_difference_high"),
        *(number_column(m.title, m.name) for m in metrics),
        *(number_column(name, f"benchmark.{name}") for name in ranking.benchmarks),
        number_column("Gold", "gold", digits=3),
    )
    return DataTable(
        "scores",
        "The lead over the best control (another one, for a control), the other scores, means over seeds, "
        "and the accuracies on "
        "benchmarks, in percent or points; gold utility of the answers in its reward model's unit.",
        with_data(columns, rows),
        rows,
        "stages/score/scores.json and stages/benchmark/results.json of every finished run",
        group="kind",
    )


def _rows(ranking: Ranking) -> list[dict[str, Any]]:
    rows = [_ranked(row, ranking) for row in sorted(ranking.rows, key=lambda row: row.control)]
    return [*rows, *([_untrained(ranking, rows[0])] if ranking.untrained else [])]


def _ranked(row: RankRow, ranking: Ranking) -> dict[str, Any]:
    plain = {f.name: getattr(row, f.name) for f in fields(row) if f.name not in ("scores", "benchmarks")}
    share = row.probability_best
    no_gradient_in = f"{row.no_gradient_steps} of {row.training_steps}" if row.warning else None
    return (
        {"kind": "controls" if row.control else "reward models"}
        | plain
        | {"rank_span": span(row.rank_low, row.rank_high), "no_gradient_in": no_gradient_in}
        | {"probability_best_percent": None if share is None else 100 * share}
        | {m.name: row.scores.get(m.name) for m in METRICS.values()}
        | {f"benchmark.{name}": row.benchmarks.get(name) for name in ranking.benchmarks}
    )


def _untrained(ranking: Ranking, like: dict[str, Any]) -> dict[str, Any]:
    assert ranking.untrained is not None
    one = ranking.untrained
    return dict.fromkeys(like) | {
        "kind": "reference",
        "reward_model": one.name,
        "control": True,
        "n_seeds": one.n_seeds,
        "score": one.score,
        "low": one.low,
        "high": one.high,
        "gold": one.gold,
        **{m.name: one.scores.get(m.name) for m in METRICS.values()},
    }


def correlation_data(ranking: Ranking, found: Sequence[Correlation]) -> DataTable:
    """Pearson, Spearman and Kendall by subset of reward models."""
    return DataTable(
        "correlation",
        f"Accuracy on {ranking.benchmark} against {ranking.metric.title}; brackets: 95 % intervals.",
        (
            name_column("Over", "over"),
            number_column("n", "n", digits=None),
            number_column("Pearson", "pearson_words"),
            number_column("Spearman", "spearman_words"),
            number_column("Kendall", "kendall_words"),
        ),
        [_correlated(one) for one in found],
        "stages/benchmark/results.json and stages/score/per_prompt.jsonl of every finished run",
    )


def check_data(found: Sequence[Correlation]) -> DataTable:
    """What each correlation hangs on: chance, one reward model, measurement noise."""
    rows = [_correlated(one) for one in found]
    columns = (
        name_column("Over", "over"),
        number_column("p, Pearson", "pearson_p", digits=3),
        number_column("p, Spearman", "spearman_p", digits=3),
        number_column(
            "Pearson without one", "pearson_leave_one_out_low", "pearson_leave_one_out_high", digits=2
        ),
        number_column(
            "Spearman without one", "spearman_leave_one_out_low", "spearman_leave_one_out_high", digits=2
        ),
        name_column("hangs most on", "pearson_most_influential"),
        number_column("Pearson without noise", "pearson_corrected", digits=2),
    )
    return DataTable(
        "correlation_checks",
        "What they hang on. p: of a permutation test, two-sided. “Without one”: lowest and highest value "
        "when any one reward "
        "model is left out; “hangs most on” is the one that moves Pearson most. “Without noise”: corrected "
        "for attenuation.",
        with_data(columns, rows),
        rows,
        "the same files",
    )


def _correlated(one: Correlation) -> dict[str, Any]:
    row: dict[str, Any] = {"over": one.label, "n": one.n}
    for name in ("pearson", "spearman", "kendall"):
        coefficient = getattr(one, name)
        row[f"{name}_words"] = str(coefficient)
        row |= {f"{name}_{f.name}": _finite(getattr(coefficient, f.name)) for f in fields(coefficient)}
    corrected = one.attenuation.estimate if one.attenuation else None
    return row | {"pearson_corrected": _finite(corrected), "warning": one.warning}


def frontier_data(found: Sequence[Frontier], ranking: Ranking) -> DataTable:
    """The fits of gold reward, of proxy reward in the CSV, and where gold turns, by reward model, policy and
    algorithm."""
    rows = []
    place = {row.reward_model: (row.control, i) for i, row in enumerate(ranking.rows)}
    for one in sorted(found, key=lambda one: place[one.reward_model]):
        row: dict[str, Any] = {
            f: getattr(one, f) for f in ("reward_model", "control", "policy", "algorithm", "form")
        }
        for reward, fitted in (("gold", one.gold), ("proxy", one.proxy)):
            ends = ("alpha_low", "alpha_high", "beta_low", "beta_high")
            row |= {f"{reward}_{name}": getattr(fitted, name) if fitted else None for name in ends}
            for name in ("alpha", "beta", "r_squared", "residual_sd"):
                row[f"{reward}_{name}"] = getattr(fitted.fit, name) if fitted else None
        turn = one.overoptimisation
        for name in ("distance", "low", "high", "kl", "gold_gain", "extrapolated", "probability"):
            row[f"turn_{name}"] = getattr(turn, name) if turn else None
        row["turn_shown"] = turn.distance if turn and not turn.extrapolated else None
        rows.append(row | {"words": " ".join(one.words)})
    columns = (
        name_column("Reward model", "reward_model"),
        text_column("Algorithm", "algorithm"),
        number_column("α", "gold_alpha", digits=3),
        number_column("β", "gold_beta", digits=3),
        number_column("95 %", "gold_beta_low", "gold_beta_high", digits=3),
        number_column("R²", "gold_r_squared", digits=2),
        number_column("Turns at √KL", "turn_shown", digits=2),
        text_column("In words", "words"),
    )
    return DataTable(
        "frontiers",
        "Gold reward gained, fitted over d = √KL as d (α − β log d) for reinforcement learning and d (α − β "
        "d) for best of n "
        "(Gao et al. 2023); seeds together. It turns where overoptimisation begins.",
        with_data(columns, rows),
        [{name: _finite(value) for name, value in row.items()} for row in rows],
        "the checkpoints in metrics.jsonl of every finished run",
    )


def matrix_data(matrix: HeadToHead) -> DataTable:
    """The pairs of the win-rate matrix, each once: the one with the better rank against the other."""
    place = {name: i for i, name in enumerate(matrix.names)}
    return DataTable(
        "head_to_head",
        "The same pair by pair, each once: percentage of the prompts that the first wins.",
        (
            name_column("Policy", "policy"),
            name_column("against", "against"),
            number_column("Wins", "wins_percent"),
        ),
        [row for row in head_to_head_rows(matrix) if place[row["policy"]] < place[row["against"]]],
        "stages/score/per_prompt.jsonl of every finished run",
    )


def length_data(rows: Sequence[dict[str, Any]]) -> DataTable:
    """Length and score, plain and controlled, by evaluation."""
    titles = {plain.evaluation: plain.title for plain, _ in CONTROLLED}
    table = [
        row
        | {"title": titles[row["evaluation"]]}
        | {"effect": None if row["controlled_score"] is None else row["score"] - row["controlled_score"]}
        for row in rows
    ]
    return DataTable(
        "length",
        "Means over seeds; scores in percent. “Controlled”: with the effect of length (AlpacaEval) or of "
        "length, headings, "
        "lists and bold words (Arena-Hard) taken out; “effect” is what it takes away, in points.",
        (
            name_column("Reward model", "reward_model"),
            number_column("Characters", "mean_characters", digits=0),
            number_column("Score", "score"),
            number_column("Controlled", "controlled_score"),
            number_column("Effect", "effect"),
        ),
        table,
        "stages/score/scores.json of every finished run",
        group="title",
    )


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value
