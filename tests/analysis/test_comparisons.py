"""Which scores can be told apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from rlhf_eval.analysis.comparisons import (
    best_controls,
    compared_with,
    holm,
    leads,
    p_values,
    probability_best,
    separable,
    tiers,
)
from rlhf_eval.analysis.intervals import estimate


def test_one_seed_each_is_the_paired_t_test() -> None:
    values = np.random.default_rng(0).normal([0.5, 0.52, 0.55], 0.2, (120, 3))
    found = p_values(estimate({"a": values}, np.arange(3), np.full(3, True)))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert found[i, j] == found[j, i] == pytest.approx(ttest_rel(values[:, i], values[:, j]).pvalue)
    assert np.diag(found) == pytest.approx(1)


def test_holm_by_hand() -> None:
    """Holm's own steps: 4 × .005, 3 × .01, 2 × .03, 1 × .04 kept from falling below the one before."""
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_lies_between_the_raw_and_bonferronis(p: list[float]) -> None:
    raw = np.array(p)
    adjusted = holm(raw)
    assert (adjusted >= raw).all()
    assert (adjusted <= np.minimum(raw * len(raw), 1) + 1e-12).all()
    order = np.argsort(raw)
    assert (np.diff(adjusted[order]) >= 0).all()


def test_no_false_difference_among_equals() -> None:
    """Family error of Holm over 15 pairs of six equal reward models, of three seeds with luck."""
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(200):
        runs = rng.normal(0, 0.02, 18)
        values = runs + rng.normal(0, 0.2, (150, 1)) + rng.normal(0, 0.3, (150, 18))
        found = estimate({"a": values}, np.repeat(np.arange(6), 3), np.full(6, True))
        wrong += separable(found, range(6)).any()
    assert wrong / 200 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)


def test_tiers_begin_where_the_top_is_left_behind() -> None:
    scores = np.array([50.0, 70.0, 68.0, 60.0, 59.0])
    apart = np.abs(scores[:, None] - scores) > 9
    assert list(tiers(scores, apart)) == [3, 1, 1, 2, 2]


def test_equal_scores_without_noise_are_one_tier() -> None:
    found = estimate({"a": np.full((30, 4), 0.5)}, np.arange(4), np.full(4, True))
    assert not separable(found, range(4)).any()
    assert list(tiers(found.scores, separable(found, range(4)))) == [1, 1, 1, 1]


def test_against_one_reference_the_family_is_the_reward_models() -> None:
    values = np.random.default_rng(0).normal([0.5, 0.52, 0.55, 0.5], 0.2, (120, 4))
    found = estimate({"a": values}, np.arange(4), np.full(4, True))
    raw = p_values(found)[:3, 3]
    assert compared_with(found, range(3), 3) == pytest.approx(holm(raw))


def test_the_probability_of_being_best_is_shared_by_equals_and_not_by_controls() -> None:
    draws = np.array([[3.0, 3.0, 9.0], [1.0, 2.0, 9.0]])
    assert list(probability_best(draws, np.array([False, False, True]))) == [0.25, 0.75, 0.0]


def test_the_best_control_of_a_control_is_another() -> None:
    scores, control = np.array([9.0, 5.0, 4.0]), np.array([False, True, True])
    assert best_controls(scores, control) == [1, 2, 1]
    assert best_controls(scores[:2], control[:2]) == [1, None]


def test_leads_are_paired() -> None:
    common = np.random.default_rng(0).normal(0, 10, 500)
    draws = np.column_stack([common + 1, common])
    first, second = leads("difference", np.array([1.0, 0.0]), draws, [1, None])
    assert first == pytest.approx({"difference": 1, "difference_low": 1, "difference_high": 1})
    assert second == {"difference": None, "difference_low": None, "difference_high": None}
