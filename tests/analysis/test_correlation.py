import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from rlhf_eval.analysis.attenuation import correct, reliability
from rlhf_eval.analysis.column_correlation import correlate_across, correlate_within
from rlhf_eval.analysis.correlation import Correlation, correlate, correlations, experiment_correlation
from rlhf_eval.analysis.experiment import load_runs
from rlhf_eval.analysis.partial import partial_correlation
from rlhf_eval.analysis.ranking import rank
from rlhf_eval.cli import main
from rlhf_eval.errors import ConfigError, DataError

Add = Callable[..., Path]
COLUMN = arrays(float, (2, 7), elements=st.integers(-5, 5).map(float))


def values_of(found: Correlation) -> list[float]:
    return [
        number
        for c in (found.pearson, found.spearman, found.kendall)
        for number in (c.estimate, c.low, c.high, c.p, c.leave_one_out_low, c.leave_one_out_high)
    ]


def test_a_table_made_by_hand_is_scipys() -> None:
    """pearsonr, spearmanr and kendalltau of scipy 1.17 on eight rows with ties, all and without each; p from
    permutation_test of the coefficient's size over all 8! pairings."""
    x = np.array([61.2, 70.5, 70.5, 74.9, 80.1, 83.0, 88.4, 93.7])
    y = np.array([22.0, 31.5, 27.5, 40.0, 38.5, 38.5, 45.0, 24.5])
    found = correlate(x, y, names=list("abcdefgh"))
    expected = {
        "pearson": (0.40214574227, 0.32048611111, 0.07589253294, 0.93234875098),
        "spearman": (0.40963855422, 0.31031746032, 0.10909090909, 0.87272727273),
        "kendall": (0.37037037037, 0.26651785714, 0.15, 0.75),
    }
    for name, numbers in expected.items():
        c = getattr(found, name)
        of_ours = (c.estimate, c.p, c.leave_one_out_low, c.leave_one_out_high)
        assert of_ours == pytest.approx(numbers, abs=1e-9), name
        assert c.most_influential == "h"
    # scipy's pearsonr(x, y).confidence_interval(), Fisher's z alone; the jackknife may only widen it.
    assert found.pearson.low <= -0.42215916
    assert found.pearson.high >= 0.86242393


@given(COLUMN)
def test_swapping_the_axes_changes_nothing_and_turning_one_changes_the_sign(data: np.ndarray) -> None:
    x, y = data
    there = correlate(x, y)
    assert np.allclose(values_of(there), values_of(correlate(y, x)), equal_nan=True, atol=1e-9)
    turned = correlate(x, -y)
    assert turned.pearson.estimate == pytest.approx(-there.pearson.estimate, nan_ok=True)
    assert turned.spearman.low == pytest.approx(-there.spearman.high, nan_ok=True, abs=1e-6)
    assert turned.kendall.p == pytest.approx(there.kendall.p, nan_ok=True)


@given(COLUMN)
def test_every_interval_holds_its_estimate_and_every_p_is_a_share(data: np.ndarray) -> None:
    found = correlate(*data)
    for c in (found.pearson, found.spearman, found.kendall):
        if np.isnan(c.estimate):
            assert np.isnan([c.low, c.high, c.p]).all()
        else:
            assert -1 <= c.low <= c.estimate + 1e-12
            assert c.estimate - 1e-12 <= c.high <= 1
            assert 0 < c.p <= 1


def test_p_of_random_orders_is_near_the_t_test_and_the_same_every_time() -> None:
    x = np.random.default_rng(0).normal(size=25)
    y = 0.4 * x + np.random.default_rng(1).normal(size=25)
    found = correlate(x, y)
    assert found.pearson.p == pytest.approx(stats.pearsonr(x, y)[1], abs=0.01)
    assert found.spearman.p == pytest.approx(stats.spearmanr(x, y)[1], abs=0.01)
    assert found.kendall.p == pytest.approx(stats.kendalltau(x, y)[1], abs=0.01)
    assert values_of(found) == values_of(correlate(x, y))
    assert correlate(x, x).kendall.p == pytest.approx(1 / 10_000)


def test_thousands_of_points() -> None:
    x = np.random.default_rng(0).normal(size=1500)
    y = 0.1 * x + np.random.default_rng(1).normal(size=1500)
    found = correlate(x, y)
    assert np.isfinite(values_of(found)).all()
    assert found.kendall.estimate == pytest.approx(stats.kendalltau(x, y)[0])
    assert found.warning is None


def test_rows_without_a_number_are_left_out_and_counted() -> None:
    x, y = np.array([1.0, 2, np.nan, 3, 4]), np.array([2.0, 1, 9, np.inf, 5])
    found = correlate(x, y, names=list("abcde"))
    assert (found.n, found.left_out) == (3, 2)
    assert found.pearson.estimate == pytest.approx(stats.pearsonr([1, 2, 4], [2, 1, 5])[0])
    assert found.pearson.most_influential is None, "without one of three there is no correlation"
    assert (found.spearman.low, found.spearman.high) == (-1, 1)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_units_do_not_matter(scale: float) -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 9))
    there = values_of(correlate(x, y))
    assert values_of(correlate(scale * x, 3 + y)) == pytest.approx(there, abs=1e-6)


def test_the_warning_names_the_point_that_carries_the_conclusion() -> None:
    """Eleven unrelated points and one far away."""
    rng = np.random.default_rng(3)
    x, y = np.append(rng.normal(size=11), 30), np.append(rng.normal(size=11), 30)
    found = correlate(x, y, names=[*map(str, range(11)), "outlier"])
    assert found.pearson.estimate > 0.9
    assert found.warning is not None
    assert "hangs on one point" in found.warning
    assert "outlier" in found.warning
    assert found.pearson.low < 0, "the jackknife sees what Fisher's z does not"


def test_a_single_different_point_makes_it_undefined_without_it() -> None:
    found = correlate(np.array([0.0, 0, 0, 0, 1]), np.array([1.0, 2, 3, 4, 9]))
    assert found.pearson.most_influential == "5"
    assert (found.pearson.low, found.pearson.high) == (-1, 1)
    assert "hangs on one point" in (found.warning or "")


def test_noise_free_axes_need_no_correction_and_noise_is_corrected() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=400)
    x, y = truth + rng.normal(0, 0.5, 400), truth + rng.normal(0, 0.7, 400)
    still = [np.tile(axis, (300, 1)) for axis in (x, y)]
    exact = correlate(x, y, still[0], still[1])
    assert exact.attenuation is not None
    assert exact.attenuation.estimate == pytest.approx(exact.pearson.estimate)
    noisy = correlate(
        x, y, still[0] + rng.normal(0, 0.5, (300, 400)), still[1] + rng.normal(0, 0.7, (300, 400))
    )
    assert noisy.attenuation is not None
    assert noisy.pearson == exact.pearson, "points hold their noise already"
    assert noisy.attenuation.reliability_x == pytest.approx(1 / 1.25, abs=0.04)
    assert noisy.attenuation.estimate == pytest.approx(1, abs=0.04)


def test_noise_common_to_all_reward_models_is_none() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=20)
    assert reliability(values, values + rng.normal(0, 5, (500, 1))) == pytest.approx(1)


def test_nothing_is_corrected_by_more_noise_than_signal() -> None:
    found = correct(0.3, -0.2, 0.7, 0.9, 0.4)
    assert np.isnan(found.estimate)
    assert found.note is not None
    assert "second axis is 0.40" in found.note
    assert correct(0.9, 0.5, 0.97, 0.6, 0.7).estimate == 1, "clipped"


def test_within_and_across_groups() -> None:
    """Simpson's paradox: rising in each group, falling across them."""
    base = np.repeat([0.0, 10.0, 20.0], 4)
    step = np.tile([0.0, 1.0, 2.0, 3.0], 3)
    x, y, groups = base + step, -base + step, np.repeat(["a", "b", "c"], 4).tolist()
    assert correlate_within(x, y, groups).spearman.estimate == pytest.approx(1)
    assert correlate_across(x, y, groups).pearson.estimate == pytest.approx(-1)
    assert correlate_across(x, y, groups).n == 3
    alone = correlate_within(np.append(x, 99), np.append(y, 7), [*groups, "d"])
    assert (alone.n, alone.left_out) == (12, 1)
    one = correlate_within(x[:4], y[:4], groups[:4])
    assert "Fewer than two groups" in (one.warning or "")
    assert np.isnan(one.pearson.estimate)


def test_partial_correlation_is_that_of_the_correlation_matrix() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2, 30))
    x, y = z[0] + rng.normal(size=30), z[0] - z[1] + rng.normal(size=30)
    found = partial_correlation(x, y, {"one": z[0], "other": z[1]})
    precision = np.linalg.inv(np.corrcoef(np.vstack([x, y, z])))
    assert found.estimate == pytest.approx(-precision[0, 1] / np.sqrt(precision[0, 0] * precision[1, 1]))
    assert found.low < found.estimate < found.high
    assert "needs 6 or more" in (
        partial_correlation(x[:5], y[:5], {"1": z[0, :5], "2": z[1, :5]}).warning or ""
    )
    assert np.isnan(partial_correlation(x, y, {"x itself": x}).estimate)


def test_with_and_without_controls(lab: Path) -> None:
    candidates, everybody = correlations(rank(load_runs(lab)))
    assert (candidates.n, everybody.n) == (5, 8)
    for found in (candidates, everybody):
        for c in (found.pearson, found.spearman, found.kendall):
            assert -1 <= c.low <= c.estimate <= c.high <= 1
    assert candidates.warning is not None
    assert "Only 5" in candidates.warning
    assert "0.88" in candidates.warning, "the tabled 5 % critical value of r for n = 5"
    assert candidates.attenuation is not None
    assert 0.9 < candidates.attenuation.reliability_x <= 1


def test_an_experiment_by_the_mean_of_benchmarks(lab: Path) -> None:
    runs = load_runs(lab)
    ranking = rank(runs)
    found = experiment_correlation(runs, ranking, ["lab_public", "lab_private"])
    candidates = [row for row in ranking.rows if not row.control]
    means = [np.mean(list(row.benchmarks.values())) for row in candidates]
    expected = stats.pearsonr(means, [row.score for row in candidates])[0]
    assert found.subsets[0].pearson.estimate == pytest.approx(expected)
    labels = [subset.label for subset in found.subsets]
    assert labels[:2] == ["candidates", "candidates and controls"]
    weak = next(subset for subset in found.subsets if "without weak" in subset.label)
    assert weak.n == 4, "length_biased is far below the other accuracies"
    assert found.partial is None
    assert any("No run records the variance" in note for note in found.notes)


def test_lineages_come_from_the_cards_and_variance_from_the_first_checkpoint(lab: Path) -> None:
    bases = {
        "clean": "one",
        "noisy": "one",
        "clean_small": "two",
        "contaminated": "two",
        "length_biased": "two",
    }
    runs = []
    for i, run in enumerate(load_runs(lab)):
        model = run.config.reward_model
        card = replace(model.card, base_model=bases.get(model.name))
        curves = tuple(row | {"reward_variance": 0.1 * (i % 7 + 1)} for row in run.curves)
        config = replace(run.config, reward_model=replace(model, card=card))
        runs.append(replace(run, config=config, curves=curves))
    found = experiment_correlation(runs, rank(runs))
    within, across = found.subsets[-2:]
    assert (within.n, across.n) == (5, 2)
    assert not np.isnan(within.pearson.estimate)
    assert found.partial is not None
    assert (found.partial.given, found.partial.n) == (("reward_variance",), 5)
    assert not np.isnan(found.partial.estimate)


def test_unknown_and_absent_benchmarks(lab: Path, experiment: Add) -> None:
    runs = load_runs(lab)
    with pytest.raises(ConfigError, match="Did you mean 'lab_public'"):
        experiment_correlation(runs, rank(runs), ["lab_publik"])
    runs = load_runs(experiment("clean").parent)
    assert correlations(rank(runs)) == []
    with pytest.raises(DataError, match="measured no benchmark"):
        experiment_correlation(runs, rank(runs))


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
    runs = load_runs(folder)
    (found,) = correlations(rank(runs))
    assert np.isnan(found.pearson.estimate)
    assert found.warning is not None
    assert "fewer than three" in found.warning
    assert experiment_correlation(runs, rank(runs)).subsets[0].n == n


def test_constant_scores_are_undefined(experiment: Add) -> None:
    for i in range(3):
        folder = experiment(f"rm{i}", 0, [0.5] * 9, benchmarks={"public": (300, 60.0 + i)}).parent
    (found,) = correlations(rank(load_runs(folder)))
    assert np.isnan([found.pearson.estimate, found.spearman.low, found.kendall.high]).all()
    assert "constant" in (found.warning or "")


def test_equal_values_within_groups_are_equal() -> None:
    """Means of equal decimals differ from them by rounding, which is no deviation."""
    x, y = np.array([0.1, 0.1, 0.1, 0.7, 0.7, 0.7]), np.arange(6.0)
    assert np.isnan(correlate_within(x, y, list("aaabbb")).pearson.estimate)


def test_the_command_on_an_experiment(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["correlate", str(lab), "--benchmark", "lab_private", "--metric", "arena_hard.score", "--json"])
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert (found["n"], found["benchmarks"], found["metric"]) == (5, ["lab_private"], "arena_hard.score")
    assert found["subsets"][1]["n"] == 8
    assert found["corrected_for_attenuation"]["reliability_x"] > 0.9
    assert main(["correlate", str(lab)]) == 0
    shown = capsys.readouterr().out
    assert "Accuracy on lab_public against AlpacaEval win rate" in shown
    assert "corrected for attenuation" in shown
    assert main(["correlate", str(lab), "--benchmark", "nothing"]) == 2
