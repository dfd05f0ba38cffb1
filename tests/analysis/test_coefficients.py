import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from rlhf_eval.analysis.coefficient_intervals import kendall_interval, pearson_interval, spearman_interval
from rlhf_eval.analysis.coefficients import (
    COEFFICIENTS,
    WITHOUT_EACH,
    kendall,
    pearson,
    pearson_without_each,
    spearman,
)

COLUMN = arrays(float, (2, 7), elements=st.integers(-5, 5).map(float))


@given(COLUMN)
def test_coefficients_are_scipys_ties_included(data: np.ndarray) -> None:
    x, y = data
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert np.isnan([pearson(x, y), spearman(x, y), kendall(x, y)]).all()
        return
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-9)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-9)
    assert kendall(x, y) == pytest.approx(stats.kendalltau(x, y)[0], abs=1e-9)


@given(COLUMN)
def test_without_each_point_is_the_coefficient_of_the_others(data: np.ndarray) -> None:
    x, y = data
    for name, function in COEFFICIENTS.items():
        expected = [function(np.delete(x, i), np.delete(y, i)) for i in range(len(x))]
        assert WITHOUT_EACH[name](x, y) == pytest.approx(np.array(expected), abs=1e-9, nan_ok=True)


def test_many_samples_at_once() -> None:
    x, y = np.random.default_rng(0).random((2, 50, 6))
    for functions in (COEFFICIENTS, WITHOUT_EACH):
        for function in functions.values():
            one_by_one = np.array([function(a, b) for a, b in zip(x, y, strict=True)])
            assert function(x, y) == pytest.approx(one_by_one)


@pytest.mark.parametrize("n", [5, 8, 20])
@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_intervals_cover_what_they_promise(n: int, rho: float) -> None:
    """Over 4,000 normal samples. Ranks of five points take few values: 95 % cannot be met at each ρ."""
    x, noise = np.random.default_rng(n).normal(size=(2, 4000, n))
    y = rho * x + np.sqrt(1 - rho**2) * noise
    intervals = (
        (rho, pearson_interval(pearson(x, y), pearson_without_each(x, y), n)),
        (6 / np.pi * np.arcsin(rho / 2), spearman_interval(spearman(x, y), n)),
        (2 / np.pi * np.arcsin(rho), kendall_interval(kendall(x, y), n)),
    )
    for target, (low, high) in intervals:
        coverage = 100 * np.mean((low <= target) & (target <= high))
        assert 92.5 <= coverage <= (97.5 if n > 5 else 99.5), (target, coverage)


def test_intervals_shrink_with_n_and_say_nothing_of_three_points() -> None:
    for interval in (spearman_interval, kendall_interval):
        ends = np.array([interval(np.array(0.5), n) for n in (3, 6, 12, 100, 1000)])
        assert ends[0].tolist() == [-1, 1]
        assert (np.diff(ends[:, 1] - ends[:, 0]) < 0).all()
    low, high = spearman_interval(np.array(0.5), 1000)
    # Bonett and Wright 2000: Fisher's z with standard error √((1 + ρ²/2)/(n − 3)).
    half = 1.96 * np.sqrt((1 + 0.125) / 997)
    assert (low, high) == pytest.approx(tuple(np.tanh(np.arctanh(0.5) + half * np.array([-1, 1]))), abs=0.01)
