"""Overlap of 3,000 benchmark items with 200,000 documents of about 300 words, on one core.

    python bench/overlap.py

Words are drawn from a Zipf-like vocabulary. Of a hundred items 13 words of one of their texts stand in a
document, at its start, in its middle or at its end; another hundred have their prompt in the corpus word for
word. Each size of corpus is searched in a process of its own, so that its peak memory is its own.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_eval.audit.overlap import EXACT_PROMPT, find_overlap
from rlhf_eval.benchmarks.items import Item
from rlhf_eval.progress import SilentProgress
from rlhf_eval.records import user_prompt

ITEMS, SIZES, PLANTED_EVERY, EXACT = 3000, (50_000, 200_000), 30, 100
LIMITS = {"seconds": 120, "GiB": 2.0, "growth": 1.1}


def main() -> int:
    """Print the table; 1 if a limit is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--measure", metavar="FILE")
    options = parser.parse_args()
    if options.measure:
        return measure(options.measure)
    held, peaks = True, []
    print(
        f"{'documents':>10}{'words':>12}{'seconds':>9}{'peak MiB':>10}{'planted':>9}{'exact':>7}{'false':>7}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            file = Path(folder) / f"{size}.jsonl"
            write_corpus(file, size)
            command = [sys.executable, __file__, "--measure", str(file)]
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
            )
            row = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{row['documents']:>10}{row['words']:>12}{row['seconds']:>9.1f}{row['mib']:>10.0f}"
                f"{row['planted']:>8.0%}{row['exact']:>7}{row['false']:>7}"
            )
            peaks.append(row["mib"])
            held &= row["planted"] == 1 and row["exact"] == EXACT and row["false"] == 0
    print(
        f"limits: {LIMITS['seconds']} s and {LIMITS['GiB']} GiB for the larger, whose peak is at most "
        f"{LIMITS['growth']} times the smaller's; all planted found, none false"
    )
    held &= row["seconds"] <= LIMITS["seconds"] and peaks[-1] <= 1024 * LIMITS["GiB"]
    return int(not (held and peaks[-1] <= LIMITS["growth"] * peaks[0]))


def measure(file: str) -> int:
    """Search one corpus and print what was found as JSON."""
    found_items = list(items())
    began = time.perf_counter()
    found = find_overlap({"made up": found_items}, [file], SilentProgress())["made up"]
    seconds = time.perf_counter() - began
    planted = {found_items[n].id for n in planted_items()}
    exact = {found_items[n].id for n in exact_items()}
    flagged = found.flagged["13-gram"]
    row = {
        "documents": found.documents,
        "words": found.words,
        "seconds": seconds,
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "planted": len(planted & flagged) / len(planted),
        "exact": len(exact & found.flagged[EXACT_PROMPT]),
        "false": len(found.flagged[EXACT_PROMPT] - exact) + len(flagged - planted - exact),
    }
    print(json.dumps(row))
    return 0


def planted_items() -> range:
    return range(0, ITEMS, PLANTED_EVERY)


def exact_items() -> range:
    return range(1, 1 + 3 * EXACT, 3)


def items() -> Iterator[Item]:
    """Prompts of about 60 words and two responses of about 200."""
    rng = np.random.default_rng(1)
    for number in range(ITEMS):
        sizes = (int(rng.integers(30, 90)), int(rng.integers(100, 300)), int(rng.integers(100, 300)))
        prompt, *responses = (text(rng, size) for size in sizes)
        yield Item(str(number), user_prompt(str(number), prompt), tuple(responses), (1.0, 0.0))


def write_corpus(file: Path, size: int) -> None:
    """Documents of about 300 words, with what is planted spread evenly over them."""
    rng = np.random.default_rng(2)
    made = list(items())
    planted: dict[int, Any] = {}
    for place, number in enumerate(planted_items()):
        words = made[number].completions[place % 2].split()
        start = int(rng.integers(0, len(words) - 13))
        planted[place * size // len(planted_items())] = (place % 3, words[start : start + 13])
    exact = {
        1 + place * size // EXACT: made[number].prompt.instruction
        for place, number in enumerate(exact_items())
    }
    with file.open("w") as stream:
        for number in range(size):
            document = text(rng, int(rng.integers(200, 400)))
            if number in planted:
                where, words = planted[number]
                middle = len(document) // 2 if where == 1 else 0
                parts = (
                    [*words, document],
                    [document[:middle], *words, document[middle:]],
                    [document, *words],
                )
                document = " ".join(parts[where])
            row = {
                "prompt": exact.get(number, "none"),
                "chosen": [{"role": "assistant", "content": document}],
            }
            stream.write(json.dumps(row) + "\n")


VOCABULARY = [f"w{number:x}" for number in range(50_000)]
WEIGHTS = 1 / (np.arange(50_000) + 2.7)
CUMULATIVE = np.cumsum(WEIGHTS / WEIGHTS.sum())


def text(rng: np.random.Generator, size: int) -> str:
    """Words whose frequency falls as 1/rank."""
    return " ".join(
        VOCABULARY[place] for place in np.searchsorted(CUMULATIVE, rng.random(size)).clip(0, 49_999)
    )


if __name__ == "__main__":
    sys.exit(main())
