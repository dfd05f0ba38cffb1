"""Statistics of paired credits against independent computations, simulation and the published table."""

import csv
from math import comb
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from rlhf_eval.audit.paired import drop_against_panel, mcnemar, paired_drop, tango


def credits_of(both: int, fell: int, rose: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Credits of original and variant with these numbers of items right in both, one, none."""
    original = [1.0] * (both + fell) + [0.0] * (rose + neither)
    variant = [1.0] * both + [0.0] * fell + [1.0] * rose + [0.0] * neither
    return np.array(original), np.array(variant)


def test_a_drop_by_hand() -> None:
    original, variant = credits_of(both=60, fell=6, rose=1, neither=33)
    found = paired_drop(original, variant, range(100))
    assert (found.n, found.original, found.variant) == (100, 66.0, 61.0)
    assert found.drop == pytest.approx(5.0)
    assert (found.fell, found.rose) == (6, 1)
    # Of 7 discordant items, 0 or 1 rise by chance with (1 + 7) / 2^7; two-sided twice that.
    assert found.p == pytest.approx(2 * 8 / 128)
    assert found.low < 0 < 5 < found.high


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_binomial_tail(fell: int, rose: int) -> None:
    n = fell + rose
    tail = sum(comb(n, k) for k in range(min(fell, rose) + 1)) / 2**n
    assert mcnemar(fell, rose) == pytest.approx(min(1.0, 2 * tail))


@pytest.mark.parametrize(("fell", "rose", "n"), [(21, 4, 154), (3, 0, 20), (7, 7, 60), (1, 9, 30)])
def test_the_score_interval_ends_where_the_likelihood_says(fell: int, rose: int, n: int) -> None:
    for delta in tango(fell, rose, n):

        def minus_likelihood(q: float, delta: float = delta) -> float:
            p = q + delta
            return -(fell * np.log(p) + rose * np.log(q) + (n - fell - rose) * np.log(1 - p - q))

        edge = 1e-12
        best = minimize_scalar(
            minus_likelihood,
            bounds=(max(0.0, -delta) + edge, (1 - delta) / 2 - edge),
            method="bounded",
            options={"xatol": 1e-12},
        )
        q = float(best.x)  # type: ignore[attr-defined]
        variance = n * (2 * q + delta - delta**2)
        assert abs(fell - rose - n * delta) / np.sqrt(variance) == pytest.approx(1.95996, abs=1e-3)


def test_where_nothing_changed_the_interval_has_a_width() -> None:
    original, variant = credits_of(both=100, fell=0, rose=0, neither=54)
    found = paired_drop(original, variant, range(154))
    assert (found.drop, found.p) == (0.0, 1.0)
    half = 100 * 1.959964**2 / (154 + 1.959964**2)
    assert (found.low, found.high) == pytest.approx((-half, half))


def test_where_everything_fell_or_rose_the_interval_ends_at_all() -> None:
    ones, zeros = np.ones(10), np.zeros(10)
    fell, rose = paired_drop(ones, zeros, range(10)), paired_drop(zeros, ones, range(10))
    assert (fell.drop, fell.high) == (100, 100)
    assert 0 < fell.low < 100
    assert (rose.low, rose.high) == pytest.approx((-fell.high, -fell.low))


def test_items_of_one_prompt_are_one_trial() -> None:
    original, variant = credits_of(both=0, fell=4, rose=2, neither=0)
    prompts = ["a", "a", "a", "b", "b", "c"]  # a falls by 3, b falls by 1 and rises by 1, c rises by 1
    found = paired_drop(original, variant, prompts)
    assert (found.fell, found.rose, found.p) == (1, 1, 1.0)
    assert found.drop == pytest.approx(100 * 2 / 6)


def test_fractional_credits_count_by_their_sign() -> None:
    original = np.array([1.0, 1 / 3, 0.5, 2 / 9, 1.0])
    variant = np.array([0.5, 0.0, 0.75, 2 / 9, 0.25])
    found = paired_drop(original, variant, range(5))
    assert (found.fell, found.rose) == (3, 1)
    assert found.p == pytest.approx(2 * (1 + 4) / 16)
    assert found.drop == pytest.approx(100 * (0.5 + 1 / 3 - 0.25 + 0.75) / 5)
    assert found.low < found.drop < found.high


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 1.0])), min_size=2))
def test_swapping_original_and_variant_turns_the_sign(pairs: list[tuple[float, float]]) -> None:
    original, variant = np.array(pairs).T
    there, back = (paired_drop(a, b, range(len(a))) for a, b in ((original, variant), (variant, original)))
    assert back.drop == -there.drop
    assert (back.fell, back.rose, back.p) == (there.rose, there.fell, there.p)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=1e-6)


def test_the_clustered_interval_has_the_standard_error_of_prompts() -> None:
    rng = np.random.default_rng(1)
    change = rng.choice([-1.0, 0.0, 1.0], size=300, p=[0.1, 0.6, 0.3])
    original = np.repeat((change > 0).astype(float), 4)
    variant = np.repeat((change < 0).astype(float), 4)
    found = paired_drop(original, variant, np.repeat(np.arange(300), 4).tolist())
    error = 100 * change.std() / np.sqrt(300)
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(error, rel=0.06)


def test_nine_in_ten_five_score_intervals_hold_the_drop() -> None:
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(400):
        kinds = rng.choice(4, size=154, p=[0.6, 0.12, 0.04, 0.24])  # both, fell, rose, neither
        original, variant = np.isin(kinds, (0, 1)).astype(float), np.isin(kinds, (0, 2)).astype(float)
        found = paired_drop(original, variant, range(154))
        held += found.low <= 8.0 <= found.high
    assert 367 <= held <= 393  # 95 % of 400 within three standard deviations


def simulated(rng: np.random.Generator, n: int, own: float) -> tuple:
    """An audited reward model that falls with a probability `own` above that of a panel of three."""
    hard = rng.random(n) < 0.2  # items whose variant is hard for all

    def one(extra: float) -> tuple[np.ndarray, np.ndarray]:
        original = (rng.random(n) < 0.8).astype(float)
        falls = rng.random(n) < np.where(hard, 0.5, 0.05) + extra
        return original, original * (1 - falls)

    audited = one(own)
    return *audited, [one(0.0) for _ in range(3)], range(n)


def test_the_difference_from_the_panel_by_hand() -> None:
    audited = credits_of(both=50, fell=20, rose=0, neither=30)  # falls by 20 points
    calm = credits_of(both=70, fell=0, rose=0, neither=30)  # by 0
    shaken = credits_of(both=60, fell=8, rose=2, neither=30)  # by 6
    found = drop_against_panel(*audited, [calm, shaken], range(100))
    assert found.drop == pytest.approx(20)
    assert found.panel == pytest.approx((0, 6))
    assert found.panel_drop == pytest.approx(3)
    assert found.difference == pytest.approx(17)
    assert 0 < found.low < 17 < found.high
    assert found.p == pytest.approx(2 / 4001)
    same = drop_against_panel(*audited, [audited], range(100))
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_what_is_hard_for_all_cancels_from_the_difference() -> None:
    rng = np.random.default_rng(3)
    shared = (rng.random(400) < 0.5).astype(float)  # whether an item falls, the same for all
    ones = np.ones(400)
    own = shared.copy()
    own[:40] = 1.0
    found = drop_against_panel(ones, 1 - own, [(ones, 1 - shared)] * 2, range(400))
    alone = paired_drop(ones, 1 - own, range(400))
    assert found.high - found.low < 0.5 * (alone.high - alone.low)


def test_nine_in_ten_five_intervals_hold_the_difference() -> None:
    rng = np.random.default_rng(4)
    held = false_alarms = 0
    for _ in range(120):
        found = drop_against_panel(*simulated(rng, 100, own=0.1))
        held += found.low <= 8.0 <= found.high  # 80 % right before × .1 more falls
        false_alarms += drop_against_panel(*simulated(rng, 100, own=0.0)).p < 0.05
    assert 106 <= held <= 119  # 95 % of 120 within three standard deviations, and one for the bootstrap
    assert false_alarms <= 14  # 5 % of 120 likewise


@pytest.mark.golden
def test_the_published_drops_are_those_of_154_items(golden: Path) -> None:
    with (golden / "published" / "judgebench_artifact_ablation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    for row in rows:
        before, after, published = (
            float(row[name]) for name in ("original", "without_five_letter_sentence", "absolute_drop")
        )
        right = [round(1.54 * share) for share in (before, after)]
        original, variant = (np.repeat([1.0, 0.0], [count, 154 - count]) for count in right)
        found = paired_drop(original, variant, range(154))
        if row["reward_model"] == "Llama 3.1 8B v0.1":
            # Neither of its accuracies is a share of 154 items to the digit printed.
            assert abs(found.original - before) > 0.05
            assert abs(found.variant - after) > 0.05
            assert before - after == pytest.approx(published)
            continue
        assert round(found.original, 1) == before
        assert round(found.variant, 1) == after
        assert found.drop == pytest.approx(published, abs=0.1)
        # Even if no item rose, which makes the interval as narrow as it can be, it is some points wide.
        assert 2 < (found.high - found.low) / 2 < 7
