"""The gap between public and private, on simulated reward models that know the public set or not."""

import numpy as np
import pytest

from rlhf_eval.audit.gap import Credits, public_private_gap


def plain(name: str, right: dict[str, np.ndarray]) -> Credits:
    """Every item counts the same and has a prompt of its own."""
    n = len(next(iter(right.values())))
    return Credits(name, right, np.full(n, 1 / n), range(n))


def credits(rng: np.random.Generator, accuracies: dict[str, float], n: int = 300) -> Credits:
    return plain(
        "p", {name: (rng.random(n) < accuracy).astype(float) for name, accuracy in accuracies.items()}
    )


def test_the_numbers_by_hand() -> None:
    rows = {"suspect": ("1110", "1000"), "a": ("1010", "1010"), "b": ("1100", "1000")}
    public, private = (
        plain(set_, {name: np.array([float(x) for x in texts[place]]) for name, texts in rows.items()})
        for place, set_ in enumerate(("open", "secret"))
    )
    found = public_private_gap(public, private, "suspect", ["a", "b"])
    assert (found.public_accuracy, found.private_accuracy, found.gap) == (75, 25, 50)
    assert found.panel_gap == pytest.approx((0 + 25) / 2)
    assert found.difference == pytest.approx(50 - 12.5)
    assert public_private_gap(public, private, "suspect", []).difference is None


def test_a_reward_model_that_knows_the_public_set_is_told_from_a_harder_private_set() -> None:
    rng = np.random.default_rng(0)
    panel = ["a", "b", "c"]
    # The private set is harder for everybody by ten points.
    public = credits(rng, {"knows": 0.95, "honest": 0.8, "a": 0.8, "b": 0.75, "c": 0.7})
    private = credits(rng, {"knows": 0.7, "honest": 0.7, "a": 0.7, "b": 0.65, "c": 0.6})
    knows = public_private_gap(public, private, "knows", panel)
    honest = public_private_gap(public, private, "honest", panel)
    assert knows.difference_low is not None
    assert knows.difference_low > 0
    assert knows.p is not None
    assert knows.p < 0.01
    assert honest.difference_low is not None
    assert honest.difference_low < 0 < (honest.difference_high or 0)


def test_the_interval_of_the_difference_holds_the_truth() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(100):
        public = credits(rng, {"x": 0.85, "a": 0.8, "b": 0.7}, 200)
        private = credits(rng, {"x": 0.7, "a": 0.75, "b": 0.65}, 200)
        found = public_private_gap(public, private, "x", ["a", "b"])
        assert found.difference_low is not None
        assert found.difference_high is not None
        held += found.difference_low <= 10 <= found.difference_high
    assert held >= 88


def test_items_of_one_prompt_are_drawn_together_and_weights_count() -> None:
    rng = np.random.default_rng(4)
    by_prompt = {name: (rng.random(60) < 0.6).astype(float) for name in ("x", "a")}
    repeated = {name: np.repeat(right, 10) for name, right in by_prompt.items()}
    other = plain("q", {name: (rng.random(5000) < 0.6).astype(float) for name in ("x", "a")})
    few = public_private_gap(plain("p", by_prompt), other, "x", [])
    many = public_private_gap(
        Credits("p", repeated, np.full(600, 1 / 600), np.repeat(np.arange(60), 10).tolist()), other, "x", []
    )
    assert many.gap == pytest.approx(few.gap)
    assert many.high - many.low == pytest.approx(few.high - few.low, rel=0.1)
    tied = Credits(
        "p", {"x": np.array([1.0, 0.0])}, np.array([1.0, 0.0]), [1, 2]
    )  # the second is a tied vote
    assert public_private_gap(tied, plain("q", {"x": np.array([1.0, 0.0])}), "x", []).public_accuracy == 100
