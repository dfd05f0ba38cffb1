"""JudgeBench (Tan et al. 2024, arXiv:2410.12784): pairs of answers of one strong model, one of them wrong.

Its official number asks about every pair in both orders; a pair is right if the games won less the games lost
come to more than zero. A reward model that scores gives the same answer in both orders.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from rlhf_eval.benchmarks.items import Benchmark, Item, Scores, Summary, Version
from rlhf_eval.benchmarks.loading import rows_of, unique
from rlhf_eval.benchmarks.pairs import right_wins
from rlhf_eval.benchmarks.statistics import accuracy_by_subset, prompts_of, weighted_accuracy
from rlhf_eval.errors import DataError
from rlhf_eval.records import user_prompt

CATEGORIES = {
    "mmlu-pro": "knowledge",
    "livebench-reasoning": "reasoning",
    "livebench-math": "math",
    "livecodebench": "coding",
}
"""The beginning of `source` → category, as the official script groups them."""


def load(data: Mapping[str, str]) -> list[Item]:
    """Rows with `pair_id`, `source`, `question`, `response_A`, `response_B`, `label`.

    Raises:
        DataError: a missing field, an unknown source or label, or a repeated id, named by row.
    """
    return unique(_items(data))


def _items(data: Mapping[str, str]) -> Iterator[tuple[str, Item]]:
    fields = ("pair_id", "source", "question", "response_A", "response_B", "label")
    for source in data.values():
        for where, row in rows_of(source, fields):
            category = next((c for start, c in CATEGORIES.items() if row["source"].startswith(start)), None)
            labels = {"A>B": (1.0, 0.0), "B>A": (0.0, 1.0)}.get(row["label"])
            if category is None or labels is None:
                raise DataError(
                    f"{where}: source '{row['source']}' or label '{row['label']}' is unknown.",
                    f"Sources begin with {', '.join(CATEGORIES)}; labels are A>B and B>A.",
                )
            texts = (row["response_A"], row["response_B"])
            prompt = user_prompt(str(row["pair_id"]), row["question"])
            yield where, Item(prompt.id, prompt, texts, labels, category)


def summarise(items: Sequence[Item], scores: Scores) -> Summary:
    """Official: the share of all pairs (micro). `macro`, which some papers print, is in the metrics."""
    right = np.array([right_wins(item, score) for item, score in zip(items, scores, strict=True)])
    accuracy, low, high, weight = weighted_accuracy(
        right, ["all"] * len(items), {"all": 1.0}, prompts_of(items)
    )
    found = accuracy_by_subset(right, [item.subset for item in items])
    subsets = {name: found[name] for name in CATEGORIES.values() if name in found}
    metrics = {"macro accuracy over categories, %": float(np.mean(list(subsets.values())))}
    return Summary(accuracy, low, high, len(items), subsets, metrics, right, weight)


JUDGEBENCH = Benchmark(
    load,
    summarise,
    versions=(
        Version(
            "answers of gpt-4o-2024-05-13",
            {"knowledge": 154, "reasoning": 98, "math": 56, "coding": 42},
            "afe09baa6279450b0fa13eeb6a00e66c60922f384da8d26b98baf9988c259345",
        ),
        Version(
            "answers of claude-3-5-sonnet-20240620",
            {"knowledge": 154, "reasoning": 51, "math": 34, "coding": 31},
            "c8abb2a03a7399241d2a4513d75f4c99838451aba7e5e20207019eb50cdf9242",
        ),
    ),
    both_orders=True,
)
