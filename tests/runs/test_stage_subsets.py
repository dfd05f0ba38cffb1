"""A run's stages executed by several commands, as the jobs of a sweep do, and which of them are open."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf_eval.cli import main
from rlhf_eval.config.compose import compose, run_path
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.progress import SilentProgress
from rlhf_eval.runs.directory import RunDirectory
from rlhf_eval.runs.stages import STAGES, execute, open_stages

ALL = [name for name, _ in STAGES]


@pytest.fixture(scope="module")
def config(small_lab: list[str], tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return compose([*small_lab, "reward_model=random", f"output={tmp_path_factory.mktemp('runs')}"])


@pytest.fixture(scope="module")
def whole(config: RunConfig) -> Path:
    """A run that one call executed."""
    execute(config, run_path(config), SilentProgress())
    return run_path(config)


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """`run` listens for signals; the tests go on without."""
    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGUSR1)]
    yield
    for number, handler in before:
        signal.signal(number, handler)


def moments(path: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in path.rglob("*")}


def test_stages_one_by_one_give_what_one_call_gives(
    config: RunConfig, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lab" / whole.name
    directory = RunDirectory.open(path, config)

    def run(*stages: str) -> int:
        return main(["run", "--frozen", str(path), "--stages", ",".join(stages)])

    def stands() -> tuple[str, str | None, list[str]]:
        status = directory.status()
        return status["state"], status["stage"], open_stages(config, path)

    assert open_stages(config, path) == ALL
    assert run("train") == 0
    assert stands() == ("pending", "benchmark", ["benchmark", "generate", "judge", "score"])
    trained = moments(path / "stages")
    assert run("judge") == 1
    said = capsys.readouterr().err
    assert (
        f"judge of {path} needs generate, not done with today's inputs, and only judge was asked for" in said
    )
    assert "sweep --resume" in said
    assert directory.status()["state"] == "failed"
    assert run("generate", "score") == 1  # generates, and then misses the verdicts
    assert "score" in capsys.readouterr().err
    assert open_stages(config, path) == ["benchmark", "judge", "score"]
    assert run("benchmark", "train") == 0
    assert stands() == ("pending", "judge", ["judge", "score"])
    assert run("judge", "score") == 0
    assert "alpaca_eval: " in capsys.readouterr().out
    assert stands() == ("done", None, [])
    assert {name: directory.stage(name).output_hash for name in ALL} == {
        name: RunDirectory(whole).stage(name).output_hash for name in ALL
    }
    after = moments(path / "stages")
    assert {file: after[file] for file in trained if "/train/" in file} == {
        file: moment for file, moment in trained.items() if "/train/" in file
    }
    assert run("train") == 0  # nothing is open: it stays done
    assert stands() == ("done", None, [])


@pytest.mark.parametrize(
    ("spoilt", "open"),
    [
        ("benchmark/results.json", ["benchmark"]),
        ("train/policy/model.safetensors", ["train", "generate", "judge", "score"]),
        ("generate/done.json", ["generate", "judge", "score"]),
        ("judge/arena_hard.jsonl", ["judge", "score"]),
        ("score/scores.json", ["score"]),
    ],
)
def test_a_stage_is_open_with_all_that_take_something_from_it(
    config: RunConfig, whole: Path, tmp_path: Path, spoilt: str, open: list[str]
) -> None:
    path = shutil.copytree(whole, tmp_path / "run")
    assert open_stages(config, path) == []
    (path / "stages" / spoilt).unlink()
    before = moments(path)
    assert open_stages(config, path) == open
    assert moments(path) == before  # to look changes nothing


def test_open_is_what_changed_fields_and_files_reach(
    small_lab: list[str], config: RunConfig, whole: Path
) -> None:
    def words(*own: str) -> RunConfig:
        return compose([*small_lab, "reward_model=random", *own])

    assert open_stages(words("judge.model=another"), whole) == ["judge", "score"]
    assert (
        open_stages(words("judge.base_url=http://elsewhere/v1", "generation.tensor_parallel=2"), whole) == []
    )
    assert open_stages(words("seed=1"), whole) == ["train", "generate", "judge", "score"]
    assert open_stages(words("~benchmarks.lab_public"), whole) == ["benchmark"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--frozen", "nowhere", "--stages", "trian"], "'trian' is no stage (benchmark, train, generate"),
        (["--frozen", "nowhere", "--stages", "train"], "nowhere/config.yaml does not exist"),
        (["-m", "reward_model=random", "--stages", "train"], "-m takes overrides alone"),
        (["--frozen", "nowhere", "--address", "judge.base_url"], "'judge.base_url' is not FIELD=FILE"),
        (["--frozen", "nowhere", "--max-attempts", "0"], "'0' is no whole number from 1 on"),
    ],
)
def test_what_cannot_be_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *words]) == 2
    assert message in capsys.readouterr().err
