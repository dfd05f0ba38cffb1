"""Where on its curve a run is looked at, and which point of the grid a reward model is ranked at."""

import json
from collections.abc import Callable, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rlhf_eval.analysis.experiment import check_comparable, experiment_kl, grid_choices, load_runs, read_runs
from rlhf_eval.analysis.ranking import rank
from rlhf_eval.analysis.selection import choose, common_kl, equal_kl, last, peak
from rlhf_eval.errors import DataError

Add = Callable[..., Path]
KL = st.integers(0, 200).map(lambda quarters: quarters / 4)
KLS = st.lists(KL, min_size=1, max_size=8)
GRID = {"grid": {"algorithm.kl_coefficient": [0.2, 0.02]}}


def curve(kls: Sequence[float], gold: Sequence[float | None] | None = None, proxy: Any = None) -> list[dict]:
    """Checkpoints at steps 0, 10, 20 …; length is 100 tokens and one more a step."""
    return [
        {
            "step": 10 * number,
            "kl": kl,
            "proxy_reward": 0.5 * number if proxy is None else proxy[number],
            "gold_reward": None if gold is None else gold[number],
            "length_tokens": 100.0 + 10 * number,
        }
        for number, kl in enumerate(kls)
    ]


def test_last_and_peak_where_reward_is_over_optimised() -> None:
    rows = curve([0, 2, 6, 9], [0.5, 0.7, 0.9, 0.4])
    found = last(rows), peak(rows)
    assert [place and astuple(place) for place in found] == [(30, 9, 1.5, 0.4, 130), (20, 6, 1.0, 0.9, 120)]


def test_the_peak_is_of_proxy_reward_where_there_is_no_gold() -> None:
    found = peak(curve([0, 2, 6, 9], proxy=[0.1, 0.3, 0.9, 0.8]))
    assert found is not None
    assert (found.step, found.gold_reward) == (20, None)


def test_of_equal_peaks_the_first_counts_and_the_initial_policy_never() -> None:
    found = peak(curve([0, 2, 6, 9], [0.9, 0.7, 0.7, 0.4]))
    assert found is not None
    assert found.step == 10
    assert peak(curve([0.0], [0.9])) is None


def test_a_checkpoint_without_gold_is_no_peak_where_others_have_it() -> None:
    found = peak(curve([0, 2, 6, 9], [0.5, 0.6, None, float("nan")], [0, 1, 9, 9]))
    assert found is not None
    assert found.step == 10


def test_equal_kl_is_interpolated_between_the_first_two_that_bracket_it() -> None:
    # Walking 0 → 2 → 6 → 3 → 8, a KL of 5 is passed three times, first three quarters from 2 to 6.
    found = equal_kl(curve([0, 2, 6, 3, 8], [0.5, 0.6, 1.0, 0.2, 0.1]), 5)
    assert found is not None
    assert astuple(found) == pytest.approx((17.5, 5, 0.875, 0.9, 117.5))


def test_at_a_checkpoint_equal_kl_is_that_checkpoint() -> None:
    rows = curve([0, 2, 2, 1], [0.5, 0.6, 1.0, 0.2])
    assert equal_kl(rows, 0) == last(rows[:1])
    assert equal_kl(rows, 2) == last(rows[:2])  # the first of those with that KL
    assert equal_kl(rows, 2.01) is None


def test_unknown_gold_stays_unknown_between_checkpoints() -> None:
    found = equal_kl(curve([0, 4], [0.5, None]), 1)
    assert found is not None
    assert (found.gold_reward, found.proxy_reward) == (None, 0.125)


@pytest.mark.parametrize("rows", [[], curve([float("nan")]), [{"step": 0, "kl": None}]])
def test_a_curve_without_checkpoints_has_no_place(rows: list[dict]) -> None:
    assert (last(rows), peak(rows), equal_kl(rows, 0.0), common_kl([rows])) == (None, None, None, None)


@given(KLS, KL)
def test_a_run_is_at_every_kl_between_its_smallest_and_largest_and_at_no_other(
    kls: list[float], kl: float
) -> None:
    found = equal_kl(curve(kls), kl)
    assert (found is not None) == (min(kls) <= kl <= max(kls))
    if found is not None:
        assert found.kl == kl
        before = kls[: int(found.step // 10) + 1]
        assert len({value < kl for value in before if value != kl}) <= 1  # it was not there earlier
        # Linear in KL: interpolating the KL itself at that step gives the KL back.
        assert np.interp(found.step, 10 * np.arange(len(kls)), kls) == pytest.approx(kl, abs=1e-6)


@given(st.lists(KLS, min_size=1, max_size=5))
def test_the_common_kl_is_the_largest_that_all_reach(runs: list[list[float]]) -> None:
    curves = [curve(kls) for kls in runs]
    common = common_kl(curves)
    reached = [kl for kls in runs for kl in kls if all(equal_kl(rows, kl) for rows in curves)]
    assert common == max(reached, default=None)


def test_no_curve_has_no_common_kl() -> None:
    assert common_kl([]) is None


LOW, HIGH = (("b", 0.1),), (("b", 0.5),)


def test_the_point_with_the_best_mean_peak_over_seeds_is_chosen() -> None:
    choice = choose(
        {
            (LOW, 0): curve([0, 1, 2], [0.5, 0.9, 0.1]),
            (LOW, 1): curve([0, 1, 2], [0.5, 0.5, 0.5]),
            (HIGH, 0): curve([0, 1, 2], [0.5, 0.6, 0.8]),
            (HIGH, 1): curve([0, 1, 2], [0.5, 0.8, 0.2]),
        },
        [LOW, HIGH],
    )
    assert (choice.point, choice.gold, choice.missing) == (HIGH, True, ())
    assert choice.reward == pytest.approx(0.8)


def test_a_point_with_fewer_seeds_does_not_win_by_luck_and_is_named() -> None:
    curves = {
        (LOW, 0): curve([0, 1], [0.5, 0.6]),
        (LOW, 1): curve([0, 1], [0.5, 0.6]),
        (HIGH, 1): curve([0, 1], [0.5, 0.9]),
    }
    choice = choose(curves, [LOW, HIGH])
    assert (choice.point, choice.missing) == (LOW, ((HIGH, 0),))


def test_equal_points_go_by_the_order_of_the_grid() -> None:
    curves = {(point, 0): curve([0, 1], [0.5, 0.6]) for point in (HIGH, LOW)}
    assert choose(curves, [LOW, HIGH]).point == LOW
    assert choose(curves, [HIGH, LOW]).point == HIGH


def test_without_gold_the_proxy_chooses() -> None:
    curves = {(LOW, 0): curve([0, 1], proxy=[0, 2]), (HIGH, 0): curve([0, 1], proxy=[0, 1])}
    choice = choose(curves, [LOW, HIGH])
    assert (choice.point, choice.gold, choice.reward) == (LOW, False, 2)


def gridded(
    add: Add, name: str, seed: int, coefficient: float, gold: float, win_rate: float, **more: Any
) -> Path:
    return add(
        name,
        seed,
        [win_rate] * 4,
        gold=gold,
        algorithm={"kl_coefficient": coefficient},
        hash8=f"{round(1000 * coefficient):08d}",
        **GRID,
        **more,
    )


def held_out_gold(path: Path, level: float) -> None:
    """Shift a run's gold rewards on the held-out prompts; what it scores downstream stays."""
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    rows = [row | ({"gold_reward": level} if row["kind"] == "checkpoint" else {}) for row in rows]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_each_reward_model_is_ranked_at_its_point_chosen_without_the_evaluations(experiment: Add) -> None:
    for seed in (0, 1):
        # The high coefficient wins on the held-out prompts, the low one on AlpacaEval and Arena-Hard.
        folder = gridded(experiment, "clean", seed, 0.2, 0.7, 0.6).parent
        held_out_gold(gridded(experiment, "clean", seed, 0.02, 0.7, 0.9), 0.1)
        held_out_gold(gridded(experiment, "noisy", seed, 0.2, 0.7, 0.3), 0.1)
        gridded(experiment, "noisy", seed, 0.02, 0.7, 0.4)
    experiment("untrained", 0, [0.5] * 4, control=True, kind="untrained", kl=None, algorithm={"steps": 7})
    assert len(read_runs(folder)) == 9
    runs = load_runs(folder)
    assert {(run.reward_model, value) for run in runs for _, value in run.point} == {
        ("clean", 0.2),
        ("noisy", 0.02),
    }
    ranking = rank(runs)
    assert [(row.reward_model, row.n_seeds) for row in ranking.rows] == [("clean", 2), ("noisy", 2)]
    assert [row.score for row in ranking.rows] == pytest.approx([60, 40])
    assert ranking.untrained is not None
    (note,) = [note for note in ranking.notes if "grid" in note]
    assert (
        "gold reward at the peak: clean algorithm.kl_coefficient=0.2; noisy algorithm.kl_coefficient=0.02."
        in note
    )


def test_an_incomplete_grid_is_named_in_the_ranking(experiment: Add) -> None:
    folder = gridded(experiment, "clean", 0, 0.2, 0.7, 0.6).parent
    gridded(experiment, "clean", 0, 0.02, 0.7, 0.5)
    gridded(experiment, "noisy", 0, 0.2, 0.7, 0.6)
    gridded(experiment, "noisy", 0, 0.02, 0.7, 0.6, finished=False)
    ranking = rank(load_runs(folder))
    incomplete = [note for note in ranking.notes if "incomplete" in note]
    assert incomplete == [
        "The grid of noisy is incomplete, no finished run at algorithm.kl_coefficient=0.02 seed 0."
    ]
    assert len(ranking.skipped) == 1


def test_a_reward_model_that_nothing_can_choose_for_is_refused_by_name(experiment: Add) -> None:
    folder = gridded(experiment, "clean", 0, 0.2, 0.7, 0.6).parent
    gridded(experiment, "noisy", 0, 0.2, 0.7, 0.6, kl=None)
    with pytest.raises(DataError, match="for noisy: none of its finished runs has a checkpoint"):
        load_runs(folder)


def test_one_point_has_one_run_of_a_seed(experiment: Add) -> None:
    folder = gridded(experiment, "clean", 0, 0.2, 0.7, 0.6).parent
    copy = experiment("clean", 0, gold=0.7, algorithm={"kl_coefficient": 0.2}, hash8="ffffffff", **GRID)
    with pytest.raises(DataError, match=f"{copy.name} are the same reward model and seed at the same point"):
        load_runs(folder)


@pytest.mark.parametrize(
    ("other", "field"),
    [
        ({"algorithm": {"kl_coefficient": 0.02}}, "grid.algorithm.kl_coefficient"),  # no grid of its own
        ({"grid": {"algorithm.kl_coefficient": [0.2, 0.3]}}, "grid.algorithm.kl_coefficient"),
        ({"grid": {"algorithm.steps": [40]}}, "grid.algorithm.steps"),
        (
            {**GRID, "algorithm": {"kl_coefficient": 0.02, "clip_range_high": 0.3}},
            "algorithm.clip_range_high",
        ),
    ],
)
def test_runs_differ_in_the_fields_of_one_and_the_same_grid_only(
    experiment: Add, other: dict, field: str
) -> None:
    folder = gridded(experiment, "clean", 0, 0.2, 0.7, 0.6).parent
    experiment("noisy", 0, gold=0.7, hash8="ffffffff", **({"algorithm": {"kl_coefficient": 0.2}} | other))
    with pytest.raises(DataError) as refusal:
        load_runs(folder)
    assert field in refusal.value.what


def test_a_prefix_of_a_field_of_the_grid_is_another_field(experiment: Add) -> None:
    grid = {"grid": {"algorithm.clip_range": [0.1, 0.2]}}
    folder = experiment("clean", 0, gold=0.7, algorithm={"clip_range": 0.1}, **grid).parent
    experiment("noisy", 0, gold=0.7, algorithm={"clip_range": 0.2, "clip_range_high": 0.3}, **grid)
    with pytest.raises(DataError, match="clip_range_high"):
        load_runs(folder)


def test_the_untrained_policy_agrees_with_any_training_but_not_with_another_judge(experiment: Add) -> None:
    folder = experiment("clean").parent
    untrained = experiment("a_base", kind="untrained", kl=None, algorithm={"steps": 7})
    assert len(load_runs(folder)) == 2
    experiment("noisy", algorithm={"steps": 50}, hash8="ffffffff")
    with pytest.raises(DataError, match=r"algorithm\.steps \(40 / 50\)"):
        load_runs(folder)
    config = untrained / "config.yaml"
    config.write_text(config.read_text().replace("lab-judge-1", "gpt-4.1"))
    with pytest.raises(DataError, match=r"judge\.model"):
        check_comparable([run for run in read_runs(folder) if run.reward_model != "noisy"])


def test_the_kl_of_an_experiment_is_reached_by_every_finished_run_but_controls(experiment: Add) -> None:
    folder = experiment("clean", kl=9.0).parent
    experiment("noisy", kl=6.0)
    experiment("random", control=True, kind="random", kl=0.4)
    experiment("late", kl=1.0, finished=False)
    experiment("untrained", kind="untrained", kl=None)
    best = {"name": "bo8", "kind": "best_of_n", "samples": 8, "max_completion_tokens": 32}
    assert experiment_kl(read_runs(folder)) == pytest.approx(6)
    path = experiment("clean", hash8="ffffffff", kl=1.2)
    config = yaml.safe_load((path / "config.yaml").read_text()) | {"algorithm": best}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    assert experiment_kl(read_runs(folder)) == pytest.approx(6)
    assert grid_choices(read_runs(folder)) == {}
    experiment("weak", kl=None)
    assert experiment_kl(read_runs(folder)) is None
