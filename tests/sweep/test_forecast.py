"""What a sweep will take: time limits as SLURM reads them, GPU-hours, and the dry run."""

import json
from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_eval.cli import main
from rlhf_eval.config.compose import compose_cluster, run_path
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.sweep.forecast import forecast, hours
from tests.sweep.conftest import Slurm


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        # The acceptable formats of `man sbatch`, --time, in its order.
        ("90", 1.5),
        ("90:36", 1.51),
        ("1:30:36", 1.51),
        ("2-6", 54),
        ("2-6:30", 54.5),
        ("2-6:30:36", 54.51),
        ("0-00:30:00", 0.5),
        ("00:30:00", 0.5),
        # A time limit of zero requests that no limit be imposed.
        ("0", inf),
        ("UNLIMITED", inf),
        ("INFINITE", inf),
    ],
)
def test_time_limits_as_slurm_reads_them(limit: str, expected: float) -> None:
    assert hours(limit) == pytest.approx(expected)


@given(st.integers(0, 99), st.integers(0, 23), st.integers(0, 59), st.integers(1, 59))
def test_every_form_of_one_moment_is_the_same(days: int, hour: int, minutes: int, seconds: int) -> None:
    whole = 24 * days + hour
    expected = pytest.approx(whole + minutes / 60 + seconds / 3600)
    assert hours(f"{days}-{hour:02}:{minutes:02}:{seconds:02}") == expected
    assert hours(f"{whole}:{minutes:02}:{seconds:02}") == expected
    assert hours(f"{60 * whole + minutes}:{seconds:02}") == expected


@pytest.fixture
def unbuilt(tmp_path: Path, lab_run: Callable[..., RunConfig]) -> RunConfig:
    """A run whose lab is not built."""
    config = lab_run("reward_model=random", f"lab.cache={tmp_path / 'no-lab'}")
    return replace(config, output=str(tmp_path / "runs"))


def test_gpu_hours_are_those_of_all_tasks_at_their_limit(
    unbuilt: RunConfig, slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    configs = [replace(unbuilt, seed=seed) for seed in range(3)]
    words = ["cluster.jobs.train.time='2:00:00'", "cluster.jobs.train.nodes=2", "cluster.jobs.train.gpus=8"]
    cluster = compose_cluster([*words, "cluster.jobs.generate.time=null"])
    told = forecast({run_path(config): config for config in configs}, cluster)
    found = dict(zip((job.name for job in told.jobs), told.gpu_hours, strict=True))
    assert found == {
        "shared-1": 1 * 1 * 4,  # three seeds share it
        "train-1": 3 * 2 * 8 * 2,
        "generate-1": None,
        "judge-1": 0,
        "judge_server-1": 4 * 24,
    }
    assert told.in_words()[0] == "at most 196 GPU-hours, beside generate-1 without a time limit"


def test_a_dry_run_shows_all_and_does_nothing(
    unbuilt: RunConfig,
    slurm: Slurm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    lab = f"lab.cache={tmp_path / 'no-lab'}"
    words = ["sweep", "experiment=lab", lab, "reward_model=random,untrained", "seed=0,1", "output=out"]
    assert main([*words, "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told) == ["runs", "finished", "busy", "jobs", "judge_calls", "judge_calls_unknown", "money"]
    assert [(run["reward_model"], run["seed"]) for run in told["runs"]] == [
        ("random", 0),
        ("untrained", 0),
        ("random", 1),
        ("untrained", 1),
    ]
    assert {len(run["stages"]) for run in told["runs"]} == {5}
    assert (told["finished"], told["busy"]) == ([], [])
    fields = "name tasks stages follows after nodes gpus time gpu_hours script"
    assert all(list(job) == fields.split() for job in told["jobs"])
    assert [(job["name"], job["tasks"]) for job in told["jobs"]] == [
        ("shared-1", 1),
        ("train-1", 2),
        ("generate-1", 2),
        ("judge-1", 2),
        ("generate-2", 2),
        ("judge-2", 2),
        ("judge_server-1", 0),
    ]
    assert list(told["judge_calls_unknown"].values()) == [4]
    assert "not built yet" in next(iter(told["judge_calls_unknown"]))
    scripts = {Path(job["script"]) for job in told["jobs"]}
    assert all(script.parent == Path("out/lab/sweeps/dry-run") for script in scripts)
    assert all(script.exists() for script in scripts)
    written = {path.relative_to("out") for path in Path("out").rglob("*")}
    assert all(path.parts[:2] in (("lab",), ("lab", "sweeps")) for path in written)
    assert main([*words, "--dry-run"]) == 0
    assert "4 runs would be submitted, 0 were finished, 0 are being worked on" in capsys.readouterr().out
