"""A run directory refuses what is not its own, and knows what is done, stale or damaged."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rlhf_eval.config.compose import compose, hash8, load
from rlhf_eval.errors import ConfigError, DataError, StageError
from rlhf_eval.runs import stage_folder
from rlhf_eval.runs.directory import RunDirectory, run_directories

LAB = ["experiment=lab", "reward_model=lab_clean"]


@pytest.fixture(scope="module")
def config():
    return compose(LAB)


def test_a_new_directory_holds_the_frozen_configuration(tmp_path: Path, config) -> None:
    directory = RunDirectory.open(tmp_path / "run", config)
    assert load(directory.config_file) == config
    assert directory.status()["state"] == "pending"
    RunDirectory.open(tmp_path / "run", dataclasses.replace(config, threads=2, output="elsewhere"))


def test_another_configuration_is_refused_with_what_differs(tmp_path: Path, config) -> None:
    RunDirectory.open(tmp_path, config)
    other = compose([*LAB, "algorithm.learning_rate=0.1", "seed=7"])
    with pytest.raises(ConfigError) as refusal:
        RunDirectory.open(tmp_path, other)
    text = str(refusal.value)
    assert hash8(config) in text
    assert hash8(other) in text
    assert "algorithm.learning_rate: 0.0005 there, 0.1 asked for" in text
    assert "seed: 0 there, 7 asked for" in text
    assert "steps" not in text


def hold_in_another_process(path: Path) -> subprocess.Popen:
    program = (
        "import sys, time; from pathlib import Path; from rlhf_eval.runs.directory import RunDirectory\n"
        "directory = RunDirectory(Path(sys.argv[1]))\n"
        "with directory.locked():\n"
        "    directory.begin_attempt(); print('held', flush=True); time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_killed_holder_lets_go(tmp_path: Path, config) -> None:
    directory = RunDirectory.open(tmp_path, config)
    holder = hold_in_another_process(tmp_path)
    try:
        assert directory.status()["state"] == "running"
        with pytest.raises(StageError, match=f"process {holder.pid} on"), directory.locked():
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert directory.status()["state"] == "interrupted"
    with directory.locked():
        assert directory.begin_attempt() == tmp_path / "logs" / "attempt_2"
        status = directory.status()
        assert (status["state"], status["attempt"], status["pid"]) == ("running", 2, os.getpid())


def test_status_refuses_fields_that_do_not_exist(tmp_path: Path, config) -> None:
    with pytest.raises(TypeError, match="stpe"):
        RunDirectory.open(tmp_path, config).update_status(stpe=3)


def finished_stage(run: Path, name: str = "train", inputs: str = "a") -> stage_folder.StageFolder:
    stage = RunDirectory(run).stage(name)
    assert stage.begin(inputs) == ""
    (stage.path / "policy").mkdir()
    (stage.path / "policy" / "weights").write_bytes(b"123")
    (stage.path / "scratch").write_text("unimportant")
    stage.finish([stage.path / "policy"])
    return stage


def test_a_finished_stage_is_done_for_its_inputs_only(tmp_path: Path) -> None:
    stage = finished_stage(tmp_path)
    (stage.path / "scratch").unlink()
    assert stage.is_done("a")
    assert not stage.is_done("b")


def test_unfinished_work_stays(tmp_path: Path) -> None:
    stage = RunDirectory(tmp_path).stage("judge")
    stage.begin("a")
    (stage.path / "verdicts").write_text("half")
    assert not stage.is_done("a")
    assert "continues" in stage.begin("a")
    assert (stage.path / "verdicts").read_text() == "half"


@pytest.mark.parametrize("finished", [True, False])
def test_work_with_other_inputs_is_kept_aside(tmp_path: Path, finished: bool) -> None:
    stage = finished_stage(tmp_path)
    if not finished:
        (stage.path / "done.json").unlink()
    assert "train.stale-1" in stage.begin("b")
    assert sorted(path.name for path in stage.path.iterdir()) == ["inputs.json"]
    assert (tmp_path / "stages" / "train.stale-1" / "policy" / "weights").read_bytes() == b"123"
    assert "train.stale-2" in stage.begin("c")


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda policy: (policy / "weights").write_bytes(b"124"), "policy/weights has changed"),
        (lambda policy: (policy / "weights").write_bytes(b"12"), "policy/weights has changed"),
        (lambda policy: (policy / "weights").unlink(), "policy/weights is missing"),
        (lambda policy: (policy.parent / "done.json").write_text("{"), "done.json is damaged"),
    ],
)
def test_a_damaged_file_is_named_and_the_stage_redone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage, message: str, large: bool
) -> None:
    if large:
        monkeypatch.setattr(stage_folder, "LARGE", 1)
    stage = finished_stage(tmp_path)
    damage(stage.path / "policy")
    assert not stage.is_done("a")
    assert message in stage.begin("a")
    assert not (stage.path / "policy").exists()


def test_a_touched_large_file_is_read_and_found_unchanged(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(stage_folder, "LARGE", 1)
    stage = finished_stage(tmp_path)
    (stage.path / "policy" / "weights").touch()
    assert stage.is_done("a")


def test_the_same_outputs_have_the_same_hash(tmp_path: Path) -> None:
    first, second = finished_stage(tmp_path / "1"), finished_stage(tmp_path / "2", inputs="b")
    assert first.output_hash == second.output_hash
    (second.path / "policy" / "weights").write_bytes(b"124")
    second.finish([second.path / "policy"])
    assert first.output_hash != second.output_hash


def test_runs_of_an_experiment(tmp_path: Path, config) -> None:
    for name in ("b", "a"):
        RunDirectory.open(tmp_path / name, config)
    (tmp_path / "shared").mkdir()
    assert [run.path.name for run in run_directories(tmp_path)] == ["a", "b"]
    with pytest.raises(DataError, match="nowhere"):
        run_directories(tmp_path / "nowhere")


def test_status_file_is_plain_json(tmp_path: Path, config) -> None:
    directory = RunDirectory.open(tmp_path, config)
    directory.fail("the judge went away")
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["state"], status["error"]) == ("failed", "the judge went away")


def update_while(directory: RunDirectory, deleting: threading.Thread) -> None:
    for step in range(10_000):
        directory.update_status(step=step)
        if step == 3:
            deleting.start()


def test_a_directory_deleted_at_any_moment_is_said_to_be_gone(tmp_path: Path, config) -> None:
    for number in range(200):
        directory = RunDirectory.open(tmp_path / str(number), config)
        deleting = threading.Thread(target=shutil.rmtree, args=(directory.path, True))
        with pytest.raises(StageError, match="was deleted or moved away"):
            update_while(directory, deleting)
        deleting.join()
        shutil.rmtree(directory.path, ignore_errors=True)
        with pytest.raises(StageError, match="was deleted or moved away"):
            directory.fail("what came of it")
