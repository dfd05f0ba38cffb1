import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rlhf_eval.analysis.experiment import load_runs
from rlhf_eval.analysis.ranking import rank
from rlhf_eval.errors import ConfigError, DataError

Add = Callable[..., Path]
KEYS = ["reward_model", "control", "n_seeds", "score", "low", "high", "rank", "rank_low", "rank_high"]
KEYS += ["benchmark", "benchmark_low", "benchmark_high", "benchmark_n", "gold", "probability_best", "tier"]
KEYS += ["difference", "difference_low", "difference_high", "better_than_untrained"]
KEYS += ["control_difference", "control_difference_low", "control_difference_high"]
KEYS += ["training_steps", "no_gradient_steps", "warning"]


def printed(ranking: object) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(ranking.as_table())  # type: ignore[attr-defined]
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_lab_is_ranked_by_what_its_policies_score(lab: Path) -> None:
    ranking = rank(load_runs(lab))
    rows = ranking.as_json()
    assert [list(row) for row in rows] == [KEYS] * 8
    assert [row["reward_model"] for row in rows][:5] == [
        "clean",
        "noisy",
        "clean_small",
        "contaminated",
        "random",
    ]
    assert [row["rank"] for row in rows] == list(range(1, 9))
    assert {row["reward_model"] for row in rows if row["control"]} == {"random", "length_only", "flipped"}
    assert all(row["low"] < row["score"] < row["high"] for row in rows)
    assert all(row["rank_low"] <= row["rank"] <= row["rank_high"] for row in rows)
    assert rows[3]["benchmark"] == 95.0
    assert ranking.untrained is not None
    assert ranking.untrained.score == pytest.approx(50, abs=3)
    assert ranking.spearman_gold == pytest.approx(1.0)
    json.dumps(rows, allow_nan=False)


def test_what_beats_what_in_the_lab(lab: Path) -> None:
    """Written down from the lab's own qualities: clean .71, noisy .66, …, contaminated .56, untrained .50."""
    rows = {row["reward_model"]: row for row in rank(load_runs(lab)).as_json()}
    assert rows["clean"]["tier"] == 1
    assert rows["clean"]["tier"] < rows["contaminated"]["tier"] < rows["length_biased"]["tier"]
    candidates = [row for row in rows.values() if not row["control"]]
    assert sum(row["probability_best"] for row in candidates) == pytest.approx(1)
    assert all(row["probability_best"] is None for row in rows.values() if row["control"])
    better = {name for name, row in rows.items() if row["better_than_untrained"]}
    assert {"clean", "noisy", "clean_small"} <= better
    assert better.isdisjoint({"random", "length_biased", "length_only", "flipped"})
    assert rows["clean"]["difference"] == pytest.approx(21, abs=3)
    assert rows["clean"]["control_difference"] == rows["clean"]["score"] - rows["random"]["score"]
    assert rows["random"]["control_difference"] == rows["random"]["score"] - rows["length_only"]["score"]
    for row in rows.values():
        assert row["difference_low"] < row["difference"] < row["difference_high"]


def test_without_untrained_policy_and_controls_nothing_is_said_of_them(experiment: Add) -> None:
    folder = experiment("a", 0, [0.5, 0.7, 0.4]).parent
    (row,) = rank(load_runs(folder)).as_json()
    assert (row["difference"], row["better_than_untrained"], row["control_difference"]) == (None, None, None)
    assert (row["probability_best"], row["tier"]) == (1.0, 1)


def test_two_reward_models_of_one_prompt(experiment: Add) -> None:
    """Next to nothing to go by: no crash, and nothing is called certain."""
    folder = experiment("a", 0, [0.5]).parent
    experiment("b", 0, [0.9])
    rows = rank(load_runs(folder)).as_json()
    assert [row["reward_model"] for row in rows] == ["b", "a"]
    json.dumps(rows, allow_nan=False)


def test_seeds_of_some_are_lent_to_the_others(experiment: Add) -> None:
    rng = np.random.default_rng(0)
    for seed in range(3):
        folder = experiment("three", seed, rng.random(50) * 0.2 + 0.2 * seed).parent
    experiment("one", 0, rng.random(50) * 0.2)
    ranking = rank(load_runs(folder))
    rows = {row.reward_model: row for row in ranking.rows}
    assert rows["one"].high - rows["one"].low > rows["three"].high - rows["three"].low
    assert any("One seed only for one" in note for note in ranking.notes)


def test_scores_are_means_over_prompts_then_seeds(experiment: Add) -> None:
    folder = experiment("clean", 0, [0.0, 0.5, 1.0], [1.0, 1.0, 0.4]).parent
    experiment("clean", 1, [1.0, 0.5, 0.9], [0.0, 0.0, 0.0])
    runs = load_runs(folder)
    assert rank(runs).rows[0].score == pytest.approx(65.0)
    assert rank(runs, "arena_hard.score").rows[0].score == pytest.approx(40.0)


def test_the_table_sets_controls_apart_and_names_what_is_missing(lab: Path) -> None:
    text = printed(rank(load_runs(lab)))
    assert text.index("length_biased") < text.index("random (control)") < text.index("untrained policy")
    for header in ("AlpacaEval LC win rate", "Arena-Hard score", "lab_public", "lab_private", "gold"):
        assert header in text


def test_one_seed_says_that_intervals_cover_prompts_only(experiment: Add) -> None:
    values = np.random.default_rng(0).random(400)
    folder = experiment("clean", 0, values).parent
    ranking = rank(load_runs(folder), bootstraps=4000)
    (row,) = ranking.rows
    assert (row.rank, row.rank_low, row.rank_high, row.n_seeds) == (1, 1, 1, 1)
    half = 1.96 * 100 * values.std() / 20
    assert (row.low, row.high) == pytest.approx((row.score - half, row.score + half), abs=0.25)
    assert any("prompts only" in note for note in ranking.notes)


def test_intervals_stay_on_the_scale(experiment: Add) -> None:
    for seed, share in ((0, 0.02), (1, 0.0)):
        folder = experiment("hopeless", seed, np.random.default_rng(seed).random(40) < share).parent
        experiment("perfect", seed, np.random.default_rng(seed).random(40) >= share)
    rows = rank(load_runs(folder)).rows
    assert all(0 <= row.low <= row.score <= row.high <= 100 for row in rows)


def test_equal_scores_share_a_rank_and_could_take_any(experiment: Add) -> None:
    for name in ("a", "b", "c"):
        folder = experiment(name, 0, [0.5] * 20).parent
    rows = rank(load_runs(folder)).rows
    assert [(row.rank, row.rank_low, row.rank_high) for row in rows] == [(1, 1, 3)] * 3


def test_a_missing_benchmark_is_none_and_a_missing_verdict_is_left_out(experiment: Add) -> None:
    folder = experiment("clean", 0, [0.5, np.nan, 0.7], benchmarks={"public": (300, 82.0)}).parent
    experiment("noisy", 0, [0.5, 0.9, 0.1], benchmarks={})
    rows = {row["reward_model"]: row for row in rank(load_runs(folder)).as_json()}
    assert rows["clean"]["score"] == pytest.approx(60)
    assert rows["clean"]["benchmark"] == 82.0
    assert rows["noisy"]["benchmark"] is None


def test_another_benchmark_can_be_chosen(lab: Path) -> None:
    runs = load_runs(lab)
    assert rank(runs).benchmark == "lab_public"
    private = rank(runs, benchmark="lab_private")
    assert private.rows[0].benchmark == 83.0
    with pytest.raises(ConfigError, match="Did you mean 'lab_private'"):
        rank(runs, benchmark="lab_privat")


def test_unknown_metric(lab: Path) -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'arena_hard\.score'"):
        rank(load_runs(lab), metric="arena_hard.scor")


def test_skipped_runs_are_listed(experiment: Add) -> None:
    folder = experiment("clean").parent
    experiment("noisy", finished=False, state={"state": "running", "stage": "train"})
    ranking = rank(load_runs(folder))
    assert [(name.split("--")[0], state) for name, state in ranking.skipped] == [
        ("noisy", "running in train")
    ]
    assert "running in train" in printed(ranking)


def test_only_the_untrained_policy_is_no_ranking(experiment: Add) -> None:
    folder = experiment("untrained", kind="untrained", control=True).parent
    with pytest.raises(DataError, match="only the untrained policy"):
        rank(load_runs(folder))


def test_names_with_markup_are_printed_as_they_are(experiment: Add, renamed: Callable) -> None:
    runs = renamed(load_runs(experiment("clean").parent), "[red]rm[/red]")
    assert "[red]rm[/red]" in printed(rank(runs))
