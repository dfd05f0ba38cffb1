"""Accuracy of a reward model on chosen/rejected pairs: correct if chosen scores strictly higher."""

import csv
import io
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_eval.config.schema import BenchmarkConfig
from rlhf_eval.errors import DataError
from rlhf_eval.files import write_text
from rlhf_eval.records import Comparison, PreferencePair, Prompt, as_messages
from rlhf_eval.rewards.interface import RewardModel
from rlhf_eval.sources import read_rows


def load_pairs(source: str) -> list[PreferencePair]:
    """Pairs from rows with `id`, `prompt` (text or messages), `chosen`, `rejected` and optionally `subset`.

    Raises:
        DataError: a missing field or a repeated id, named by row.
    """
    pairs: dict[str, PreferencePair] = {}
    for number, row in enumerate(read_rows(source), 1):
        if missing := [name for name in ("id", "prompt", "chosen", "rejected") if not row.get(name)]:
            raise DataError(f"'{source}', row {number} lacks {', '.join(missing)}.", "Complete the row.")
        pair_id = str(row["id"])
        if pair_id in pairs:
            raise DataError(f"'{source}', row {number} repeats the id '{pair_id}'.", "Make ids unique.")
        prompt = Prompt(pair_id, as_messages(row["prompt"]))
        pairs[pair_id] = PreferencePair(
            pair_id, prompt, row["chosen"], row["rejected"], row.get("subset", "all")
        )
    return list(pairs.values())


def evaluate(reward_model: RewardModel, config: BenchmarkConfig, scores_file: Path) -> dict[str, Any]:
    """Score every pair, write the scores, and return accuracy in percent with its Wilson 95 % interval.

    A pair with an invalid score counts as wrong, because the reward model could not prefer the chosen answer.
    For a reward model that only compares, the "scores" of a pair are the probabilities of either answer.
    """
    pairs = load_pairs(config.pairs)
    if reward_model.only_compares:
        comparisons = [Comparison(pair.prompt, pair.chosen, pair.rejected) for pair in pairs]
        chosen_wins = reward_model.compare(comparisons).probabilities
        scores = np.column_stack([chosen_wins, 1 - chosen_wins])
    else:
        texts = [pair.prompt.answered(text) for pair in pairs for text in (pair.chosen, pair.rejected)]
        scores = reward_model.score(texts).scores.reshape(-1, 2)
    correct = scores[:, 0] > scores[:, 1]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["id", "chosen", "rejected"])
    writer.writerows([pair.id, *row] for pair, row in zip(pairs, scores.tolist(), strict=True))
    write_text(scores_file, table.getvalue())
    subsets: dict[str, list[bool]] = defaultdict(list)
    for pair, right in zip(pairs, correct.tolist(), strict=True):
        subsets[pair.subset].append(right)
    low, high = _wilson(int(correct.sum()), len(pairs))
    return {
        "n": len(pairs),
        "accuracy": 100 * float(correct.mean()),
        "low": 100 * low,
        "high": 100 * high,
        "subsets": {name: 100 * sum(rights) / len(rights) for name, rights in subsets.items()},
    }


def _wilson(successes: int, n: int) -> tuple[float, float]:
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)
