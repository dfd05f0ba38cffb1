"""Where the time of training steps goes, as `rlhf-eval status` tells it."""

import json
from pathlib import Path

import pytest

from rlhf_eval.runs.step_times import TAIL, step_times


def row(step: int, generation: float, training: float, tokens: int = 100) -> dict[str, object]:
    seconds = {"generation": generation, "scoring": 0.5, "training": training, "synchronisation": 0.0}
    idle = {"idle_seconds": 0.5, "seconds": generation + training + 1.0}
    parts = {f"{name}_seconds": value for name, value in seconds.items()}
    return {"kind": "train", "step": step, "tokens": tokens, **parts, **idle}


def write(path: Path, *rows: dict[str, object], tail: str = "") -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
    return path


def test_shares_are_of_all_seconds_and_tokens_by_the_second(tmp_path: Path) -> None:
    checkpoint = {"kind": "checkpoint", "step": 1, "kl": 0.1}
    times = step_times(
        write(tmp_path / "m", row(1, 2.0, 1.0), checkpoint, row(2, 4.0, 1.0), tail='{"kind": "tr')
    )
    assert times is not None
    assert times.seconds == pytest.approx(5.0)
    assert times.tokens_per_second == pytest.approx(20.0)
    assert times.shares == pytest.approx(
        {"generation": 0.6, "scoring": 0.1, "training": 0.2, "synchronisation": 0.0, "idle": 0.1}
    )
    assert str(times) == "5 s: generation 60%, scoring 10%, training 20%, idle 10%"


def test_only_the_end_of_a_long_file_counts(tmp_path: Path) -> None:
    early = [row(step, 100.0, 100.0) for step in range(2 * TAIL // 150)]
    late = [row(step, 2.0, 1.0) for step in range(TAIL // 150)]
    times = step_times(write(tmp_path / "m", *early, *late))
    assert times is not None
    assert times.seconds == pytest.approx(4.0)


def test_without_steps_there_is_nothing_to_tell(tmp_path: Path) -> None:
    assert step_times(tmp_path / "absent") is None
    assert step_times(write(tmp_path / "m", {"kind": "checkpoint", "step": 0})) is None
