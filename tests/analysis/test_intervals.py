import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from rlhf_eval.analysis.intervals import (
    Estimates,
    estimate,
    percentile_interval,
    rank_interval,
    weighted_sum,
    wilson,
)


def of(values: np.ndarray, groups: list[int], trained: bool = True) -> Estimates:
    return estimate({"alpaca_eval": values}, np.array(groups), np.full(max(groups) + 1, trained))


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(case: tuple[int, int]) -> None:
    successes, n = case
    expected = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_draws_are_the_bootstrap_of_the_mean_over_prompts() -> None:
    """Influence is no approximation where every run answered every prompt: counts of prompts, weighted."""
    values = np.random.default_rng(0).random((400, 2))
    draws = of(values, [0, 1]).draws(5000, seed=7)
    counts = np.random.default_rng(7).multinomial(400, np.full(400, 1 / 400), size=5000)
    assert draws == pytest.approx(counts @ values / 400)
    assert draws.std(axis=0) == pytest.approx(values.std(axis=0) / 20, rel=0.05)


def test_seeds_add_the_variance_of_their_mean_pooled_over_reward_models() -> None:
    """Prompts all alike: only seeds vary, and σ²/S with σ² the pooled sample variance."""
    means = np.random.default_rng(1).random(9)
    groups = [0, 0, 1, 1, 1, 2, 2, 2, 2]
    result = of(np.tile(means, (50, 1)), groups)
    split = [means[:2], means[2:5], means[5:]]
    pooled = sum(((own - own.mean()) ** 2).sum() for own in split) / 6
    (luck,) = result.luck
    assert luck.observed == 6
    assert luck.degrees == pytest.approx([6, 6, 6])
    assert luck.variance == pytest.approx([pooled / 2, pooled / 3, pooled / 4])
    assert result.draws(40_000)[:, 0].var() == pytest.approx(pooled / 2 * 6 / 4, rel=0.1)  # t with 6 degrees


def test_chance_within_a_prompt_is_not_counted_twice() -> None:
    """Seeds that differ by nothing but the answer to each prompt: the prompts' part of the noise holds it."""
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(40):
        values = rng.normal(0, 1, (200, 12))
        result = of(values, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
        ratios.append(result.draws(1000).var(axis=0).mean() / (1 / (200 * 3)))
    assert 1 <= np.mean(ratios) <= 1.4  # a variance that cannot fall below zero leaves a little; twice is 2.3


def test_a_reward_model_of_one_seed_borrows_the_spread_of_the_others() -> None:
    result = of(np.tile([0.2, 0.4, 0.3], (50, 1)), [0, 0, 1])
    assert result.luck[0].variance == pytest.approx([0.01, 0.02])
    assert of(np.tile([0.2, 0.3], (50, 1)), [0, 1]).luck == ()


def test_what_is_not_trained_has_no_luck() -> None:
    values = np.tile([0.2, 0.4, 0.5], (50, 1))
    result = estimate({"alpaca_eval": values}, np.array([0, 0, 1]), np.array([True, False]))
    assert result.luck[0].variance[1] == 0
    assert result.draws(100)[:, 1] == pytest.approx(0.5)


def test_prompts_are_paired_so_a_constant_lead_is_certain() -> None:
    base = np.random.default_rng(0).random(300)
    result = of(np.column_stack([base + 0.001, base]), [0, 1])
    draws = result.draws()
    assert (draws[:, 0] > draws[:, 1]).all()
    low, high = percentile_interval(draws)
    assert high[1] > low[0], "the intervals overlap although the order is certain"
    error, _ = result.difference_errors()
    assert error[0, 1] == pytest.approx(0, abs=1e-9)


def test_the_standard_error_of_a_difference_is_that_of_paired_values() -> None:
    values = np.random.default_rng(0).random((80, 2))
    error, degrees = of(values, [0, 1]).difference_errors()
    assert error[0, 1] == pytest.approx(np.diff(values).std(ddof=1) / np.sqrt(80))
    assert degrees[0, 1] == pytest.approx(79)


def test_missing_verdicts_are_left_out_of_the_mean() -> None:
    values = np.array([[0.2, 0.2], [0.4, np.nan], [0.9, 0.4]])
    result = of(values, [0, 1])
    assert result.scores == pytest.approx([0.5, 0.3])
    assert np.isfinite(result.draws()).all()


def test_same_seed_same_draws() -> None:
    result = of(np.random.default_rng(0).random((50, 4)), [0, 0, 1, 1])
    assert np.array_equal(result.draws(seed=3), result.draws(seed=3))
    assert not np.array_equal(result.draws(seed=3), result.draws(seed=4))


def test_settings_share_prompts_and_not_luck() -> None:
    rng = np.random.default_rng(0)
    prompts = rng.random((300, 1))
    one, other = (of(prompts + rng.normal(0, 0.02, 4), [0, 0, 1, 1]) for _ in range(2))
    mean = weighted_sum([one, other], [0.5, 0.5])
    assert mean.scores == pytest.approx((one.scores + other.scores) / 2)
    assert mean.influence["alpaca_eval"] == pytest.approx(one.influence["alpaca_eval"])  # the same prompts
    variances = np.array([luck.variance for luck in mean.luck])
    assert variances == pytest.approx(np.array([one.luck[0].variance, other.luck[0].variance]) / 4)
    difference = weighted_sum([one, other], [1, -1])
    assert difference.influence["alpaca_eval"] == pytest.approx(0, abs=1e-12)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=60))
def test_ranks_within_the_interval_hold_the_middle_of_the_distribution(ranks: list[int]) -> None:
    low, high = rank_interval(np.array(ranks, float)[:, None])
    array = np.array(ranks)
    assert low[0] <= np.median(array) <= high[0] or low[0] == high[0]
    for rank in set(ranks):
        middle = np.mean(array < rank) + np.mean(array == rank) / 2
        assert (low[0] <= rank <= high[0]) == (0.025 <= middle <= 0.975)


@pytest.mark.parametrize("seeds", [2, 4])
def test_intervals_cover_a_known_truth(seeds: int) -> None:
    """A glimpse of bench/coverage.py; bounds are those of 60 experiments whose scores share their prompts."""
    rng = np.random.default_rng(0)
    truth = np.linspace(0.3, 0.7, 6)
    covered = []
    for trial in range(60):
        difficulty = rng.normal(0, 0.05, 200)
        runs = np.repeat(truth, seeds) + rng.normal(0, 0.02, 6 * seeds)
        values = runs + difficulty[:, None] + rng.normal(0, 0.2, (200, 6 * seeds))
        draws = of(values, list(np.repeat(range(6), seeds))).draws(500, trial)
        low, high = percentile_interval(draws)
        covered.append(np.mean((low <= truth) & (truth <= high)))
    assert 0.91 <= np.mean(covered) <= 0.99
