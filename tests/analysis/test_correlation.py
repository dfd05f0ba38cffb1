import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from rlhf_eval.analysis.coefficients import kendall, pearson, spearman
from rlhf_eval.analysis.correlation import correlate, correlations
from rlhf_eval.analysis.experiment import load_runs
from rlhf_eval.analysis.ranking import rank

Add = Callable[..., Path]


@given(arrays(float, (2, 7), elements=st.integers(-5, 5).map(float)))
def test_coefficients_are_scipys_ties_included(data: np.ndarray) -> None:
    x, y = data
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert np.isnan([pearson(x, y), spearman(x, y), kendall(x, y)]).all()
        return
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-9)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-9)
    assert kendall(x, y) == pytest.approx(stats.kendalltau(x, y)[0], abs=1e-9)


def test_many_draws_at_once() -> None:
    x, y = np.random.default_rng(0).random((2, 50, 6))
    for function in (pearson, spearman, kendall):
        assert function(x, y) == pytest.approx(np.array([function(a, b) for a, b in zip(x, y, strict=True)]))


@pytest.mark.golden
def test_rewardbench2_against_ppo_and_best_of_n(golden: Path) -> None:
    """golden/README.md: Pearson .72, Spearman −.04, .21 without model 12, −.72 without the weak; BoN .92."""
    with (golden / "published" / "rewardbench2_fig4_downstream.csv").open() as stream:
        rows = list(csv.DictReader(stream))

    def column(name: str, keep: Callable[[dict], bool] = lambda row: True) -> np.ndarray:
        return np.array([float(row[name]) for row in rows if keep(row)])

    def of(y: str, keep: Callable[[dict], bool] = lambda row: True) -> tuple[float, float]:
        found = correlate(column("rewardbench2", keep), column(y, keep))
        return round(found.pearson.estimate, 2), round(found.spearman.estimate, 2)

    assert of("ppo_average") == (0.72, -0.04)
    assert of("ppo_average", lambda row: row["model_id"] != "12")[0] == 0.21
    assert of("ppo_average", lambda row: row["group"] != "on_policy_weak")[0] == -0.72
    assert of("best_of_n_average")[0] == 0.92


def test_with_and_without_controls(lab: Path) -> None:
    candidates, everybody = correlations(rank(load_runs(lab)))
    assert (candidates.n, everybody.n) == (5, 8)
    for found in (candidates, everybody):
        for c in (found.pearson, found.spearman, found.kendall):
            assert -1 <= c.low <= c.estimate <= c.high <= 1
    assert candidates.warning is not None
    assert "Only 5" in candidates.warning
    assert "0.88" in candidates.warning, "the tabled 5 % critical value of r for n = 5"


def test_reward_models_without_the_benchmark_are_left_out(experiment: Add) -> None:
    for i, accuracy in enumerate((60.0, 70.0, 80.0, float("nan"), None)):
        benchmarks = {} if accuracy is None else {"public": (300, accuracy)}
        folder = experiment(f"rm{i}", 0, [0.1 * i, 0.12 * i], benchmarks=benchmarks).parent
    (found,) = correlations(rank(load_runs(folder)))
    assert found.n == 3
    assert found.spearman.estimate == pytest.approx(1)


@pytest.mark.parametrize("n", [1, 2])
def test_too_few_reward_models_are_not_correlated(experiment: Add, n: int) -> None:
    for i in range(n):
        folder = experiment(f"rm{i}", 0, [0.3 + i / 10, 0.5], benchmarks={"public": (300, 60.0 + i)}).parent
    (found,) = correlations(rank(load_runs(folder)))
    assert np.isnan(found.pearson.estimate)
    assert found.warning is not None
    assert "fewer than three" in found.warning


def test_constant_scores_are_undefined_and_no_benchmark_is_empty(experiment: Add) -> None:
    for i in range(3):
        folder = experiment(f"rm{i}", 0, [0.5] * 9, benchmarks={"public": (300, 60.0 + i)}).parent
    (found,) = correlations(rank(load_runs(folder)))
    assert np.isnan([found.pearson.estimate, found.spearman.low, found.kendall.high]).all()


def test_no_benchmark_no_correlation(experiment: Add) -> None:
    assert correlations(rank(load_runs(experiment("clean").parent))) == []


def test_the_interval_covers_the_noise_of_both_axes() -> None:
    """Noise-free axes give a point; noise on either widens it."""
    x, y = np.arange(12.0), np.arange(12.0) + np.random.default_rng(0).normal(0, 2, 12)
    rng = np.random.default_rng(1)
    still_x, still_y = np.tile(x, (2000, 1)), np.tile(y, (2000, 1))
    exact = correlate(x, y, still_x, still_y).pearson
    assert exact.low == pytest.approx(exact.high)
    for noisy in (
        correlate(x, y, still_x + rng.normal(0, 2, still_x.shape), still_y).pearson,
        correlate(x, y, still_x, still_y + rng.normal(0, 2, still_y.shape)).pearson,
    ):
        assert noisy.high - noisy.low > 0.1
