"""Which training steps taught the policy nothing, by what the trainer wrote of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.files import append_jsonl
from rlhf_eval.learning import gradient_steps, gradient_steps_in, gradient_warning

HEALTHY = {"loss": 0.1, "zero_variance_share": 0.25, "grad_norm": 0.5, "truncated_share": 0.0}


@pytest.mark.parametrize(
    ("fields", "without"),
    [
        # What the trainer says counts, whatever the other numbers are.
        ({"no_gradient": True}, 1),
        ({"no_gradient": True, "zero_variance_share": 0.5, "grad_norm": 0.3}, 1),
        ({"no_gradient": False, "zero_variance_share": 1.0, "grad_norm": 0.0}, 0),
        # Rows of earlier versions.
        ({"zero_variance_share": 1.0, "grad_norm": 0.02}, 1),
        ({"zero_variance_share": 0.5, "grad_norm": 0.0}, 1),
        ({"grad_norm": 0.0}, 1),
        ({"zero_variance_share": 0.999, "grad_norm": 0.001}, 0),
        # Unknown is not "none"; that every completion was cut off proves nothing.
        ({}, 0),
        ({"zero_variance_share": None, "grad_norm": None}, 0),
        ({"zero_variance_share": float("nan"), "grad_norm": float("nan")}, 0),
        ({"truncated_share": 1.0, "grad_norm": 0.3}, 0),
    ],
)
def test_a_step_without_gradient_is_known_by_its_row(
    tmp_path: Path, fields: dict[str, Any], without: int
) -> None:
    row = {"kind": "train", "step": 1, "loss": 0.0} | fields
    assert gradient_steps([row]) == (without, 1)
    for order in (row, dict(reversed(row.items()))):
        (tmp_path / "metrics.jsonl").unlink(missing_ok=True)
        append_jsonl(tmp_path / "metrics.jsonl", order)
        assert gradient_steps_in(tmp_path / "metrics.jsonl") == (without, 1)


def test_only_training_steps_count_and_a_repeated_one_as_it_was_done_last() -> None:
    rows: list[dict[str, Any]] = [
        {"kind": "checkpoint", "step": 0, "zero_variance_share": 1.0},
        {"kind": "train", "step": 1} | HEALTHY,
        {"kind": "train", "step": 2, "no_gradient": True},
        {"kind": "train", "step": 2, "no_gradient": False},
        {"kind": "train", "step": 3, "no_gradient": True},
    ]
    assert gradient_steps(rows) == (1, 3)
    assert gradient_steps([]) == (0, 0)


@pytest.mark.parametrize("fields", [HEALTHY, {"no_gradient": True}])
def test_a_file_that_is_being_written_or_is_damaged_counts_its_whole_lines(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    metrics, without = tmp_path / "metrics.jsonl", 2 * ("no_gradient" in fields)
    assert gradient_steps_in(metrics) == (0, 0)
    append_jsonl(metrics, *({"kind": "train", "step": step} | fields for step in (1, 2)))
    with metrics.open("a") as stream:
        stream.write('[1]\nnothing\n{"kind": "train", "no_gradient": null}\n')
    assert gradient_steps_in(metrics)[0] == without
    with metrics.open("a") as stream:
        stream.write(json.dumps({"kind": "train", "step": 4, "no_gradient": True})[:-3])
    assert gradient_steps_in(metrics)[0] == without


def test_more_than_half_of_the_steps_are_a_warning() -> None:
    assert gradient_warning(40, 40) == "no gradient in 40 of 40 steps"
    assert gradient_warning(21, 40) == "no gradient in 21 of 40 steps"
    assert [gradient_warning(*pair) for pair in ((20, 40), (3, 40), (0, 40), (0, 0))] == [None] * 4
