"""PPE's verifiable correctness (Frick et al. 2024, arXiv:2410.14872): 32 answers to a prompt, right or wrong.

Five sets: MMLU-Pro, MATH, GPQA, IFEval, MBPP-Plus; the answers to a prompt are one model's. Every row names
pairs of a right and a wrong answer that were drawn once for all (`sampled_conflict_pairs`, five a row; a pair
that was drawn twice counts twice). The accuracy of a set is the share of its pairs whose right answer scores
strictly higher, the official number the mean over the five sets.

The other metrics, in percent for every set and as their mean, are about choosing the best of K answers. Let
g(K) be the probability that the highest-scored of K answers is right, and o(K) that one of them is, over the
prompts and all ways to draw K of the 32 without replacement: exact expectations, where the official script
draws samples.

maximum score   max over K of g(K)
end score       g(32); where it is below the maximum, more answers to choose from made the choice worse
loss            mean over K of o(K) − g(K): with answers right (1) or wrong (0), the expected squared
                difference between the best and the chosen answer
AUC             area under the ROC curve of telling right answers from wrong ones by score, over all answers
                of a set, whatever their prompt
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from math import comb
from typing import Any

import numpy as np

from rlhf_eval.benchmarks.items import Benchmark, Item, Scores, Summary, Version
from rlhf_eval.benchmarks.loading import rows_of, unique
from rlhf_eval.benchmarks.statistics import accuracy_by_subset, prompts_of, weighted_accuracy
from rlhf_eval.errors import DataError, did_you_mean
from rlhf_eval.records import user_prompt

ROWS = {"mmlu_pro": 512, "math": 512, "gpqa": 512, "ifeval": 512, "mbpp_plus": 507}
"""Set → its number of rows."""
ANSWERS = 32
RESPONSES = tuple(f"response_{number}" for number in range(1, ANSWERS + 1))


def load(data: Mapping[str, str]) -> list[Item]:
    """Rows with `question_id`, `model_name`, `prompt`, `response_1` … `response_32`, `scores` (truth values),
    `sampled_conflict_pairs` (lists of two places, counted from 0).

    The parts of `data` are the sets. An item's id is `<set>/<question_id>/<model_name>`, since models share
    questions; its pairs are in the attribute `pairs`, a JSON list of [right, wrong].

    Raises:
        DataError: an unknown set, or one file for two; a missing field, not 32 truth values, a pair that is
            not of a right and a wrong answer, or a repeated id, named by row.
    """
    if len(set(data.values())) < len(data):  # on the hub all five files have the same name
        raise DataError(
            f"Two of the sets {', '.join(data)} are the same file: {', '.join(data.values())}.",
            "Give every set its own file.",
        )
    return unique(_items(data))


def _items(data: Mapping[str, str]) -> Iterator[tuple[str, Item]]:
    fields = ("question_id", "model_name", "prompt", "scores", "sampled_conflict_pairs", *RESPONSES)
    for part, source in data.items():
        if part not in ROWS:
            raise DataError(f"PPE has no set '{part}' ('{source}').", did_you_mean(part, ROWS))
        for where, row in rows_of(source, fields):
            labels = _labels(row["scores"], where)
            prompt = user_prompt(f"{part}/{row['question_id']}/{row['model_name']}", row["prompt"])
            pairs = json.dumps([_pair(pair, labels, where) for pair in row["sampled_conflict_pairs"]])
            texts = tuple(row[name] for name in RESPONSES)
            yield where, Item(prompt.id, prompt, texts, labels, part, {"pairs": pairs})


def _labels(scores: Any, where: str) -> tuple[float, ...]:
    if not isinstance(scores, list) or len(scores) != ANSWERS or not all(x in (0, 1) for x in scores):
        raise DataError(f"{where}: `scores` are not {ANSWERS} truth values.", "Mend or fetch the file again.")
    return tuple(map(float, scores))


def _pair(pair: Any, labels: Sequence[float], where: str) -> tuple[int, int]:
    """The place of a pair's right answer, and of its wrong one."""
    places = [place for place in pair if place in range(ANSWERS)] if isinstance(pair, list) else []
    match [labels[place] for place in places]:
        case [1.0, 0.0]:
            return places[0], places[1]
        case [0.0, 1.0]:
            return places[1], places[0]
    raise DataError(
        f"{where}: the conflict pair {pair} is not of a right and a wrong answer.",
        f"Pairs hold two places from 0 to {ANSWERS - 1} in `scores`, one true and one false.",
    )


def summarise(items: Sequence[Item], scores: Scores) -> Summary:
    """Official: the unweighted mean over the sets of the share of pairs ordered rightly.

    An item's credit is the share of its own pairs, which comes to the same where all have as many. One
    without pairs does not count; its `right` is 0. An answer without a valid score stands on the wrong side
    of all others: below them if it is right, above them if it is wrong.
    """
    label_IA = np.array([item.labels for item in items])
    score_IA = np.stack(scores)
    score_IA = np.where(np.isnan(score_IA), np.where(label_IA == 1, -np.inf, np.inf), score_IA)
    pairs = [
        (number, *pair) for number, item in enumerate(items) for pair in json.loads(item.attributes["pairs"])
    ]
    item_P, right_P, wrong_P = np.array(pairs).T
    won_P = score_IA[item_P, right_P] > score_IA[item_P, wrong_P]
    pairs_I = np.bincount(item_P, minlength=len(items))
    right_I = np.bincount(item_P, won_P, len(items)) / np.maximum(pairs_I, 1)
    names = np.array([item.subset if n else "" for item, n in zip(items, pairs_I, strict=True)])
    found = accuracy_by_subset(right_I, names.tolist())
    subsets = {name: found[name] for name in ROWS if name in found}
    weights = dict.fromkeys(subsets, 1 / len(subsets))
    accuracy, low, high, weight = weighted_accuracy(right_I, names.tolist(), weights, prompts_of(items))
    parts = np.array([item.subset for item in items])
    by_set = {name: _best_of_k(score_IA[parts == name], label_IA[parts == name]) for name in subsets}
    metrics = {
        f"{metric}, %: {name}": value
        for metric in next(iter(by_set.values()))
        for name, value in {
            "mean": float(np.mean([found[metric] for found in by_set.values()])),
            **{name: found[metric] for name, found in by_set.items()},
        }.items()
    }
    return Summary(accuracy, low, high, len(items), subsets, metrics, right_I, weight)


def _best_of_k(score_IA: np.ndarray, label_IA: np.ndarray) -> dict[str, float]:
    """The metrics of one set, in percent."""
    chosen_K, best_K = best_of_k_curve(score_IA, label_IA), best_of_k_curve(label_IA, label_IA)
    return {
        "best of K: maximum score": 100 * float(chosen_K.max()),
        "best of K: end score": 100 * float(chosen_K[-1]),
        "best of K: loss": 100 * float(np.mean(best_K - chosen_K)),
        "AUC": 100 * _area_under_roc(score_IA.ravel(), label_IA.ravel()),
    }


def best_of_k_curve(score_IA: np.ndarray, label_IA: np.ndarray) -> np.ndarray:
    """Mean label of the highest-scored of K answers, for K from 1 to their number, shape (answers,).

    Of n answers the one of rank r is the highest of K drawn without replacement with probability
    C(n − r, K − 1) / C(n, K). Answers with the same score are equally likely to be chosen.

    Args:
        score_IA: shape (items, answers), no NaN.
        label_IA: shape (items, answers).
    """
    answers = score_IA.shape[1]
    same_IAA = score_IA[:, :, None] == score_IA[:, None, :]
    credit_IA = (same_IAA @ label_IA[:, :, None])[..., 0] / same_IAA.sum(axis=2)
    ranked_IA = np.take_along_axis(credit_IA, np.argsort(-score_IA, axis=1), axis=1)
    sizes = range(1, answers + 1)
    highest_KA = np.array([[comb(answers - r, k - 1) / comb(answers, k) for r in sizes] for k in sizes])
    return highest_KA @ ranked_IA.mean(axis=0)


def _area_under_roc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Probability that a right answer scores above a wrong one; a tie counts ½ (Mann and Whitney 1947)."""
    from scipy.stats import rankdata

    right = labels == 1
    n_right, n_wrong = int(right.sum()), int((~right).sum())
    return float((rankdata(scores)[right].sum() - n_right * (n_right + 1) / 2) / (n_right * n_wrong))


PPE_CORRECTNESS = Benchmark(load, summarise, versions=(Version("best of 32", ROWS),))
