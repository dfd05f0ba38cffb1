"""Weighted accuracies and their intervals against independent computations."""

import numpy as np
import pytest

from rlhf_eval.benchmarks.statistics import accuracy_by_subset, weighted_accuracy
from rlhf_eval.errors import DataError


def test_the_weighted_mean_of_subsets_by_hand() -> None:
    right = np.array([1.0, 0.0, 1.0, 1.0, 0.5, 0.0])
    subsets = ["a", "a", "b", "b", "b", "not counted"]
    weights = {"a": 0.75, "b": 0.25}
    accuracy, low, high, weight = weighted_accuracy(right, subsets, weights, list("uvwxyz"))
    assert weight == pytest.approx([0.375, 0.375, 1 / 12, 1 / 12, 1 / 12, 0])
    assert accuracy == pytest.approx(100 * weight @ right)
    assert accuracy == pytest.approx(100 * (0.75 * 0.5 + 0.25 * 2.5 / 3))
    assert low < accuracy < high
    assert accuracy_by_subset(right, subsets) == pytest.approx(
        {"a": 50.0, "b": 100 * 2.5 / 3, "not counted": 0.0}
    )


def test_the_bootstrap_has_the_standard_error_of_a_stratified_mean() -> None:
    rng = np.random.default_rng(1)
    right = (rng.random(3000) < 0.7).astype(float)
    subsets = ["a"] * 1000 + ["b"] * 2000
    accuracy, low, high, _ = weighted_accuracy(right, subsets, {"a": 0.5, "b": 0.5}, list(range(3000)))
    error = 100 * np.sqrt(0.25 * right[:1000].var() / 1000 + 0.25 * right[1000:].var() / 2000)
    assert (accuracy - low) / 1.96 == pytest.approx(error, rel=0.1)
    assert (high - accuracy) / 1.96 == pytest.approx(error, rel=0.1)


def test_items_of_one_prompt_are_no_independent_evidence() -> None:
    rng = np.random.default_rng(2)
    by_prompt = (rng.random(200) < 0.6).astype(float)
    right = np.repeat(by_prompt, 9)  # nine items each, all right or all wrong
    names = ["all"] * len(right)
    prompts = [f"prompt {n}" for n in np.repeat(np.arange(200), 9)]
    _, low, high, _ = weighted_accuracy(right, names, {"all": 1.0}, prompts)
    error = 100 * np.sqrt(by_prompt.var() / 200)
    assert (high - low) / (2 * 1.96) == pytest.approx(error, rel=0.1)
    _, low, high, _ = weighted_accuracy(right, names, {"all": 1.0}, list(range(len(right))))
    assert (high - low) / (2 * 1.96) == pytest.approx(error / 3, rel=0.1)


def test_nine_in_ten_five_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        right = (rng.random(150) < 0.8).astype(float)
        _, low, high, _ = weighted_accuracy(right, ["all"] * 150, {"all": 1.0}, list(range(150)))
        held += low <= 80 <= high
    assert 182 <= held <= 199  # 95 % of 200 within three standard deviations


def test_items_of_which_none_counts_are_refused() -> None:
    with pytest.raises(DataError, match="No item"):
        weighted_accuracy(np.array([1.0]), ["tie"], {"decided": 1.0}, ["p"])
