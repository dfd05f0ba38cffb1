"""Variances known from few observations, moderated by those of all groups."""

import numpy as np
import pytest
from scipy.special import polygamma

from rlhf_eval.analysis.moderated import _inverse_trigamma, moderated


def test_groups_that_differ_by_chance_share_the_pooled_variance() -> None:
    variances, degrees = np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0])
    found, known = moderated(variances, degrees)
    assert found == pytest.approx([17 / 6] * 3)
    assert list(known) == [6, 6, 6]


def test_a_known_prior_is_found_again() -> None:
    """Variances drawn from a scaled inverse χ² with 4 degrees and scale 9, seen with 6 degrees each."""
    rng = np.random.default_rng(0)
    true = 9 * 4 / rng.chisquare(4, 4000)
    seen = true * rng.chisquare(6, 4000) / 6
    found, known = moderated(seen, np.full(4000, 6.0))
    assert known[0] - 6 == pytest.approx(4, rel=0.15)
    assert np.mean((np.log(found) - np.log(true)) ** 2) < np.mean((np.log(seen) - np.log(true)) ** 2)
    # What remains of the formula: (4 · 9 + 6 · seen) / 10.
    assert found == pytest.approx((4 * 9 + 6 * seen) / 10, rel=0.1)


def test_a_group_without_degrees_has_the_prior_of_the_others() -> None:
    rng = np.random.default_rng(1)
    seen = np.append(np.exp(rng.normal(0, 2, 50)), 0.0)
    degrees = np.append(np.full(50, 4.0), 0.0)
    found, known = moderated(seen, degrees)
    assert known[-1] == pytest.approx(known[0] - 4)
    assert seen[:-1].min() < found[-1] < seen.max()


def test_runs_that_came_out_alike_are_no_crash() -> None:
    assert list(moderated(np.zeros(3), np.ones(3))[0]) == [0, 0, 0]
    found, _ = moderated(np.array([0.0, 1.0, 2.0]), np.full(3, 4.0))
    assert (found > 0).all()


@pytest.mark.parametrize("value", [1e-6, 0.01, 1.0, 50.0])
def test_the_inverse_of_the_trigamma_function(value: float) -> None:
    assert polygamma(1, _inverse_trigamma(value)) == pytest.approx(value, rel=1e-6)
