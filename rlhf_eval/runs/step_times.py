"""Where the time of a run's training steps goes, read off the end of its metrics."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rlhf_eval.files import read_tail

TAIL = 32 * 1024
"""Bytes read: a handful of steps, whatever the file's length."""
PARTS = ("generation", "scoring", "training", "synchronisation", "idle")


@dataclass(frozen=True)
class StepTimes:
    """Means over the last steps of a training.

    Attributes:
        seconds: of a step.
        tokens_per_second: tokens of completions.
        shares: of a step's seconds, by part (see `training/timing.py`); they add up to 1.
    """

    seconds: float
    tokens_per_second: float
    shares: dict[str, float]

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items() if share >= 0.005)
        return f"{self.seconds:.2g} s: {parts}"


def step_times(metrics: Path) -> StepTimes | None:
    """The last steps of a run's `metrics.jsonl`; None where there are none."""
    if not metrics.exists():
        return None
    rows = []
    for line in read_tail(metrics, TAIL).split(b"\n"):
        with suppress(ValueError):  # the first may be cut here, the last by a kill
            rows.append(json.loads(line))
    steps = [row for row in rows if isinstance(row, dict) and "generation_seconds" in row]
    if not steps:
        return None
    total = sum(row["seconds"] for row in steps)
    return StepTimes(
        total / len(steps),
        sum(row["tokens"] for row in steps) / total,
        {part: sum(row[f"{part}_seconds"] for row in steps) / total for part in PARTS},
    )
