"""Frontiers of runs: what is fitted, where gold reward turns, and what is said where it cannot be known."""

import json
from collections.abc import Callable, Sequence
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rlhf_eval.analysis.experiment import load_runs
from rlhf_eval.analysis.frontier import Frontier, frontiers
from rlhf_eval.analysis.run_record import read_runs

Add = Callable[..., Path]
Curve = Callable[[np.ndarray], Any]
KLS = (0.0, 0.25, 1.0, 4.0, 9.0, 16.0)


def rl(alpha: float, beta: float, noise: float = 0.0, seed: int = 0) -> Curve:
    """Gain over √KL of a policy trained by reinforcement learning."""
    rng = np.random.default_rng(seed)
    return lambda d: (
        d * (alpha - beta * np.log(np.where(d > 0, d, 1.0))) + noise * (d > 0) * rng.standard_normal(len(d))
    )


def rising(d: np.ndarray) -> np.ndarray:
    return 2 * d


def train(
    run: Path,
    gold: Curve | None,
    kls: Sequence[float] = KLS,
    proxy: Curve = rising,
    start: float = 0.0,
    steps: Sequence[int] = (0, 10, 20, 30, 40, 50),
) -> None:
    """Give a run checkpoints at these KLs; `start` is the initial policy's gold reward."""
    d = np.sqrt(np.maximum(kls, 0.0))
    golds = [None] * len(d) if gold is None else [start + gain for gain in gold(d)]
    rows = [
        {
            "kind": "checkpoint",
            "step": steps[place],
            "kl": kls[place],
            "proxy_reward": 0.1 + proxy(d)[place],
            "gold_reward": golds[place],
            "length_tokens": 9.0,
        }
        for place in range(len(d))
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def only(run: Path, **options: Any) -> Frontier:
    """The one frontier of the experiment that the run is in."""
    (found,) = frontiers(read_runs(run.parent), **options)
    return found


def test_two_seeds_on_one_curve(experiment: Add) -> None:
    """R = d (0.6 − 0.4 log d) turns at exp(0.5), wherever the reward of the initial policy is."""
    train(experiment(seed=0), rl(0.6, 0.4), start=3.0)
    train(run := experiment(seed=1), rl(0.6, 0.4), start=-1.0)
    found = only(run)
    assert (found.reward_model, found.control, found.form, found.seeds) == ("clean", False, "rl", (0, 1))
    assert found.gold is not None
    assert (found.gold.fit.alpha, found.gold.fit.beta) == pytest.approx((0.6, 0.4))
    assert (found.gold.initial, found.gold.fit.r_squared) == pytest.approx((1.0, 1.0))
    assert found.gold.by_seed.keys() == {0, 1}
    assert found.proxy is not None
    assert (found.proxy.fit.alpha, found.proxy.fit.beta) == pytest.approx((2.0, 0.0), abs=1e-9)
    turn = found.overoptimisation
    assert turn is not None
    place = np.exp(0.5)
    assert (turn.distance, turn.kl) == pytest.approx((place, place**2))
    assert (turn.low, turn.high) == pytest.approx((place, place))
    assert turn.gold_gain == pytest.approx(0.4 * place)
    assert (turn.extrapolated, turn.probability, found.words) == (False, 1.0, ())


def test_the_curve_runs_to_the_largest_distance_trained(experiment: Add) -> None:
    train(run := experiment(), rl(0.6, 0.4))
    found = only(run)
    assert found.gold is not None
    (start, nothing), (end, gained) = found.gold.curve[0], found.gold.curve[-1]
    assert (start, nothing, end) == (0, 0, 4)
    assert gained == pytest.approx(4 * (0.6 - 0.4 * log(4)))
    assert [point.distance for point in found.points] == [0, 0.5, 1, 2, 3, 4]
    assert (found.points[0].gold_gain, found.points[0].proxy_gain) == (0, 0)


def test_seeds_that_differ_widen_the_intervals(experiment: Add) -> None:
    train(experiment("same", seed=0), rl(0.6, 0.4, 0.01, 1))
    train(experiment("same", seed=1), rl(0.6, 0.4, 0.01, 2))
    train(experiment("other", seed=0), rl(0.4, 0.4, 0.01, 1))
    train(run := experiment("other", seed=1), rl(0.8, 0.4, 0.01, 2))
    other, same = frontiers(read_runs(run.parent))
    assert same.gold is not None
    assert other.gold is not None
    assert same.gold.alpha_low < 0.6 < same.gold.alpha_high
    assert other.gold.alpha_low < 0.45
    assert other.gold.alpha_high > 0.75
    assert same.gold.alpha_high - same.gold.alpha_low < 0.1


def test_best_of_n_has_its_own_form(experiment: Add) -> None:
    run = experiment()
    config = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
    config["algorithm"] = {"name": "bon", "kind": "best_of_n", "samples": 64, "max_completion_tokens": 32}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    sizes = [1, 2, 4, 8, 16, 32, 64]
    kls = [log(n) - (n - 1) / n for n in sizes]
    train(run, lambda d: d * (0.9 - 0.3 * d), kls, start=0.5, steps=sizes)
    found = only(run)
    assert (found.form, found.algorithm) == ("best_of_n", "bon")
    assert found.gold is not None
    assert (found.gold.fit.alpha, found.gold.fit.beta) == pytest.approx((0.9, 0.3))
    assert found.gold.other_r_squared is not None
    assert found.gold.other_r_squared < 1
    assert found.overoptimisation is not None
    assert found.overoptimisation.distance == pytest.approx(0.9 / 0.6)
    assert "all n share their samples" in found.words[-1]


def test_without_overoptimisation_there_is_no_point(experiment: Add) -> None:
    train(run := experiment(), rl(0.6, -0.05))
    found = only(run)
    assert found.gold is not None
    assert found.overoptimisation is None
    assert found.words[0] == (
        "No overoptimisation seen: fitted gold reward rises to the end of what was trained (√KL 4)."
    )


def test_a_turn_absurdly_far_away_is_none(experiment: Add) -> None:
    train(run := experiment(), rl(0.6, 0.01))
    assert only(run).overoptimisation is None


def test_a_turn_beyond_training_is_marked(experiment: Add) -> None:
    train(run := experiment(), rl(0.6, 0.2))
    found = only(run)
    assert found.overoptimisation is not None
    assert found.overoptimisation.extrapolated
    assert "(√KL 7.39) lies beyond what was trained (√KL 4): it is extrapolated." in found.words[0]


def test_gold_that_only_falls_is_said_to(experiment: Add) -> None:
    train(run := experiment(), rl(-0.5, 0.2))
    found = only(run)
    assert found.overoptimisation is not None
    assert found.overoptimisation.extrapolated
    assert found.words[0].startswith("Fitted gold reward falls over all that was trained (√KL 0.5 to √KL 4)")
    train(run, rl(-0.5, -0.1))
    found = only(run)
    assert found.overoptimisation is None
    assert "does not rise above the initial policy's" in found.words[0]


def test_a_turn_that_noise_may_have_made_has_no_upper_end(experiment: Add) -> None:
    train(run := experiment(), rl(0.5, 0.2, noise=0.3, seed=0))
    found = only(run)
    assert found.overoptimisation is not None
    assert found.overoptimisation.high is None
    assert 0.3 < found.overoptimisation.probability < 0.97
    assert any("Whether gold reward turns is not settled" in words for words in found.words)


def test_one_seed_is_said_to_be_one(experiment: Add) -> None:
    train(run := experiment(), rl(0.6, 0.4))
    assert only(run).words == (
        "One seed: intervals hold the scatter of one seed's checkpoints around the fit, not training luck.",
    )


def test_without_gold_proxy_is_fitted_alone(experiment: Add) -> None:
    train(run := experiment(), None)
    found = only(run)
    assert (found.gold, found.overoptimisation) == (None, None)
    assert found.proxy is not None
    assert "No gold reward was measured" in found.words[0]


@pytest.mark.parametrize("kls", [(0.0, 1.0, 4.0), (0.0, -0.01, 1.0, 4.0), (0.0, 2.0, 2.0, 2.0), (0.0,)])
def test_too_few_checkpoints_are_not_fitted(experiment: Add, kls: tuple[float, ...]) -> None:
    train(run := experiment(), rl(0.6, 0.4), kls)
    found = only(run)
    assert (found.gold, found.proxy, found.overoptimisation) == (None, None, None)
    assert [words.split(":")[0] for words in found.words] == [
        "Gold reward is not fitted",
        "Proxy reward is not fitted",
    ]
    assert len(found.points) == len(kls)
    assert all(point.distance >= 0 for point in found.points)


def test_a_seed_that_cannot_be_fitted_is_named(experiment: Add) -> None:
    train(experiment(seed=0), rl(0.6, 0.4))
    train(experiment(seed=1), rl(0.6, 0.4), (0.0, 1.0))
    train(run := experiment(seed=2), rl(0.6, 0.4), steps=range(10, 70, 10))
    found = only(run)
    assert found.seeds == (0, 1)
    assert found.gold is not None
    assert found.gold.by_seed.keys() == {0}
    assert [words[:40] for words in found.words[:3]] == [
        "Seed 2 is left out: its metrics.jsonl ha",
        "Seed 1 is not in the fit of gold reward:",
        "Seed 1 is not in the fit of proxy reward",
    ]


def test_checkpoints_without_a_reward_are_left_out(experiment: Add) -> None:
    train(run := experiment(), lambda d: np.where(d == 2, np.nan, rl(0.6, 0.4)(d)))
    found = only(run)
    assert found.gold is not None
    assert (found.gold.fit.alpha, found.gold.fit.beta) == pytest.approx((0.6, 0.4))
    assert [point.gold_gain is None for point in found.points] == [False, False, False, True, False, False]


def test_only_finished_runs_that_train_have_a_frontier(experiment: Add) -> None:
    train(experiment("clean"), rl(0.6, 0.4))
    experiment("random", control=True, kl=None)
    experiment("slow", finished=False)
    run = experiment("untrained", kind="untrained", kl=None)
    found = {one.reward_model: one for one in frontiers(read_runs(run.parent))}
    assert found.keys() == {"clean", "random"}
    assert (found["random"].control, found["random"].points) == (True, ())
    assert "no checkpoint of the initial policy" in found["random"].words[0]


def test_the_embedded_shape_of_an_experiment(lab: Path) -> None:
    """Gold of the fixture is no curve of the formula: fits are close, every number is finite or None."""
    for found in frontiers(load_runs(lab), bootstraps=200):
        assert found.seeds == (0, 1)
        assert found.gold is not None
        assert found.gold.fit.r_squared is not None
        assert found.gold.alpha_low <= found.gold.fit.alpha <= found.gold.alpha_high
        assert found.gold.beta_low <= found.gold.fit.beta <= found.gold.beta_high
