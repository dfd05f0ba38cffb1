"""Reward models compared where all have come equally far."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from scipy.stats import t

from rlhf_eval.analysis.equal_kl import EqualKL, at_equal_kl
from rlhf_eval.analysis.run_record import read_runs

Add = Callable[..., Path]


def train(run: Path, kls: Sequence[float], gold: Sequence[float] | None, proxy: Sequence[float]) -> None:
    rows = [
        {
            "kind": "checkpoint",
            "step": 10 * place,
            "kl": kl,
            "proxy_reward": proxy[place],
            "gold_reward": None if gold is None else gold[place],
            "length_tokens": 10.0 + place,
        }
        for place, kl in enumerate(kls)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def only(run: Path, kl: float | None = None) -> EqualKL:
    (found,) = at_equal_kl(read_runs(run.parent), kl)
    return found


def test_gains_are_over_the_initial_policy_at_the_largest_common_kl(experiment: Add) -> None:
    train(experiment("far"), [0, 2, 6], [0.5, 0.7, 0.9], [0.1, 1.1, 3.1])
    train(run := experiment("near"), [0, 2, 4], [0.2, 0.8, 0.6], [0.0, 2.0, 3.0])
    found = only(run)
    assert (found.policy, found.algorithm, found.kl) == ("lab_policy", "grpo", 4)
    near, far = found.rows
    assert [(row.reward_model, row.rank, row.seeds) for row in found.rows] == [("near", 1, 1), ("far", 2, 1)]
    assert near.gold is not None
    assert near.gap is not None
    assert (near.gold.mean, near.gap.mean, near.length_tokens) == pytest.approx((0.4, -2.6, 12))
    assert (near.gold.low, near.gold.high) == (None, None)
    assert far.gold is not None
    assert far.proxy is not None
    assert (far.gold.mean, far.proxy.mean, far.length_tokens) == pytest.approx((0.3, 2.0, 11.5))
    assert found.words == (
        "Compared at a KL of 4 nats per completion (√KL 2).",
        "Every reward model has one seed there, so there are no intervals.",
    )


def test_another_kl_orders_otherwise(experiment: Add) -> None:
    train(experiment("early"), [0, 2, 6], [0, 0.6, 0.5], [0, 1, 2])
    train(run := experiment("late"), [0, 2, 6], [0, 0.3, 0.9], [0, 1, 2])
    assert [row.reward_model for row in only(run).rows] == ["late", "early"]
    assert [row.reward_model for row in only(run, 2).rows] == ["early", "late"]


def test_intervals_pool_the_variance_between_seeds(experiment: Add) -> None:
    """Two reward models of three and of two seeds share three degrees of freedom; one of one seed borrows."""
    for name, golds in (("a", [0.5, 0.6, 0.7]), ("b", [0.2, 0.4]), ("c", [0.35])):
        for seed, gold in enumerate(golds):
            train(run := experiment(name, seed=seed), [0, 4], [0, gold], [0, 1])
    a, c, b = only(run).rows
    half = t.ppf(0.975, 3) * ((0.01 + 0.01 + 0.01 + 0.01) / 3) ** 0.5
    for row, mean, seeds in ((a, 0.6, 3), (b, 0.3, 2), (c, 0.35, 1)):
        assert row.gold is not None
        expected = (mean, mean - half / seeds**0.5, mean + half / seeds**0.5)
        assert (row.gold.mean, row.gold.low, row.gold.high) == pytest.approx(expected)


def test_equal_gains_share_a_rank(experiment: Add) -> None:
    for name, gold in (("a", 0.5), ("b", 0.5), ("c", 0.25)):
        train(run := experiment(name), [0, 4], [0, gold], [0, 1])
    assert [row.rank for row in only(run).rows] == [1, 1, 3]


def test_controls_have_no_say_in_the_kl_and_may_never_be_there(experiment: Add) -> None:
    train(experiment("random", control=True), [0, 0.1], [0, 0.0], [0, 0])
    train(experiment("clean", seed=0), [0, 4], [0, 0.5], [0, 1])
    train(run := experiment("clean", seed=1), [0, 5], [0, 0.5], [0, 1])
    clean, random = only(run).rows
    assert (clean.seeds, clean.control) == (2, False)
    assert (random.rank, random.seeds, random.n_seeds, random.gold, random.length_tokens) == (
        None,
        0,
        1,
        None,
        None,
    )
    assert "Never at this KL: random." in only(run).words
    assert "clean comes there in 1 of 2 seeds." in only(run, 4.5).words


def test_a_run_that_jumps_over_the_kl_is_named(experiment: Add) -> None:
    train(experiment("leaper"), [0, 26, 22], [0, -0.3, -0.3], [0, 7, 7])
    train(run := experiment("walker"), [0, 1, 3], [0, 0.2, 0.3], [0, 1, 2])
    assert only(run).words[-1] == (
        "Interpolated from the initial policy, as the first checkpoint lies beyond: leaper."
    )


def test_without_gold_the_order_is_of_proxy_and_said_to_be(experiment: Add) -> None:
    train(experiment("blind"), [0, 4], None, [0, 3])
    train(run := experiment("seeing"), [0, 4], [0, 0.5], [0, 1])
    found = only(run)
    assert [(row.reward_model, row.rank) for row in found.rows] == [("blind", 1), ("seeing", 2)]
    assert (found.rows[0].gold, found.rows[0].gap) == (None, None)
    assert any("the order is that of proxy reward" in words for words in found.words)


def test_without_a_common_kl_there_is_nothing_to_compare(experiment: Add) -> None:
    train(run := experiment("random", control=True), [0, 4], [0, 0.1], [0, 1])
    found = only(run)
    assert (found.kl, found.rows[0].gold) == (None, None)
    assert found.words == ("No KL is common to all finished runs that are no controls: name one with --kl.",)
