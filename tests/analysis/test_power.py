"""Predicted power against simulated experiments that are tested as `rlhf-eval rank` tests them."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import norm, pearsonr

from rlhf_eval.analysis.comparisons import p_values
from rlhf_eval.analysis.intervals import estimate
from rlhf_eval.analysis.plan import Costs, plan
from rlhf_eval.analysis.power import (
    Target,
    correlation_power,
    power,
    smallest_correlation,
    smallest_difference,
)
from rlhf_eval.analysis.variance import PRIOR, Components, completed, estimate_components
from rlhf_eval.errors import DataError

KNOWN = Components(seed=2.0, prompt=18.0, residual=25.0)


def simulated(
    known: Components, models: int, seeds: int, prompts: int, rng: np.random.Generator, lead: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Values in percent, shape (prompts, runs), and whose run each is; the first has a lead."""
    assert known.seed is not None
    assert known.residual is not None
    groups = np.repeat(np.arange(models), seeds)
    values = 50 + rng.normal(0, 20, (prompts, 1)) + rng.normal(0, known.prompt, (prompts, models))[:, groups]
    values += rng.normal(0, known.seed, len(groups)) + rng.normal(0, known.residual, (prompts, len(groups)))
    return values + lead * (groups == 0), groups


@pytest.mark.parametrize(
    ("models", "seeds", "prompts", "difference"),
    [(2, 2, 200, 9.0), (2, 5, 100, 8.0), (5, 3, 300, 6.0), (8, 2, 400, 7.0), (4, 4, 60, 12.0)],
)
def test_simulated_power_is_the_predicted_one(models, seeds, prompts, difference) -> None:
    rng, rejected, repeats = np.random.default_rng(models), 0, 2500
    target = Target(difference, models)
    for _ in range(repeats):
        values, groups = simulated(KNOWN, models, seeds, prompts, rng, difference)
        p = p_values(estimate({"e": values}, groups, np.ones(models, dtype=bool)))
        rejected += p[0, 1] <= target.level / target.comparisons
    predicted = power(KNOWN, target, seeds, prompts)
    assert 0.1 < predicted < 0.99
    assert rejected / repeats == pytest.approx(predicted, abs=0.03)


def test_power_with_endless_prompts_and_seeds_is_that_of_the_normal_test() -> None:
    known, target = Components(0.0, 20.0, 30.0), Target(2.0, 2)
    shift = 2.0 / np.sqrt(2 * 400 / 500)
    expected = norm.sf(norm.isf(0.025) - shift) + norm.cdf(-norm.isf(0.025) - shift)
    assert power(known, target, np.inf, 500) == pytest.approx(expected, abs=0.002)


def test_power_without_noise_is_certain_and_at_no_difference_is_the_level() -> None:
    assert power(Components(0.0, 0.0, 0.0), Target(0.1, 3), 2, 10) == 1.0
    assert power(KNOWN, Target(1e-9, 2, level=0.05), 4, 100) == pytest.approx(0.05, abs=0.01)


def test_the_smallest_difference_has_just_the_power_wanted() -> None:
    target = Target(1.0, 6, power=0.9)
    found = smallest_difference(KNOWN, target, 4, 500)
    assert power(KNOWN, replace(target, difference=found), 4, 500) == pytest.approx(0.9, abs=1e-3)


@pytest.mark.parametrize(("models", "correlation"), [(5, 0.9), (8, 0.7), (17, 0.5), (40, 0.3)])
def test_simulated_power_of_the_correlation_test(models, correlation) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, models))
    y = correlation * x + np.sqrt(1 - correlation**2) * rng.standard_normal(x.shape)
    _, p = pearsonr(x, y, axis=1)
    rejected = np.mean(np.asarray(p) <= 0.05)
    assert correlation_power(correlation, models) == pytest.approx(rejected, abs=0.03)
    least = smallest_correlation(models)
    assert correlation_power(least, models) == pytest.approx(0.8, abs=1e-3)


def test_components_are_recovered_from_many_runs_even_with_unequal_seeds() -> None:
    rng = np.random.default_rng(1)
    values, groups = simulated(KNOWN, 40, 4, 300, rng)
    kept = np.r_[0:140, 140:160:2]  # the last reward models have two seeds
    found = estimate_components(values[:, kept], groups[kept])
    assert found.seed == pytest.approx(KNOWN.seed, rel=0.15)
    assert found.prompt == pytest.approx(KNOWN.prompt, rel=0.03)
    assert found.residual == pytest.approx(KNOWN.residual, rel=0.03)
    assert found.seed_degrees == 35 * 3 + 5
    assert found.notes == ()


def test_components_of_a_design_worked_out_by_hand() -> None:
    # Two reward models, two seeds each, two prompts; only the first model's seeds differ.
    values = np.array([[10.0, 14.0, 20.0, 20.0], [20.0, 20.0, 50.0, 50.0]])
    found = estimate_components(values, np.array([0, 0, 1, 1]))
    # Model 0: deviations (−2, 2), (0, 0); luck −1, 1; rest ±1 in four cells: 4 / (2 degrees · 1) = 2.
    # Variance of luck (1 + 1) / 2 = 1, less 2 / 2: 0. Cells (12, 20), (20, 50): interaction ±5.5, 4 · 30.25.
    assert found.residual == pytest.approx(np.sqrt(2))
    assert found.seed == 0.0
    assert found.prompt == pytest.approx(np.sqrt(121 - 2 * 0.5))


def test_one_seed_takes_its_spread_from_the_prior_and_says_so() -> None:
    values, _ = simulated(KNOWN, 30, 1, 400, np.random.default_rng(2))
    found = estimate_components(values, np.arange(30))
    assert found.seed is None
    assert found.residual is None
    assert found.prompt == pytest.approx(np.hypot(18, 25), rel=0.03)
    assert "unknown" in found.notes[0]
    assert completed(found).seed == PRIOR.seed
    assert completed(found).residual == 0.0


def test_one_reward_model_and_few_seeds_are_told() -> None:
    values, groups = simulated(KNOWN, 1, 3, 50, np.random.default_rng(3))
    notes = " ".join(estimate_components(values, groups).notes)
    assert "upper bound" in notes
    assert "2 degrees of freedom" in notes


def test_prompts_without_a_verdict_are_left_out_and_too_few_are_refused() -> None:
    values, groups = simulated(KNOWN, 3, 2, 40, np.random.default_rng(4))
    spoilt = np.vstack([values, np.full((1, 6), np.nan)])
    assert estimate_components(spoilt, groups) == estimate_components(values, groups)
    with pytest.raises(DataError, match="too few"):
        estimate_components(np.full((5, 6), np.nan), groups)


def test_a_plan_has_the_fewest_seeds_and_its_cheapest_design_is_the_cheapest() -> None:
    target, costs = Target(6.0, 4, every_pair=False), Costs(run=3.0, prompt=0.05)
    found = plan(KNOWN, target, costs, 400)
    seeds = found.chosen.seeds
    assert seeds is not None
    assert power(KNOWN, target, seeds, 400) >= 0.8
    assert seeds == 2 or power(KNOWN, target, seeds - 1, 400) < 0.8
    designs = [
        costs.total(4, s, p)
        for s in range(2, 40)
        for p in range(2, 401, 1)
        if s <= 12 and power(KNOWN, target, s, p) >= 0.8
    ]
    assert found.chosen.cheapest is not None
    assert found.chosen.cheapest.cost == pytest.approx(min(designs))
    assert found.chosen.cheapest.prompts <= 400


def test_dear_runs_want_many_prompts_and_dear_prompts_want_many_runs() -> None:
    known = Components(seed=1.0, prompt=5.0, residual=30.0)
    dear_runs = plan(known, Target(5.0, 3), Costs(100.0, 0.001), 805).chosen.cheapest
    dear_prompts = plan(known, Target(5.0, 3), Costs(0.001, 1.0), 805).chosen.cheapest
    assert dear_runs is not None
    assert dear_prompts is not None
    assert dear_runs.seeds < dear_prompts.seeds
    assert dear_runs.prompts > dear_prompts.prompts


def test_what_prompts_or_seeds_cannot_mend_is_said() -> None:
    luck = plan(Components(4.0, 10.0, 10.0), Target(3.0, 5), Costs(), 805)
    assert luck.seed_floor is not None
    assert luck.seed_floor > 10
    assert any("no number of prompts" in note for note in luck.notes)
    small_set = plan(Components(0.5, 30.0, 10.0), Target(2.0, 5), Costs(), 100)
    assert small_set.chosen.seeds is None
    assert small_set.chosen.cheapest is None
    assert any("No number of seeds" in note for note in small_set.notes)


def test_more_reward_models_need_more_of_everything_but_show_smaller_correlations() -> None:
    found = plan(KNOWN, Target(8.0, 10), Costs(), 805)
    rows = sorted([found.chosen, *found.others], key=lambda row: row.reward_models)
    assert [row.reward_models for row in rows] == [5, 10, 20, 50]
    assert all(a.comparisons < b.comparisons for a, b in pairwise(rows))
    correlations = [row.correlation for row in rows]
    assert correlations == sorted(correlations, reverse=True)  # type: ignore[type-var]


@pytest.mark.golden
def test_the_prior_is_what_published_annotations_say(golden) -> None:
    import pandas as pd

    rows = pd.read_csv(golden / "alpaca_eval" / "annotations.csv.gz")
    values = 100 * (rows.pivot(index="prompt_index", columns="model", values="preference") - 1)
    pair = values[["FuseChat-Gemma-2-9B-Instruct", "FuseChat-Llama-3.2-1B-Instruct"]].to_numpy()
    assert PRIOR.residual is not None
    assert estimate_components(pair, np.arange(2)).prompt == pytest.approx(
        np.hypot(PRIOR.prompt, PRIOR.residual), abs=1.5
    )
