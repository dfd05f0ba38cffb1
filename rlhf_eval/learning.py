"""Training steps without gradient, in which the rewards gave the policy nothing to learn from.

A training that teaches nothing (all rewards equal or invalid, every completion left out of the loss) runs to
its end like any other, so whatever shows a run must say it.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

SIGNS = (b'"no_gradient": true', b'"zero_variance_share": 1.0', b'"grad_norm": 0.0,', b'"grad_norm": 0.0}')
"""The line of a step without gradient contains at least one of these, as `files.append_jsonl` writes it."""


def gradient_steps(rows: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """The number of steps without gradient and of all steps, by the training rows of `metrics.jsonl`. A step
    that was repeated after an interruption counts once, as it was done last."""
    steps = {row["step"]: _without_gradient(row) for row in rows if row.get("kind") == "train"}
    return sum(steps.values()), len(steps)


def gradient_steps_in(metrics: Path) -> tuple[int, int]:
    """As `gradient_steps`, for a file; (0, 0) if there is none. Damaged lines and the one being written are
    left out. `status` reads a thousand such files, so a file without any sign is not parsed."""
    try:
        content = metrics.read_bytes()
    except FileNotFoundError:
        return 0, 0
    content = content[: content.rfind(b"\n") + 1]
    if not any(sign in content for sign in SIGNS):
        return 0, content.count(b'"kind": "train"')
    rows = []
    for line in content.splitlines():
        with suppress(ValueError):
            rows.append(json.loads(line))
    return gradient_steps(row for row in rows if isinstance(row, dict) and "step" in row)


def gradient_warning(without: int, steps: int) -> str | None:
    """A warning if more than half of the steps so far had no gradient; None otherwise."""
    return f"no gradient in {without} of {steps} steps" if 2 * without > steps else None


def _without_gradient(row: Mapping[str, Any]) -> bool:
    """`no_gradient` as the trainer recorded it; rows of earlier versions lack it, so it is inferred."""
    if (said := row.get("no_gradient")) is not None:
        return bool(said)
    # PPO compares completions of all prompts: equal rewards within each prompt say nothing there.
    constant = row.get("zero_variance_share") == 1.0 and "value_loss" not in row
    return constant or row.get("grad_norm") == 0.0
