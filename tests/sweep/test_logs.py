"""Which logs a run has, and following them while they grow."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf_eval.cli import main
from rlhf_eval.config.cluster_schema import Resources
from rlhf_eval.config.compose import freeze
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import DataError
from rlhf_eval.files import write_text
from rlhf_eval.runs.directory import RunDirectory
from rlhf_eval.sweep.graph import Job, Point
from rlhf_eval.sweep.logs import follow, log_files
from rlhf_eval.sweep.record import keep, new_folder


@pytest.fixture
def run(tmp_path: Path, lab_run: Callable[..., RunConfig]) -> Path:
    """A run whose directory says nothing yet."""
    path = tmp_path / "lab" / "r"
    write_text(path / "config.yaml", freeze(lab_run("reward_model=random")))
    return path


def submit(run: Path, config: RunConfig, *kinds: str) -> Path:
    """The folder of the logs of a sweep with a job of each kind."""
    folder = new_folder(run.parent)
    points = (Point(config, run.with_name("other"), ()), Point(config, run, ()))
    for number, kind in enumerate(kinds):
        keep(folder, Job(f"{kind}-1", "train", (), points, Resources()), 10 + number)
    (folder / "logs").mkdir()
    return folder / "logs"


def written(file: Path, text: str, moment: int) -> Path:
    """A log with a time of change."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    os.utime(file, (moment, moment))
    return file


def test_the_newest_job_s_and_the_newest_attempt_s_oldest_first(
    run: Path, lab_run: Callable[..., RunConfig]
) -> None:
    config = lab_run("reward_model=random")
    first, second = submit(run, config, "train"), submit(run, config, "train", "generate")
    written(first / "train-1-1.log", "an earlier sweep's\n", 100)
    written(second / "train-1-1.log", "an earlier job's\n", 200)
    job = written(second / "generate-1-1.log", "the newest job's\n", 300)
    written(second / "generate-1-0.log", "another run's\n", 900)
    for attempt in (1, 2, 9):
        written(run / "logs" / f"attempt_{attempt}" / "train.log", "an earlier attempt's\n", 100)
    newest = written(run / "logs" / "attempt_10" / "train.log", "the newest attempt's\n", 250)
    written(run / "logs" / "attempt_10" / "empty.log", "", 400)
    here = written(run / "logs" / "output.log", "of a process of --local\n", 50)
    assert log_files(run) == [here, newest, job]


def test_it_is_said_where_there_is_none(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no log yet"):
        log_files(run)
    with pytest.raises(DataError, match="is no run directory"):
        log_files(tmp_path)


def test_following_shows_all_that_is_added_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhf_eval.sweep.logs.POLL_SECONDS", 0.01)
    log, ended = written(run / "logs" / "attempt_1" / "train.log", "begun\n", 100), threading.Event()
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.extend(follow(run, ended.is_set)), daemon=True)
    thread.start()
    expected = "begun\n"
    for number in range(5):
        time.sleep(0.03)
        with log.open("a") as stream:
            stream.write(f"step {number} – é\n")
        expected += f"step {number} – é\n"
    other = written(run / "logs" / "attempt_1" / "judge.log", "judging\n", 10**10)
    ended.set()  # what came in the last moment is shown too
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert "".join(said) == f"==> {log} <==\n{expected}==> {other} <==\njudging\n"


def test_the_command_prints_and_ends_with_the_run(
    run: Path, lab_run: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    log = written(run / "logs" / "attempt_1" / "train.log", "begun\n", 100)
    assert main(["logs", str(run)]) == 0
    assert capsys.readouterr().out == f"==> {log} <==\nbegun\n"
    RunDirectory.open(run, lab_run("reward_model=random")).update_status(state="failed", error="x")
    assert main(["logs", str(run), "-f"]) == 0
    assert capsys.readouterr().out == f"==> {log} <==\nbegun\n"
