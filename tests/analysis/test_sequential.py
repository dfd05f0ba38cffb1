"""Tests that may be looked at any time err as rarely as they say, and stop early where gaps are clear."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rlhf_eval.analysis.sequential import Question, Standing, log_capital, question_named, standing
from rlhf_eval.errors import ConfigError

LEVEL = 0.05


def judged_until_settled(
    values: np.ndarray, question: Question, rng: np.random.Generator, batch: int = 20
) -> tuple[Standing, int]:
    """What is found of policies' values, shape (policies, prompts), and how many of these were looked at."""
    n, prompts = values.shape
    shuffled = values[:, rng.permutation(prompts)]
    seen = [np.zeros(0)] * n
    found, reached = standing(seen, prompts, question, LEVEL), 0
    while not found.settled:
        assert reached < prompts
        reached = min(reached + batch, prompts)
        seen = [shuffled[i, :reached] if found.active[i] else seen[i] for i in range(n)]
        found = standing(seen, prompts, question, LEVEL)
    return found, sum(map(len, seen))


def wins(rates: list[float], prompts: int, rng: np.random.Generator) -> np.ndarray:
    """Values 0 or 1 with exactly these win rates."""
    rows = [np.arange(prompts) < round(rate * prompts) for rate in rates]
    return np.array([rng.permutation(row) for row in rows], dtype=float)


@pytest.mark.parametrize("kind", ["binary", "graded", "rare"])
def test_equal_scores_are_called_different_no_oftener_than_the_level_says(kind: str) -> None:
    rng, prompts, repeats = np.random.default_rng(0), 120, 3000
    if kind == "binary":
        differences = np.repeat([-1.0, 0.0, 1.0], [30, 60, 30])
    elif kind == "graded":
        differences = rng.uniform(-1, 1, prompts)
    else:
        differences = np.repeat([-0.02, 1.0], [117, 3])
    differences -= differences.mean()  # exactly the edge of "not better": the hardest case
    differences /= max(1.0, np.abs(differences).max())
    orders = np.array([rng.permutation(differences) for _ in range(repeats)]).T
    ever = (log_capital(orders, prompts).max(axis=0) >= np.log(1 / LEVEL)).mean()
    assert ever <= LEVEL + 0.008
    assert ever > 0 or kind == "rare"


@given(
    arrays(np.float64, st.integers(1, 12), elements=st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0])),
    st.integers(0, 30),
)
@settings(max_examples=200)
def test_the_bettor_gains_nothing_on_average_over_all_orders(differences: np.ndarray, seed: int) -> None:
    differences = differences - differences.mean()
    differences = differences / max(1.0, np.abs(differences).max())
    rng = np.random.default_rng(seed)
    prompts, stop = len(differences), rng.integers(1, len(differences) + 1)
    orders = np.array([rng.permutation(differences) for _ in range(400)]).T
    capital = np.exp(log_capital(orders, prompts)[stop - 1])
    assert capital.mean() <= 1 + 5 * capital.std() / 20 + 1e-6


@given(arrays(np.float64, st.integers(1, 60), elements=st.sampled_from([-1.0, -0.3, 0.0, 0.4, 1.0])))
@settings(max_examples=200)
def test_after_all_prompts_every_difference_is_certain_and_no_other_is(differences: np.ndarray) -> None:
    capital = log_capital(differences, len(differences))
    if differences.sum() > 1e-6:
        assert capital[-1] == np.inf
    if differences.sum() < -1e-6:
        assert np.isfinite(capital[-1])
    sums = differences.cumsum()
    left = len(differences) - np.arange(1, len(differences) + 1)
    assert (sums[np.isinf(capital)] > left[np.isinf(capital)]).all()


@pytest.mark.parametrize(
    ("rates", "text", "most"),
    [
        ([0.7, 0.45, 0.4, 0.3], "best", 0.35),
        ([0.8, 0.78, 0.3, 0.25], "top:2", 0.25),
        ([0.9, 0.6, 0.3], "order", 0.5),
        ([0.8, 0.2, 0.5], "untrained", 0.35),
    ],
)
def test_clear_gaps_are_settled_early_and_right(rates: list[float], text: str, most: float) -> None:
    rng, used, wrong, repeats = np.random.default_rng(1), [], 0, 40
    question = question_named(text, len(rates))
    for _ in range(repeats):
        values = wins(rates, 400, rng)
        found, looked = judged_until_settled(values, question, rng)
        used.append(looked / values.size)
        true = values.mean(axis=1)
        wrong += bool((found.better & (true[:, None] <= true)).any())
        if question.kind == "top":
            places = np.argsort(-true)[: question.places]
            wrong += set(np.flatnonzero(found.inside)) != set(places)
    assert np.mean(used) < most
    assert wrong <= 2


def test_close_policies_are_judged_on_all_prompts_and_then_the_whole_set_decides() -> None:
    rng = np.random.default_rng(2)
    values = wins([0.5, 0.4975, 0.2], 400, rng)
    found, _ = judged_until_settled(values, question_named("best", 3), rng)
    assert found.inside.tolist() == [True, False, False]


def test_a_tie_is_never_resolved() -> None:
    rng = np.random.default_rng(3)
    found, looked = judged_until_settled(wins([0.5, 0.5], 100, rng), question_named("order", 2), rng)
    assert found.settled
    if not found.better.any():  # an error of the test itself has probability LEVEL
        assert looked == 200
    assert not (found.better & found.better.T).any()


def test_the_error_over_all_pairs_of_close_policies_is_within_the_level() -> None:
    rng, wrong, repeats = np.random.default_rng(4), 0, 150
    for _ in range(repeats):
        values = wins([0.52, 0.51, 0.5, 0.5], 100, rng)
        found, _ = judged_until_settled(values, question_named("order", 4), rng, batch=5)
        true = values.sum(axis=1)
        wrong += bool((found.better & (true[:, None] <= true)).any())
    assert wrong / repeats <= LEVEL + 0.03


def test_who_is_settled_is_not_judged_further() -> None:
    rng = np.random.default_rng(5)
    shuffled = wins([0.9, 0.88, 0.05, 0.02], 500, rng)[:, rng.permutation(500)]
    found = standing([row[:60] for row in shuffled], 500, question_named("best", 4), LEVEL)
    assert found.active.tolist() == [True, True, False, False]
    found = standing([*shuffled[:2, :400], *shuffled[2:, :60]], 500, question_named("best", 4), LEVEL)
    assert not found.active[2:].any()


def test_a_failed_verdict_counts_as_a_tie() -> None:
    rng = np.random.default_rng(6)
    values = wins([0.9, 0.1], 200, rng)
    spoilt = values.copy()
    spoilt[0, ::2] = np.nan
    halved = np.where(np.arange(200) % 2 == 0, 0.5, values)
    question = question_named("order", 2)
    for end in (30, 60, 200):
        ours = standing(list(spoilt[:, :end]), 200, question, LEVEL)
        assert ours.better.tolist() == standing(list(halved[:, :end]), 200, question, LEVEL).better.tolist()


def test_unknown_questions_are_refused() -> None:
    for text in ("bst", "top", "top:0", "top:4", "top:x", "best:2"):
        with pytest.raises(ConfigError, match="no question"):
            question_named(text, 4)
