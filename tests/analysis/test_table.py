"""The table of runs: a row per run and checkpoint, nothing refused that can be shown, nothing stale."""

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from rlhf_eval.analysis import cache, runs_table
from rlhf_eval.analysis.columns import COLUMNS, named
from rlhf_eval.analysis.table import describe
from rlhf_eval.errors import ConfigError, DataError

Add = Callable[..., Path]
GRID = {"grid": {"algorithm.kl_coefficient": [0.04, 0.1]}}


def change_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_row_for_each_run_and_checkpoint(experiment: Add) -> None:
    folder = experiment(
        "clean", 1, [0.25, 0.75], [0.5, 1.0], benchmarks={"public": (300, 82.0)}, gold=0.7
    ).parent
    experiment("untrained", 0, [0.5, 0.5], kind="untrained", control=True, kl=None)
    table = runs_table(folder)
    assert table["reward_model"].tolist() == ["clean"] * 5 + ["untrained"]
    assert table["step"].tolist()[:5] == [0, 10, 20, 30, 40]
    assert table["kl"].tolist()[:5] == pytest.approx([0.0, 1.0, 2.0, 3.0, 4.0])
    assert table.loc[5, ["step", "kl", "peak"]].isna().all()
    final = table[table.final].set_index("reward_model")
    assert final.index.tolist() == ["clean", "untrained"]
    row = final.loc["clean"]
    assert (row["experiment"], row["policy"], row["algorithm"], row["seed"]) == (
        "lab",
        "lab_policy",
        "grpo",
        1,
    )
    assert (row["kind"], row["control"], row["state"], row["judge"]) == (
        "classifier",
        False,
        "done",
        "lab_judge",
    )
    assert (row["hash8"], row["run_directory"]) == ("0a1b2c3d", "clean--lab_policy--grpo--s1--0a1b2c3d")
    assert (row["commit"], row["dirty"]) == ("abc123", True)
    assert row["alpaca_eval.win_rate"] == 50.0
    assert (row["alpaca_eval.standard_error"], row["alpaca_eval.failed"]) == (2.0, 0)
    assert row["arena_hard.score"] == 75.0
    assert (row["gold.mean"], row["gold.n"]) == (0.7, 4)
    assert (row["benchmark.public"], row["benchmark_n.public"]) == (82.0, 300)
    assert row["benchmark_low.public"] < 82.0 < row["benchmark_high.public"]
    assert pd.isna(final.loc["untrained", "benchmark.public"])


def test_results_stand_in_the_final_row_only_and_a_mean_over_rows_counts_a_run_once(experiment: Add) -> None:
    folder = experiment("clean", 0, [0.4, 0.4]).parent
    experiment("clean", 1, [0.6, 0.6], kl=None)
    table = runs_table(folder)
    results = [column for column in table if named(column).place == "result"]
    assert table.loc[~table["final"], results].isna().all(axis=None)
    assert table.groupby("reward_model")["alpaca_eval.win_rate"].mean()["clean"] == 50.0


def test_the_peak_is_by_gold_reward_where_there_is_gold(experiment: Add) -> None:
    path = experiment("clean", 0, gold=0.5)
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    rewards = {10: (1.0, 0.6), 20: (2.0, 0.8), 30: (3.0, 0.7), 40: (2.5, 0.6)}
    for line in lines:
        if line["kind"] == "checkpoint" and line["step"]:
            line["proxy_reward"], line["gold_reward"] = rewards[line["step"]]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = runs_table(path)
    assert table.loc[table["peak"], "step"].tolist() == [20]
    for line in lines:
        line["gold_reward"] = None
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = runs_table(path)
    assert table.loc[table["peak"], "step"].tolist() == [30]


def test_training_seconds_count_a_repeated_step_once(experiment: Add) -> None:
    path = experiment("clean", 0, kl=None)
    steps = [(1, 5.0), (2, 6.0), (2, 7.0), (3, 1.0)]
    rows = [{"kind": "train", "step": step, "seconds": seconds} for step, seconds in steps]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert runs_table(path)["training_seconds"].tolist() == [13.0]


def test_grid_and_what_was_chosen(experiment: Add) -> None:
    folder = experiment("clean", 0, [0.8, 0.8], gold=0.9, **GRID).parent
    experiment("clean", 0, gold=0.2, hash8="ffffffff", algorithm={"kl_coefficient": 0.1}, **GRID)
    experiment("noisy", 0, gold=0.2, finished=False, **GRID)
    table = runs_table(folder)
    final = table[table.final]
    assert final["grid.algorithm.kl_coefficient"].tolist() == [0.04, 0.1, 0.04]
    assert final["chosen"].tolist() == [True, False, pd.NA]
    alone = runs_table(folder / "clean--lab_policy--grpo--s0--0a1b2c3d")
    assert alone["chosen"].isna().all()
    assert set(alone["run_directory"]) == {"."}


def test_columns_are_those_documented_whatever_is_there(experiment: Add, lab: Path) -> None:
    """The same names and types for a full experiment and for one run of which nothing is known yet."""
    bare = experiment("clean", finished=False, kl=None)
    for name in ("manifest.json", "status.json", "stages/benchmark/results.json"):
        (bare / name).unlink()
    documented = {column.name: column.dtype for column in COLUMNS if column.name[-1] != "*"}
    for table in (runs_table(bare), runs_table(lab)):
        own = {name: str(dtype) for name, dtype in table.dtypes.items()}
        assert {name: own[name] for name in documented} == documented
        assert [name for name in own if name in documented] == list(documented)
        assert {named(name).name for name in own.keys() - documented.keys()} <= {
            column.name for column in COLUMNS if column.name[-1] == "*"
        }
        described = describe(table)
        assert described["column"].tolist() == list(table)
        assert described["dtype"].tolist() == list(own.values())
        assert (described["meaning"].str.len() > 5).all()
    assert runs_table(bare)["state"].tolist() == ["not started"]


def test_the_table_survives_parquet(lab: Path, tmp_path: Path) -> None:
    table = runs_table(lab)
    table.to_parquet(tmp_path / "t.parquet")
    assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), table)


def test_what_cannot_be_compared_is_shown(experiment: Add) -> None:
    """Other judge, other prompts, other policy: ranking refuses them, the table tells them apart."""
    folder = experiment("clean").parent
    experiment("noisy", hash8="11111111", judge={"name": "gpt", "model": "gpt-4.1"})
    experiment("other", hash8="22222222", prompts={"train": "other.jsonl"}, policy={"name": "base"})
    final = runs_table(folder).query("final").set_index("reward_model")
    assert final["judge_model"].tolist() == ["lab-judge-1", "gpt-4.1", "lab-judge-1"]
    assert final["policy"].tolist() == ["lab_policy", "lab_policy", "base"]
    assert final.loc["clean", "prompts_sha256"] == final.loc["noisy", "prompts_sha256"]
    assert final.loc["clean", "prompts_sha256"] != final.loc["other", "prompts_sha256"]


def test_other_contents_of_the_same_prompt_files_are_told_apart(experiment: Add) -> None:
    folder = experiment("clean").parent
    change_json(experiment("noisy") / "manifest.json", sha256={"lab:questions.jsonl": "ab"})
    assert runs_table(folder)["prompts_sha256"].nunique() == 2


def test_unfinished_missing_and_duplicated_runs_are_shown(experiment: Add) -> None:
    folder = experiment("clean", benchmarks={"public": (300, 82.0)}).parent
    experiment("clean", hash8="ffffffff")
    experiment("noisy", finished=False, state={"state": "failed", "stage": "train", "error": "out of memory"})
    experiment("third", benchmarks={"private": (300, 80.0)})
    final = runs_table(folder).query("final")
    assert final["duplicate"].tolist() == [True, True, False, False]
    assert final["state"].tolist()[2] == "failed in train: out of memory"
    assert final["finished"].tolist() == [True, True, False, True]
    assert final["alpaca_eval.win_rate"].isna().tolist() == [False, False, True, False]
    assert final["benchmark.public"].isna().tolist() == [False, True, True, True]
    assert final["benchmark.private"].isna().tolist() == [True, True, True, False]


def test_numbers_that_are_none_are_missing(experiment: Add) -> None:
    path = experiment("clean", benchmarks={"public": (300, math.nan)})
    scores = json.loads((path / "stages/score/scores.json").read_text())["alpaca_eval"]
    change_json(
        path / "stages/score/scores.json",
        alpaca_eval=scores | {"win_rate": math.nan, "standard_error": math.inf, "n": None},
        arena_hard=None,
    )
    row = runs_table(path).query("final").iloc[0]
    for name in ("win_rate", "standard_error", "n"):
        assert row[f"alpaca_eval.{name}"] is pd.NA
    assert row["arena_hard.score"] is pd.NA
    assert row["benchmark.public"] is pd.NA


def test_second_judges_have_columns_of_their_own(experiment: Add) -> None:
    path = experiment("clean")
    other = {"gpt": {"alpaca_eval": {"win_rate": 40.0}, "arena_hard": {"score": 30.0}}}
    change_json(path / "stages/score/scores.json", second_judges=other)
    row = runs_table(path).query("final").iloc[0]
    assert row["second_judge.gpt.alpaca_eval.win_rate"] == 40.0
    assert row["second_judge.gpt.arena_hard.score"] == 30.0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("stages/score/scores.json", "{"),
        ("stages/score/scores.json", "[1]"),
        ("stages/score/scores.json", '{"alpaca_eval": [1]}'),
        ("stages/score/scores.json", '{"alpaca_eval": {"win_rate": "much"}}'),
        ("stages/score/scores.json", '{"gold": {"mean": true}}'),
        ("stages/benchmark/results.json", '{"public": 3}'),
        ("manifest.json", "nothing"),
        ("manifest.json", '{"environments": "abc"}'),
        ("status.json", "[]"),
        ("metrics.jsonl", '{"kind": "train", "step": 1}\nnothing\n{"kind": "train", "step": 2}\n'),
        ("metrics.jsonl", '{"kind": "checkpoint", "kl": 1.0}\n'),
        ("metrics.jsonl", '{"kind": "checkpoint", "step": 1, "kl": "far"}\n'),
        ("metrics.jsonl", '{"kind": "checkpoint", "step": 1, "entropy": [1]}\n'),
        ("metrics.jsonl", '{"kind": "train", "step": 1, "seconds": "long"}\n'),
        ("metrics.jsonl", "3\n"),
    ],
)
def test_a_damaged_file_is_named_with_a_cure(experiment: Add, name: str, text: str) -> None:
    experiment("noisy")
    path = experiment("clean")
    (path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        runs_table(path.parent)
    assert str(path) in caught.value.what
    assert caught.value.cure


def test_damaged_configurations_and_absent_folders(experiment: Add, tmp_path: Path) -> None:
    path = experiment("clean")
    (path / "config.yaml").write_text("seed: [")
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        runs_table(path.parent)
    with pytest.raises(DataError, match="no experiment folder"):
        runs_table(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no runs"):
        runs_table(tmp_path / "empty")


def test_a_folder_of_experiments_and_relative_paths(
    experiment: Add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = experiment("clean").parent
    shutil.copytree(folder, folder.with_name("other"))
    (folder.parent / "empty").mkdir()
    table = runs_table(folder.parent)
    assert table["experiment"].unique().tolist() == ["lab", "other"]
    assert not table["duplicate"].any()
    directory = "clean--lab_policy--grpo--s0--0a1b2c3d"
    assert table["run_directory"].unique().tolist() == [f"lab/{directory}", f"other/{directory}"]
    monkeypatch.chdir(folder)
    assert_frame_equal(runs_table("."), runs_table(folder))
    monkeypatch.chdir(directory)
    assert set(runs_table(".")["run"]) == {directory}


def finish(path: Path, source: Path) -> None:
    shutil.copytree(source / "stages/score", path / "stages/score")


def train_on(path: Path, source: Path) -> None:
    row = {"kind": "checkpoint", "step": 50, "kl": 9.0, "proxy_reward": 1.0, "length_tokens": 9.0}
    with (path / "metrics.jsonl").open("a") as stream:
        stream.write(json.dumps(row) + "\n")


def write_half(path: Path, source: Path) -> None:
    with (path / "metrics.jsonl").open("a") as stream:
        stream.write('{"kind": "checkpoint", "step": 60, "k')


def score_again(path: Path, source: Path) -> None:
    """Same size, and times of modification as before."""
    file = path / "stages/score/scores.json"
    stat = file.stat()
    file.write_text(file.read_text().replace('"win_rate": 60.0', '"win_rate": 61.0'))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file.stat().st_size == stat.st_size


def fail(path: Path, source: Path) -> None:
    (path / "status.json").write_text('{"state": "failed", "stage": "judge", "error": "no key"}')


def lose_the_score(path: Path, source: Path) -> None:
    (path / "stages/score/done.json").unlink()


def delete(path: Path, source: Path) -> None:
    shutil.rmtree(path)


@pytest.mark.parametrize(
    ("change", "finished"),
    [
        (finish, False),
        (train_on, False),
        (write_half, False),
        (fail, False),
        (score_again, True),
        (train_on, True),
        (lose_the_score, True),
        (delete, True),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_what_happens_to_a_run_is_seen(
    experiment: Add,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path, Path], None],
    finished: bool,
) -> None:
    """With the cache the table is the one that is made without it."""
    monkeypatch.setattr(cache, "SETTLED_SECONDS", -3600.0)
    other = experiment("other", 0, [0.25, 0.5], benchmarks={"public": (300, 82.0)})
    path = experiment("clean", 0, [0.5, 0.7], finished=finished, gold=0.5)
    before = runs_table(path.parent)
    assert_frame_equal(runs_table(path.parent), before)
    change(path, other)
    after = runs_table(path.parent)
    shutil.rmtree(path.parent / ".cache")
    assert_frame_equal(runs_table(path.parent), after)
    assert change is write_half or not after.equals(before)
