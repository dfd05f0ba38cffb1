"""A job's work on one frozen run: what it refuses, when it gives up, and a judge that it finds or loses."""

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rlhf_eval.config.compose import compose, freeze, load, run_path
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import ConfigError, JudgeError, StageError
from rlhf_eval.files import write_text
from rlhf_eval.interruption import Interrupted
from rlhf_eval.judging.server import serving
from rlhf_eval.progress import SilentProgress
from rlhf_eval.runs.directory import RunBusyError, RunDirectory
from rlhf_eval.runs.stages import execute, open_stages
from rlhf_eval.sweep import task
from rlhf_eval.sweep.judge_server import FAILED
from rlhf_eval.sweep.task import execute_frozen, frozen
from tests.sweep.conftest import Slurm


@pytest.fixture(scope="module")
def generated(small_lab: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose answers only wait to be judged."""
    output = tmp_path_factory.mktemp("generated")
    config = compose([*small_lab, "reward_model=untrained", f"output={output}"])
    execute(config, run_path(config), SilentProgress(), ("benchmark", "train", "generate"))
    return run_path(config)


@pytest.fixture
def run(generated: Path, tmp_path: Path) -> Path:
    return shutil.copytree(generated, tmp_path / "lab" / generated.name)


@pytest.fixture(autouse=True)
def _impatient(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside SLURM, and what is waited for is looked for often."""
    monkeypatch.setattr(task, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(task, "PATIENCE_SECONDS", 0.1)


def judge(run: Path, address: Path, attempts: int | None = None) -> None:
    """Judge the run's answers as a job does; the judge is asked once."""
    addresses = {"judge.base_url": address}
    execute_frozen(run, ("judge",), ("judge.max_retries=0",), addresses, attempts, SilentProgress())


def test_a_run_is_what_its_directory_says(run: Path) -> None:
    assert frozen(run) == load(run / "config.yaml")
    own = frozen(run, ["judge.base_url=http://n7:8000/v1", "algorithm.rollout.server_url=http://n8:20007"])
    assert own.judge.base_url == "http://n7:8000/v1"
    assert own.algorithm.kind == "grpo"
    assert own.algorithm.rollout.server_url == "http://n8:20007"
    assert frozen(run.rename(run.with_name("a-name-of-my-own"))).seed == 0


@pytest.mark.parametrize("override", ["seed=1", "judge.model=another", "algorithm.learning_rate=1.0"])
def test_no_override_may_change_results(run: Path, override: str) -> None:
    with pytest.raises(ConfigError, match=f"{override} would change what comes out of {run}"):
        frozen(run, ["judge.base_url=http://n7/v1", override])


def test_a_directory_that_is_named_by_another_configuration(run: Path) -> None:
    config = replace(load(run / "config.yaml"), seed=7)
    write_text(run / "config.yaml", freeze(config))
    with pytest.raises(
        ConfigError, match="is not the configuration that the directory is named by"
    ) as caught:
        frozen(run)
    assert run_path(config).name[-8:] in caught.value.what


@pytest.mark.parametrize(("restarts", "gives_up"), [(None, False), ("2", False), ("3", True), ("9", True)])
def test_attempts_are_counted_by_slurm_and_limited(
    run: Path, restarts: str | None, gives_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if restarts:
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    before = RunDirectory(run).status()
    if not gives_up:
        execute_frozen(run, ("train",), (), {}, 3, SilentProgress())
        assert RunDirectory(run).status()["attempt"] == before["attempt"] + 1
        return
    with pytest.raises(StageError, match=f"{restarts} attempts of SLURM's job were interrupted"):
        execute_frozen(run, ("train",), (), {}, 3, SilentProgress())
    status = RunDirectory(run).status()
    assert (status["state"], status["attempt"]) == ("failed", before["attempt"])
    assert "cluster.max_attempts is 3" in status["error"]
    execute_frozen(run, ("train",), (), {}, None, SilentProgress())  # by hand there is no limit
    assert RunDirectory(run).status()["state"] == "pending"


def test_the_judge_s_address_is_waited_for(run: Path, tmp_path: Path, small_lab: list[str]) -> None:
    file, moments = tmp_path / "judge.address", list[float]()

    def announce(address: str) -> None:
        time.sleep(0.3)
        file.touch()  # as a network file system may show it: there, and still empty
        time.sleep(0.1)
        moments.append(time.monotonic())
        write_text(file, f"{address}\n")

    with serving(load(run / "config.yaml").judge) as address:
        server = threading.Thread(target=announce, args=(address,))
        server.start()
        judge(run, file)
        ended = time.monotonic()
        server.join()
    assert ended > moments[0]
    assert open_stages(load(run / "config.yaml"), run) == ["score"]


def test_a_judge_that_could_not_be_served_fails_the_run(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "sweeps" / "0001" / "judge_server-1.address"
    write_text(file, f"{FAILED} no such weights\n  Correct judge.serve.\n")
    with pytest.raises(JudgeError, match="could not be served: no such weights") as caught:
        judge(run, file)
    assert str(file.parent / "logs") in caught.value.cure


@contextmanager
def answering(status: int, address: Path, moved_to: str = "") -> Iterator[None]:
    """A judge whose every answer is this HTTP status; its address stands in a file, and may change then."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if moved_to:
                write_text(address, moved_to)
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    write_text(address, f"http://127.0.0.1:{server.server_port}/v1\n")
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def test_a_judge_that_has_vanished_is_no_failure(run: Path, tmp_path: Path) -> None:
    """Its server may be started again elsewhere: the job is to be given again."""
    file = tmp_path / "judge.address"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    write_text(file, f"http://127.0.0.1:{port}/v1\n")
    with pytest.raises(Interrupted, match="The judge's server is gone"):
        judge(run, file)


def test_a_judge_that_moved_meanwhile_is_no_failure(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "judge.address"
    with (
        answering(401, file, moved_to="http://n9:8000/v1\n"),
        pytest.raises(Interrupted, match="The judge's server is gone"),
    ):
        judge(run, file)


def test_a_judge_that_refuses_is_a_failure(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "judge.address"
    with answering(401, file), pytest.raises(JudgeError, match="401"):
        judge(run, file)
    status = RunDirectory(run).status()
    assert (status["state"], status["stage"]) == ("failed", "judge")


@pytest.mark.parametrize("in_slurm", [False, True])
def test_a_run_that_another_process_holds(run: Path, in_slurm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a cluster that is a node which SLURM gave up and which lives on: the job is to be given again."""
    monkeypatch.setattr(task, "LOCK_PATIENCE_SECONDS", 0.1)
    if in_slurm:
        monkeypatch.setenv("SLURM_JOB_ID", "7")
    kind = Interrupted if in_slurm else RunBusyError
    with RunDirectory(run).locked(), pytest.raises(kind, match="is being worked on by process"):
        execute_frozen(run, ("train",), (), {}, None, SilentProgress())


def test_a_configuration_that_was_edited_or_is_gone(run: Path) -> None:
    config: RunConfig = load(run / "config.yaml")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace(f"experiment: {config.experiment}", "experiment: mine"))
    with pytest.raises(ConfigError, match="edited after it was frozen"):
        frozen(run)
    (run / "config.yaml").unlink()
    with pytest.raises(ConfigError, match="does not exist"):
        frozen(run)
