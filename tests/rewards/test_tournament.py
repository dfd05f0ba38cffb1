"""Strengths from comparisons: those of the Bradley-Terry model, for every schedule."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from rlhf_eval.config.reward_schema import GroupConfig
from rlhf_eval.records import Comparison, PreferenceBatch, user_prompt
from rlhf_eval.rewards.tournament import comparisons_needed, play, strengths

SCHEDULES = ("round_robin", "random", "reference", "knockout")


class ByNumber:
    """Prefers the larger number, as surely as the difference says; counts what it is asked."""

    def __init__(self, broken: str = "") -> None:
        self.asked: list[Comparison] = []
        self.broken = broken

    def __call__(self, comparisons: Sequence[Comparison]) -> PreferenceBatch:
        self.asked += comparisons
        difference = np.array([float(c.completion_a) - float(c.completion_b) for c in comparisons])
        valid = np.array([self.broken not in (c.completion_a, c.completion_b) for c in comparisons], bool)
        return PreferenceBatch(np.where(valid, 1 / (1 + np.exp(-difference)), np.nan), valid)


def groups(*texts: Sequence[str]) -> list:
    return [(user_prompt(str(n), "which?"), group) for n, group in enumerate(texts)]


def test_a_round_robin_without_noise_gives_back_the_strengths() -> None:
    true = np.array([0.3, -1.2, 2.0, 0.0, -1.1])
    (batch,) = play(groups([str(s) for s in true]), GroupConfig(ridge=1e-9), ByNumber())
    assert batch.scores == pytest.approx(true - np.mean(true), abs=1e-5)


@given(
    st.integers(2, 6).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.lists(
                st.tuples(st.integers(0, n - 1), st.integers(0, n - 1), st.floats(0, 1)).filter(
                    lambda game: game[0] != game[1]
                ),
                min_size=1,
                max_size=12,
            ),
        )
    ),
    st.floats(0.01, 2),
)
def test_strengths_are_the_maximum_that_a_general_optimiser_finds(case: tuple, ridge: float) -> None:
    size, games = case

    def loss(s: np.ndarray) -> float:
        fit = sum(
            p * np.logaddexp(0, s[b] - s[a]) + (1 - p) * np.logaddexp(0, s[a] - s[b]) for a, b, p in games
        )
        return fit + ridge / 2 * float(s @ s)

    found = strengths(size, games, ridge)
    played = {place for game in games for place in game[:2]}
    assert set(np.flatnonzero(found.valid)) == played
    expected = minimize(loss, np.zeros(size), tol=1e-10)
    ours = np.where(found.valid, found.scores, 0.0)
    assert loss(ours) <= expected.fun + 1e-7
    assert ours.sum() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("size", [2, 3, 8])
def test_the_cost_is_told_beforehand_and_the_best_is_found(schedule: str, size: int) -> None:
    config = GroupConfig(schedule=schedule)  # type: ignore[arg-type]
    compare = ByNumber()
    texts = [str((7 * n) % size) for n in range(size)]
    first, second = play(groups(texts, texts[::-1]), config, compare)
    needed = 2 * comparisons_needed(config, size)
    assert len(compare.asked) <= needed
    assert len(compare.asked) == needed or schedule == "random"
    assert texts[int(np.argmax(first.scores))] == str(size - 1)
    assert texts[::-1][int(np.argmax(second.scores))] == str(size - 1)
    assert first.valid.all()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_failed_comparisons_leave_a_completion_without_a_score(schedule: str) -> None:
    config = GroupConfig(schedule=schedule)  # type: ignore[arg-type]
    (batch,) = play(groups(["1", "2", "x3", "4"]), config, _failing)
    assert not batch.valid[2]
    assert np.isnan(batch.scores[2])
    assert batch.valid[[0, 1]].all()


def _failing(comparisons: Sequence[Comparison]) -> PreferenceBatch:
    good = [c for c in comparisons if "x3" not in (c.completion_a, c.completion_b)]
    told = dict(zip(good, ByNumber()(good).probabilities, strict=True))
    probabilities = np.array([told.get(c, np.nan) for c in comparisons])
    return PreferenceBatch(probabilities, np.isfinite(probabilities))


def test_one_completion_alone_has_no_score() -> None:
    (batch,) = play(groups(["1"]), GroupConfig(), ByNumber())
    assert batch.valid.tolist() == [False]
