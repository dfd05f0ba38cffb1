"""Seconds of a training step: every moment belongs to one part, or to none."""

from types import SimpleNamespace
from typing import Any

import pytest

from rlhf_eval.training import timing
from rlhf_eval.training.timing import PARTS, Stopwatch, watch


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", made)
    return made


def test_of_nested_parts_the_inner_one_counts(clock: Clock) -> None:
    stopwatch = Stopwatch()
    clock.pass_by(1)
    with stopwatch.part("training"):
        clock.pass_by(2)
        with stopwatch.part("generation"):
            clock.pass_by(4)
            with stopwatch.part("synchronisation"):
                clock.pass_by(8)
            clock.pass_by(16)
        with stopwatch.part("scoring"):
            clock.pass_by(32)
        clock.pass_by(64)
    clock.pass_by(128)
    assert stopwatch.seconds == {"training": 66, "generation": 20, "scoring": 32, "synchronisation": 8}
    assert stopwatch.total == 255
    assert stopwatch.total - sum(stopwatch.seconds.values()) == 129  # idle


def test_what_waits_inside_a_part_is_not_the_parts(clock: Clock) -> None:
    stopwatch = Stopwatch()
    with stopwatch.part("training"):
        clock.pass_by(1)
        with stopwatch.part("idle"):
            clock.pass_by(10)
            with stopwatch.part("scoring"):
                clock.pass_by(100)
    assert stopwatch.seconds == {"training": 1, "generation": 0, "scoring": 100, "synchronisation": 0}
    assert stopwatch.total == 111


def test_the_same_part_inside_itself_counts_once(clock: Clock) -> None:
    stopwatch = Stopwatch()
    with stopwatch.part("scoring"):
        clock.pass_by(1)
        with stopwatch.part("scoring"):
            clock.pass_by(2)
        clock.pass_by(4)
    assert stopwatch.seconds["scoring"] == 7


def test_an_error_ends_the_part_it_comes_from(clock: Clock) -> None:
    stopwatch = Stopwatch()

    def fails() -> None:
        clock.pass_by(3)
        raise ValueError("lost")

    with stopwatch.part("training"):
        with pytest.raises(ValueError, match="lost"):
            stopwatch.timed("scoring", fails)()
        clock.pass_by(5)
    assert (stopwatch.seconds["scoring"], stopwatch.seconds["training"]) == (3, 5)


def test_a_new_step_begins_at_nothing(clock: Clock) -> None:
    stopwatch = Stopwatch()
    with stopwatch.part("training"):
        clock.pass_by(1)
    stopwatch.reset()
    clock.pass_by(2)
    assert stopwatch.seconds == dict.fromkeys(PARTS, 0.0)
    assert stopwatch.total == 2


def test_a_trainers_parts_are_told_apart(clock: Clock) -> None:
    class Trainer:
        """The methods of TRL's trainers that are watched, one calling the other as they do."""

        accelerator = SimpleNamespace(device=SimpleNamespace(type="cpu"))

        def __init__(self) -> None:
            def reward(texts: list[str]) -> list[float]:
                clock.pass_by(8)
                return [1.0 for _ in texts]

            self.reward_funcs: list[Any] = [reward]

        def training_step(self) -> list[float]:
            rewards = self._calculate_rewards(self._generate())
            clock.pass_by(1)
            return rewards

        def _generate(self) -> list[str]:
            texts = self._generate_single_turn()
            clock.pass_by(2)  # gathering lengths from other processes
            return texts

        def _generate_single_turn(self) -> list[str]:
            clock.pass_by(4)
            return ["a", "b"]

        def _calculate_rewards(self, texts: list[str]) -> list[float]:
            rewards = self.reward_funcs[0](texts)
            clock.pass_by(16)  # gathering rewards from other processes
            return rewards

    trainer = Trainer()
    stopwatch = watch(trainer)
    assert trainer.training_step() == [1.0, 1.0]
    assert stopwatch.seconds == {"training": 1, "generation": 4, "scoring": 8, "synchronisation": 0}
    assert stopwatch.total == 31
    assert trainer.reward_funcs[0].__name__ == "reward"  # under which TRL logs it
