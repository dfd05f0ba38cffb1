"""Metrics of all seven benchmarks from scores that somebody already has.

Synthetic items of the published number and shape, random scores; what is timed is the whole of `summarise`,
with its interval. Run with `python bench/benchmarks.py`.
"""

import json
import sys
import time
from collections.abc import Iterator
from random import Random

import numpy as np

from rlhf_eval.benchmarks.items import Item
from rlhf_eval.benchmarks.kinds import KINDS
from rlhf_eval.records import user_prompt

LIMIT = 5.0
"""Seconds for all together."""
BENCHMARKS = (
    "rewardbench",
    "rewardbench2",
    "judgebench",
    "rm_bench",
    "rmb_pairwise",
    "rmb_best_of_n",
    "ppe_preference",
    "ppe_correctness",
)


def main() -> int:
    """Print the table; 1 if the limit is missed."""
    import scipy.stats  # noqa: F401 - a process imports it once, which is not the metric

    rng, total = np.random.default_rng(0), 0.0
    print(f"{'benchmark':<18}{'items':>8}{'scores':>9}{'seconds':>9}{'accuracy, %':>13}{'95 %':>16}")
    for name in BENCHMARKS:
        items = list(made_up(name))
        scores = [rng.normal(size=len(item.completions)) for item in items]
        began = time.perf_counter()
        summary = KINDS.get(name).summarise(items, scores)
        seconds = time.perf_counter() - began
        total += seconds
        interval = f"{summary.low:.1f} to {summary.high:.1f}"
        count = sum(len(score) for score in scores)
        print(f"{name:<18}{len(items):>8}{count:>9}{seconds:>9.2f}{summary.accuracy:>13.2f}{interval:>16}")
    print(f"{'all':<18}{'':>17}{total:>9.2f}   limit {LIMIT:.0f}")
    return int(total > LIMIT)


def made_up(kind: str) -> Iterator[Item]:
    """Items of a benchmark's largest published version, without its texts."""
    rows = KINDS.get(kind).versions[-1 if kind == "rewardbench" else 0].rows
    random = Random(0)
    for subset, count in rows.items():
        for number in range(count):
            completions, labels, attributes = shape(kind, subset, number, random)
            prompt = user_prompt(f"{subset}/{number}", f"{subset} {number}")
            yield Item(prompt.id, prompt, tuple(map(str, range(completions))), labels, subset, attributes)


def shape(
    kind: str, subset: str, number: int, random: Random
) -> tuple[int, tuple[float, ...], dict[str, str]]:
    """Number of completions, their labels, and what the metric needs beside."""
    if kind == "rm_bench":
        return 6, (1.0, 1.0, 1.0, 0.0, 0.0, 0.0), {}
    if kind == "rewardbench2" and subset == "Ties":
        variant, right = ("tied", 6) if number % 2 else ("ref", 1)
        return 12, (1.0,) * right + (0.0,) * (12 - right), {"pair": str(number // 2), "variant": variant}
    if kind == "ppe_preference":
        labels = random.choice([(1.0, 0.0), (0.0, 1.0), (0.5, 0.5)])
        first, second = random.sample(range(20), 2)
        return 2, labels, {"model_a": f"model {first}", "model_b": f"model {second}"}
    if kind == "ppe_correctness":
        labels = tuple(float(random.random() < 0.5) for _ in range(32))
        right, wrong = ([i for i, x in enumerate(labels) if x == value] for value in (1.0, 0.0))
        pairs = [[random.choice(right), random.choice(wrong)] for _ in range(5)] if right and wrong else []
        return 32, labels, {"pairs": json.dumps(pairs)}
    size = 4 if kind in ("rewardbench2", "rmb_best_of_n") else 2
    return size, (1.0,) + (0.0,) * (size - 1), {}


if __name__ == "__main__":
    sys.exit(main())
