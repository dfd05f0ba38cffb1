"""PPE's human preferences (Frick et al. 2024, arXiv:2410.14872): 16,038 votes of Chatbot Arena on 20 models.

The official number is the share of the votes for one answer that a reward model shares. A vote that is a tie
has no better answer and does not count there (about 10,200 remain).

The other metrics compare two rankings of the models, from the same battles: one by the votes, one by which
answer of a battle the reward model scores higher. Both are made as Chatbot Arena makes its own: Bradley-Terry
strengths with a tie as half a win for either side, and 95 % intervals from 100 bootstrap draws of battles
(`compute_bootstrap_bt` of FastChat). With them, over all pairs of models (Li et al. 2024, arXiv:2406.11939,
section 3, to which the paper refers):

separability    pairs whose intervals of the reward model's ranking do not overlap
agreement       mean over the pairs that the votes separate: 1 if the reward model separates them in the same
                order, −1 if in the other, 0 if not at all
Brier score     mean of (P − y)², with y = 1 if the votes rank the first model higher, else 0, and
                P = Φ((μ₁ − μ₂) / √(σ₁² + σ₂²)) from mean and standard deviation of the reward model's draws

The published table fits: separability comes in 190ths (the pairs of 20 models), agreement in 132nds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlhf_eval.benchmarks.items import Benchmark, Item, Scores, Summary, Version
from rlhf_eval.benchmarks.loading import rows_of, unique
from rlhf_eval.benchmarks.statistics import prompts_of, weighted_accuracy
from rlhf_eval.errors import DataError
from rlhf_eval.records import user_prompt

WINNERS = {
    "model_a": (1.0, 0.0),
    "model_b": (0.0, 1.0),
    "tie": (0.5, 0.5),
    "tie (bothbad)": (0.5, 0.5),
}
"""`winner` → labels of the two responses."""
CATEGORIES = {
    "hard_prompt": "hard prompts",
    "easy_prompt": "easy prompts",
    "if_prompt": "instruction following",
    "math_prompt": "math",
    "is_code": "coding",
}
"""Columns that mark a row → name of the part; a row can be of several."""
DRAWS = 100
LEVEL = 0.95
RIDGE = 1e-3
"""Penalty on squared strengths, so that a model that won all its battles gets a finite one. Beside the
hundreds of battles of a published model it is nothing."""
NEWTON_STEPS = 100


def load(data: Mapping[str, str]) -> list[Item]:
    """Rows with `question_id`, `prompt`, `response_1`, `response_2`, `model_a`, `model_b`, `winner`.

    Columns of `CATEGORIES` may be absent. A tie labels both responses ½.

    Raises:
        DataError: a missing field, an unknown winner, or a repeated id, named by row.
    """
    return unique(_items(data))


def _items(data: Mapping[str, str]) -> Iterator[tuple[str, Item]]:
    fields = ("question_id", "prompt", "response_1", "response_2", "model_a", "model_b", "winner")
    for source in data.values():
        for where, row in rows_of(source, fields):
            labels = WINNERS.get(row["winner"])
            if labels is None:
                raise DataError(
                    f"{where}: winner '{row['winner']}' is unknown.", f"Winners are {', '.join(WINNERS)}."
                )
            prompt = user_prompt(str(row["question_id"]), row["prompt"])
            texts = (row["response_1"], row["response_2"])
            attributes = {"model_a": row["model_a"], "model_b": row["model_b"]}
            attributes |= {name: "yes" for column, name in CATEGORIES.items() if row.get(column)}
            yield where, Item(prompt.id, prompt, texts, labels, attributes=attributes)


def summarise(items: Sequence[Item], scores: Scores) -> Summary:
    """Official: the share of votes for one answer whose answer scores strictly higher.

    `right` is 0 for ties, which do not count. An item without valid scores counts as wrong, in the ranking as
    a game that went against the vote; if the vote is a tie it stays one.
    """
    vote = np.array([item.labels[0] for item in items])
    margin = np.array([score[0] - score[1] for score in scores])
    decided = vote != 0.5
    right = (margin * (vote - 0.5) > 0).astype(float)
    parts = ["decided" if x else "tie" for x in decided]
    accuracy, low, high, weight = weighted_accuracy(right, parts, {"decided": 1.0}, prompts_of(items))
    members = {
        name: decided & np.array([name in item.attributes for item in items]) for name in CATEGORIES.values()
    }
    subsets = {name: 100 * float(right[member].mean()) for name, member in members.items() if member.any()}
    preference = np.where(np.isnan(margin), 1 - vote, (np.sign(margin) + 1) / 2)
    metrics = {"votes that are no tie": float(decided.sum()), **_ranking_metrics(items, vote, preference)}
    return Summary(accuracy, low, high, int(decided.sum()), subsets, metrics, right, weight)


@dataclass(frozen=True)
class Ranking:
    """Models ranked by battles, as every pair of models (first, second) sees them.

    Attributes:
        strengths: Bradley-Terry, natural logarithm, mean 0; shape (models,).
        order: 1 if the first model of a pair is stronger, −1 if weaker, 0 if as strong; shape (pairs,).
        apart: whether the intervals of a pair do not overlap; shape (pairs,).
        probability: that the first model is stronger, by the draws' normal approximation; shape (pairs,).
    """

    strengths: np.ndarray
    order: np.ndarray
    apart: np.ndarray
    probability: np.ndarray


def _ranking_metrics(items: Sequence[Item], vote: np.ndarray, preference: np.ndarray) -> dict[str, float]:
    models = sorted({item.attributes[side] for item in items for side in ("model_a", "model_b")})
    place = {model: number for number, model in enumerate(models)}
    battles = np.array([[place[item.attributes[side]] for side in ("model_a", "model_b")] for item in items])
    human = _ranking(battles, vote, len(models))
    proxy = _ranking(battles, preference, len(models))
    separated = human.order * proxy.order * human.apart * proxy.apart
    return {
        "Spearman correlation of model ranking, %": 100 * _spearman(human.strengths, proxy.strengths),
        "Kendall correlation of model ranking, %": 100 * _kendall(human, proxy),
        "separability, % of model pairs": 100 * float(proxy.apart.mean()),
        "separability of the votes, % of model pairs": 100 * float(human.apart.mean()),
        "confidence agreement, % of pairs that the votes separate": 100
        * float(separated.sum() / max(human.apart.sum(), 1)),
        "Brier score of model ranking": float(np.mean((proxy.probability - (human.order > 0)) ** 2)),
    }


def _ranking(battles: np.ndarray, outcomes: np.ndarray, models: int) -> Ranking:
    """From battles, shape (battles, 2), places of the two models, and outcomes: 1, ½ or 0 for the first."""
    from scipy.stats import norm

    cells = (battles[:, 0] * models + battles[:, 1]) * 3 + (2 * outcomes).astype(int)
    counts = np.bincount(cells, minlength=3 * models**2)
    drawn = np.random.default_rng(0).multinomial(len(outcomes), counts / len(outcomes), size=DRAWS)
    strengths = bradley_terry(_wins(counts[None], models))[0]
    draws_DM = bradley_terry(_wins(drawn, models))
    low, high = np.quantile(draws_DM, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    first, second = np.triu_indices(models, k=1)
    means, variances = draws_DM.mean(axis=0), draws_DM.var(axis=0)
    spread = np.sqrt(variances[first] + variances[second])
    return Ranking(
        strengths,
        np.sign(strengths[first] - strengths[second]),
        (low[first] > high[second]) | (low[second] > high[first]),
        # A spread of zero, from battles that are all ties, leaves one half and no 0/0.
        norm.cdf((means[first] - means[second]) / np.maximum(spread, 1e-12)),
    )


def _wins(counts: np.ndarray, models: int) -> np.ndarray:
    """Wins of model over model, shape (draws, models, models), from counts of losses, ties and wins."""
    lost, tied, won = np.moveaxis(counts.reshape(-1, models, models, 3), -1, 0)
    return won + tied / 2 + np.swapaxes(lost + tied / 2, 1, 2)


def bradley_terry(wins_DMM: np.ndarray) -> np.ndarray:
    """Strengths s of Bradley and Terry (1952), shape (draws, models): P(i beats j) = 1/(1 + exp(s_j − s_i)).

    They maximise Σ wins_ij·log P(i beats j) − RIDGE/2·Σ s², by Newton's method; their mean is 0.

    Args:
        wins_DMM: wins of model i over model j, a tie counting ½ for either; shape (draws, models, models).
    """
    from scipy.special import expit

    games_DMM = wins_DMM + np.swapaxes(wins_DMM, 1, 2)
    strengths_DM = np.zeros(wins_DMM.shape[:2])
    diagonal = np.eye(wins_DMM.shape[1])
    for _ in range(NEWTON_STEPS):
        expected = expit(strengths_DM[:, :, None] - strengths_DM[:, None, :])
        gradient = (wins_DMM - games_DMM * expected).sum(axis=2) - RIDGE * strengths_DM
        weight = games_DMM * expected * (1 - expected)
        curvature = (weight.sum(axis=2) + RIDGE)[:, :, None] * diagonal - weight
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        strengths_DM += np.clip(step, -1, 1)  # a whole step can overshoot where a model wins all its battles
        if np.abs(step).max() < 1e-10:
            break
    return strengths_DM


def _spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's correlation of ranks; 0 if one of the rankings says nothing."""
    from scipy.stats import rankdata

    ranks = np.array([rankdata(first), rankdata(second)])
    ranks -= ranks.mean(axis=1, keepdims=True)
    return float(ranks[0] @ ranks[1] / max(np.sqrt(np.prod((ranks**2).sum(axis=1))), 1e-12))


def _kendall(first: Ranking, second: Ranking) -> float:
    """Kendall's τ-b, over pairs of models; 0 if one of the rankings says nothing."""
    untied = np.sqrt(np.abs(first.order).sum() * np.abs(second.order).sum())
    return float(first.order @ second.order / max(untied, 1))


PPE_PREFERENCE = Benchmark(load, summarise, versions=(Version("V1", {"all": 16038}),))
