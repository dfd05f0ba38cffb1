"""Fits of reward over the distance from the initial policy: against known curves and scipy."""

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import curve_fit, minimize_scalar
from scipy.stats import t

from rlhf_eval.analysis.reward_fit import Fit, Form, Points, design, draws, fit, together, turns

FORMS: list[Form] = ["best_of_n", "rl"]
SIZE = st.floats(0.01, 10).map(lambda x: round(x, 3))
DISTANCES = st.lists(st.integers(1, 400), min_size=3, max_size=20, unique=True).map(
    lambda steps: np.array(steps) / 40
)


def best_of_n(d: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    return d * (alpha - beta * d)


def rl(d: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    return d * (alpha - beta * np.log(d))


FORMULA = {"best_of_n": best_of_n, "rl": rl}


def noisy(form: Form, rng: np.random.Generator, alpha: float = 1.0, beta: float = 0.3, n: int = 9) -> Points:
    d = np.linspace(0.4, 5, n)
    return d, FORMULA[form](d, alpha, beta) + rng.normal(0, 0.1, n)


@given(st.sampled_from(FORMS), SIZE, SIZE, st.booleans(), DISTANCES)
def test_a_known_curve_is_found_again(
    form: Form, alpha: float, beta: float, rising: bool, distances: np.ndarray
) -> None:
    beta = -beta if rising else beta
    found = fit(form, (distances, FORMULA[form](distances, alpha, beta)))
    assert found is not None
    assert (found.alpha, found.beta) == pytest.approx((alpha, beta), rel=1e-6, abs=1e-6)
    assert found.residual_sd == pytest.approx(0, abs=1e-6)
    assert found.at(distances) == pytest.approx(FORMULA[form](distances, alpha, beta), abs=1e-6)


@pytest.mark.parametrize(
    ("form", "alpha", "beta"), [("best_of_n", 1.2, 0.3), ("rl", 1.2, 0.7), ("rl", -0.1, 0.5)]
)
def test_the_turn_is_where_the_curve_is_highest(form: Form, alpha: float, beta: float) -> None:
    highest: Any = minimize_scalar(
        lambda d: -FORMULA[form](d, alpha, beta), bounds=(1e-9, 50), method="bounded"
    )
    found = Fit(form, alpha, beta, None, 0.0)
    assert found.turn == pytest.approx(highest.x, abs=1e-4)
    assert found.at(np.array([found.turn]))[0] == pytest.approx(-highest.fun)


def test_a_curve_without_a_turn_has_none() -> None:
    coefficients = np.array([[1.0, 0.0], [1.0, -0.2], [-1.0, -0.2], [0.0, 0.0], [1.0, 1e-300]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for form in FORMS:
            assert np.isinf(turns(form, coefficients[:4])).all()
        assert np.isinf(turns("rl", coefficients[4:]))
        assert turns("best_of_n", np.array([[-1.0, 0.2]])) == 0


@pytest.mark.parametrize("form", FORMS)
def test_a_point_at_the_initial_policy_has_no_say(form: Form) -> None:
    d, gains = noisy(form, np.random.default_rng(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        there = design(form, np.array([0.0]))
    assert not there.any()
    with_it = fit(form, (np.append(d, 0.0), np.append(gains, 0.0)))
    without = fit(form, (d, gains))
    assert with_it is not None
    assert without is not None
    assert (with_it.alpha, with_it.beta) == pytest.approx((without.alpha, without.beta))


@pytest.mark.parametrize(
    "distances", [[1.0, 2.0], [], [2.0, 2.0, 2.0], [1.0, 1.0, 1.0], [3.0, 3.0, 3.0 + 1e-9]]
)
def test_what_settles_no_curve_is_not_fitted(distances: list[float]) -> None:
    d = np.array(distances)
    assert [fit(form, (d, np.arange(len(d), dtype=float))) for form in FORMS] == [None, None]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", range(4))
def test_one_seed_agrees_with_scipy(form: Form, seed: int) -> None:
    """Estimates with curve_fit's, intervals with Student's from its covariance."""
    points = noisy(form, np.random.default_rng(seed), n=6)
    expected, covariance = curve_fit(FORMULA[form], *points, p0=(1, 1))
    found = fit(form, points)
    assert found is not None
    assert (found.alpha, found.beta) == pytest.approx(tuple(expected), rel=1e-5)
    residuals = points[1] - FORMULA[form](points[0], *expected)
    assert found.residual_sd == pytest.approx(np.sqrt((residuals**2).sum() / 4), rel=1e-5)
    explained = 1 - (residuals**2).mean() / points[1].var()
    assert found.r_squared == pytest.approx(explained, rel=1e-5)
    half = t.ppf(0.975, 4) * np.sqrt(np.diag(covariance))
    low, high = np.quantile(draws(form, [points], 60_000), [0.025, 0.975], axis=0)
    assert low == pytest.approx(expected - half, abs=0.06 * half.max())
    assert high == pytest.approx(expected + half, abs=0.06 * half.max())


def test_equal_points_have_no_share_of_variance_explained() -> None:
    found = fit("rl", (np.array([1.0, 2.0, 3.0]), np.zeros(3)))
    assert found is not None
    assert (found.alpha, found.beta, found.r_squared) == (0, 0, None)


@given(st.sampled_from(FORMS), st.floats(1e-3, 1e3), st.integers(0, 9))
def test_the_unit_of_reward_changes_no_distance(form: Form, unit: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    seeds = [noisy(form, rng), noisy(form, rng, alpha=1.1)]
    other = [(d, unit * gains) for d, gains in seeds]
    one, scaled = draws(form, seeds, 50), draws(form, other, 50)
    assert scaled == pytest.approx(unit * one, rel=1e-6, abs=1e-9 * unit)
    assert turns(form, scaled) == pytest.approx(turns(form, one), rel=1e-4)


@pytest.mark.parametrize(("seeds", "luck"), [(2, 0.0), (3, 0.05), (5, 0.15)])
def test_intervals_of_several_seeds_hold_the_truth(seeds: int, luck: float) -> None:
    rng = np.random.default_rng(seeds)
    held = []
    for _ in range(200):
        runs = [
            noisy("rl", rng, 1 + luck * rng.standard_normal(), 0.3 + 0.3 * luck * rng.standard_normal())
            for _ in range(seeds)
        ]
        drawn = draws("rl", runs, 400)
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        held.append((low <= [1, 0.3]) & (high >= [1, 0.3]))
    assert (np.mean(held, axis=0) >= 0.88).all(), np.mean(held, axis=0)


def test_seeds_that_agree_perfectly_leave_nothing_open() -> None:
    d = np.array([0.5, 1.0, 2.0, 4.0])
    seeds = [(d, rl(d, 1.0, 0.3)), (2 * d, rl(2 * d, 1.0, 0.3))]
    assert draws("rl", seeds, 20) == pytest.approx(np.tile([1.0, 0.3], (20, 1)))
    found = fit("rl", together(seeds))
    assert found is not None
    assert found.turn == pytest.approx(np.exp(1 / 0.3 - 1))


def test_the_same_seed_gives_the_same_draws() -> None:
    points = noisy("rl", np.random.default_rng(0))
    assert (draws("rl", [points], 10) == draws("rl", [points], 10)).all()
    assert (draws("rl", [points], 10) != draws("rl", [points], 10, seed=1)).any()
