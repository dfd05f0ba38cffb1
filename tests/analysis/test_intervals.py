import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from rlhf_eval.analysis.intervals import nested_bootstrap, percentile_interval, wilson


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(case: tuple[int, int]) -> None:
    successes, n = case
    expected = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_one_seed_gives_the_standard_error_of_the_mean_over_prompts() -> None:
    values = np.random.default_rng(0).random((400, 1))
    result = nested_bootstrap(values, np.array([0]), bootstraps=20_000)
    assert result.scores[0] == pytest.approx(values.mean())
    assert result.draws.std() == pytest.approx(values.std() / 20, rel=0.03)


def test_seeds_add_the_unbiased_variance_of_their_mean() -> None:
    """Prompts all alike: only seeds vary, and var = s²/S with s² the sample variance, at S = 2 as at 5."""
    for seeds in (2, 5):
        means = np.random.default_rng(seeds).random(seeds)
        result = nested_bootstrap(np.tile(means, (50, 1)), np.zeros(seeds, int), bootstraps=20_000)
        assert result.draws.var() == pytest.approx(means.var(ddof=1) / seeds, rel=0.05)


def test_prompts_are_paired_so_a_constant_lead_is_certain() -> None:
    base = np.random.default_rng(0).random(300)
    result = nested_bootstrap(np.column_stack([base + 0.001, base]), np.array([0, 1]))
    assert (result.draws[:, 0] > result.draws[:, 1]).all()
    low, high = percentile_interval(result.draws)
    assert high[1] > low[0], "the intervals overlap although the order is certain"


def test_missing_verdicts_are_left_out_of_the_mean() -> None:
    values = np.array([[0.2, 0.2], [0.4, np.nan], [0.9, 0.4]])
    result = nested_bootstrap(values, np.array([0, 1]))
    assert result.scores == pytest.approx([0.5, 0.3])
    assert np.isfinite(result.draws).all()


def test_same_seed_same_draws() -> None:
    values, groups = np.random.default_rng(0).random((50, 4)), np.array([0, 0, 1, 1])
    first = nested_bootstrap(values, groups, seed=3).draws
    assert np.array_equal(first, nested_bootstrap(values, groups, seed=3).draws)
    assert not np.array_equal(first, nested_bootstrap(values, groups, seed=4).draws)


def test_nine_reward_models_take_well_under_a_second() -> None:
    values = np.random.default_rng(0).random((600, 18))
    start = time.perf_counter()
    nested_bootstrap(values, np.repeat(np.arange(9), 2))
    assert time.perf_counter() - start < 2, "0.05 s on an idle core"


@pytest.mark.parametrize(("seeds", "least"), [(1, 0.90), (4, 0.84)])
def test_intervals_cover_a_known_truth(seeds: int, least: float) -> None:
    """Six reward models with true means, prompts with difficulty, seeds with luck (none for one seed).

    One seed has a narrower claim (prompts only) and full coverage of it; with four seeds a percentile
    bootstrap within the group is known to be somewhat short. Bounds are wide: 40 × 6 intervals.
    """
    rng = np.random.default_rng(0)
    truth = np.linspace(0.3, 0.7, 6)
    luck = 0.02 if seeds > 1 else 0.0
    covered = []
    for trial in range(40):
        difficulty = rng.normal(0, 0.15, 200)
        runs = np.repeat(truth, seeds) + rng.normal(0, luck, 6 * seeds)
        values = runs + difficulty[:, None] + rng.normal(0, 0.2, (200, 6 * seeds))
        result = nested_bootstrap(values, np.repeat(np.arange(6), seeds), bootstraps=500, seed=trial)
        low, high = percentile_interval(result.draws)
        covered += list((low <= truth) & (truth <= high))
    assert least <= np.mean(covered) <= 0.99
