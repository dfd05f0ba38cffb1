"""Planning, freezing and submitting a sweep, and executing the same jobs on this machine."""

import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.cli import main
from rlhf_eval.config.compose import compose_cluster, load, run_path
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import ConfigError
from rlhf_eval.files import read_jsonl
from rlhf_eval.runs.directory import RunDirectory
from rlhf_eval.sweep.forecast import forecast
from rlhf_eval.sweep.slurm import SlurmError
from rlhf_eval.sweep.submission import ALL, Runs, existing, new, plan, submit
from tests.sweep.conftest import Slurm

FAILING = "def rule(prompt, completion):\n    raise ValueError('a planted failure')\n"
WORKING = "def rule(prompt, completion):\n    return len(completion)\n"


@pytest.fixture(scope="module")
def told(small_lab: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A sweep of two reward models on this machine, given three times; before the second time the one that
    failed is mended. What each call said, and how often each run was executed."""
    folder = tmp_path_factory.mktemp("local")
    for name, text in (("failing", FAILING), ("working", WORKING)):
        (folder / f"{name}.py").write_text(text)
    functions = ",".join(f"{folder}/{name}.py:rule" for name in ("failing", "working"))
    words = ["sweep", *small_lab, "reward_model=rule", f"reward_model.function={functions}"]
    experiment = folder / "runs" / "lab"
    told: dict[str, Any] = {"experiment": experiment}

    def call(*words: str) -> tuple[int, dict[str, Any]]:
        with redirect_stdout(StringIO()) as said:
            code = main([*words, "--local", "2", "--json"])
        return code, json.loads(said.getvalue())

    told["first"] = call(*words, f"output={folder / 'runs'}")
    told["after the first"] = {
        path.name: RunDirectory(path).status()
        | {"stages": sorted(x.name for x in (path / "stages").iterdir())}
        for path in existing(experiment)
    }
    (folder / "failing.py").write_text(WORKING)
    told["second"] = call("sweep", "--resume", str(experiment))
    told["attempts"] = {path.name: RunDirectory(path).status()["attempt"] for path in existing(experiment)}
    told["third"] = call(*words, f"output={folder / 'runs'}")
    return told


def names(told: dict[str, Any]) -> tuple[str, str]:
    """Of the run whose reward model fails at first, and of the other."""
    functions = {
        load(path / "config.yaml").reward_model.function: path.name for path in existing(told["experiment"])
    }
    failing, working = (
        next(run for text, run in functions.items() if word in str(text)) for word in ("failing", "working")
    )
    return failing, working


def test_a_run_that_fails_here_holds_back_its_followers_alone(told: dict[str, Any]) -> None:
    code, said = told["first"]
    failing, working = names(told)
    assert code == 1
    assert sorted(said["executed"]) == sorted((failing, working))
    assert said["failed"].keys() == {failing}
    assert "a planted failure" in said["failed"][failing]
    assert told["after the first"][working]["state"] == "done"
    assert told["after the first"][working]["stages"] == sorted(ALL)
    assert told["after the first"][failing]["state"] == "failed"
    assert "a planted failure" in told["after the first"][failing]["error"]
    assert "generate" not in told["after the first"][failing]["stages"]


def test_only_what_is_missing_is_done_the_next_time(told: dict[str, Any]) -> None:
    failing, working = names(told)
    assert told["second"] == (0, {"executed": [failing], "finished": [working], "busy": [], "failed": {}})
    assert told["attempts"][working] == told["after the first"][working]["attempt"]
    code, said = told["third"]
    assert (code, said["executed"], sorted(said["finished"])) == (0, [], sorted((failing, working)))
    attempts = {path.name: RunDirectory(path).status()["attempt"] for path in existing(told["experiment"])}
    assert attempts == told["attempts"]


def test_a_plan_looks_at_every_run(told: dict[str, Any], tmp_path: Path) -> None:
    experiment = shutil.copytree(told["experiment"], tmp_path / "lab")
    first, second = existing(experiment)
    runs = dict(existing(experiment))
    absent = replace(runs[first], seed=5)
    runs[experiment / run_path(absent).name] = absent

    def planned(
        runs: Runs = runs, active: tuple[str, ...] = ()
    ) -> tuple[dict[str, tuple[str, ...]], set[str], set[str]]:
        found = plan(runs, active)
        points = {point.path.name: point.open for point in found.points}
        return points, {path.name for path in found.finished}, {path.name for path in found.busy}

    new_run = {run_path(absent).name: ALL}
    assert planned() == (new_run, {first.name, second.name}, set())
    # What SLURM has a task for, and what a process holds.
    assert planned(active=(first.name, run_path(absent).name)) == (
        {},
        {second.name},
        {first.name, run_path(absent).name},
    )
    with RunDirectory(second).locked():
        assert planned() == (new_run, {first.name}, {second.name})
    shutil.rmtree(first / "stages" / "judge")
    assert planned()[0] == {first.name: ("judge", "score")} | new_run
    # Killed between its last stage and saying so.
    with RunDirectory(second).locked():
        RunDirectory(second).update_status(state="running", stage="score")
    assert planned()[0][second.name] == ("score",)
    gone = replace(absent, prompts=replace(absent.prompts, train="gone.jsonl"))
    with pytest.raises(ConfigError, match=r"prompts\.train: 'gone\.jsonl'"):
        planned({experiment / "gone": gone})


def test_only_open_judging_is_forecast(told: dict[str, Any], tmp_path: Path) -> None:
    experiment = shutil.copytree(told["experiment"], tmp_path / "lab")
    first, _ = existing(experiment)
    shutil.rmtree(first / "stages" / "benchmark")
    said = forecast(existing(experiment), compose_cluster([]))
    assert ([point.open for point in said.plan.points], said.judging.calls) == ([("benchmark",)], 0)
    shutil.rmtree(first / "stages" / "judge")
    assert forecast(existing(experiment), compose_cluster([])).judging.calls > 0


@pytest.fixture
def runs(tmp_path: Path, lab_run: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Ten runs that nobody has begun."""
    monkeypatch.chdir(tmp_path)
    return new([replace(lab_run("reward_model=random"), seed=seed) for seed in range(10)])


def number_jobs(slurm: Slurm, refused: str = "nothing") -> None:
    """An sbatch that gives jobs the numbers 101, 102 … and refuses one script; and the rest of SLURM."""
    slurm.answer("scontrol", "MaxArraySize = 1001\n")
    slurm.answer("squeue")
    slurm.answer("scancel")
    slurm.answer("sbatch")
    program = (slurm.folder / "sbatch").read_text().partition("printf")[0]
    program += f'case "$*" in *{refused}*) echo "sbatch: error: invalid partition" >&2; exit 1;; esac\n'
    counter = slurm.folder / "counter"
    counter.write_text("100")
    program += f"read n < {counter}; n=$((n + 1)); echo $n > {counter}; echo $n\n"
    (slurm.folder / "sbatch").write_text(program)


def test_what_is_submitted(runs: Runs, slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    number_jobs(slurm)
    url = "judge.base_url=https://me:secret@judge.example/v1"
    monkeypatch.setattr("sys.argv", ["/usr/bin/rlhf-eval", "sweep", "seed=range(0,10)", url])
    planned, folder = submit(runs, compose_cluster(["cluster.throttle=7"]))
    assert folder
    assert folder == Path("runs/lab/sweeps/0001")
    assert len(planned.points) == 10
    first = "?".join(f"after:103_{number}" for number in range(8))
    assert slurm.calls("sbatch") == [
        f"--parsable {folder}/shared-1.sbatch",
        f"--parsable --dependency=afterany:101 {folder}/train-1.sbatch",
        f"--parsable --dependency=aftercorr:102 {folder}/generate-1.sbatch",
        f"--parsable --dependency=aftercorr:103 {folder}/judge-1.sbatch",
        f"--parsable --dependency={first} {folder}/judge_server-1.sbatch",
    ]
    rows = read_jsonl(folder / "jobs.jsonl")
    kinds = ["shared", "train", "generate", "judge", "judge_server"]
    assert [(row["kind"], row["job_id"], len(row["runs"])) for row in rows] == list(
        zip(kinds, range(101, 106), [1, 10, 10, 10, 0], strict=True)
    )
    assert rows[1]["runs"] == [path.name for path in runs]
    assert [load(path / "config.yaml") for path in runs] == list(runs.values())
    assert {RunDirectory(path).status()["state"] for path in runs} == {"pending"}
    command = (folder / "command.txt").read_text().splitlines()[0]
    assert command == "rlhf-eval sweep 'seed=range(0,10)' judge.base_url=https://judge.example/v1"
    assert "throttle: 7" in (folder / "cluster.yaml").read_text()


def test_what_is_in_the_queue_is_left_alone(runs: Runs, slurm: Slurm) -> None:
    number_jobs(slurm)
    cluster = compose_cluster([])
    submit(runs, cluster)
    slurm.queue(*((102, number, "PENDING") for number in range(9)), (102, 9, "FAILED"))
    failed = list(runs)[9]
    RunDirectory(failed).fail("A planted failure.")
    planned, folder = submit(runs, cluster)
    assert folder == Path("runs/lab/sweeps/0002")
    assert [point.path for point in planned.points] == [failed]
    assert (set(planned.busy), planned.finished) == ({*list(runs)[:9]}, ())
    status = RunDirectory(failed).status()
    assert (status["state"], status["stage"], status["error"]) == ("pending", "benchmark", None)
    slurm.queue(*((102, number, "PENDING") for number in range(9)), (107, 0, "RUNNING"))
    submitted = len(slurm.calls("sbatch"))
    planned, folder = submit(runs, cluster)
    assert (planned.points, folder, len(planned.busy)) == ((), None, 10)
    assert len(slurm.calls("sbatch")) == submitted


def test_what_was_submitted_before_a_refusal_is_taken_back(runs: Runs, slurm: Slurm) -> None:
    number_jobs(slurm, refused="generate-1")
    with pytest.raises(SlurmError, match=r"sbatch refused runs/lab/sweeps/0001/generate-1\.sbatch: invalid"):
        submit(runs, compose_cluster([]))
    assert slurm.calls("scancel") == ["101 102"]


def test_without_slurm_nothing_is_written(runs: Runs, slurm: Slurm) -> None:
    with pytest.raises(ConfigError, match="sbatch is not to be found") as caught:
        submit(runs, compose_cluster([]))
    assert "--local N" in caught.value.cure
    assert not Path("runs").exists()


def test_a_sweep_belongs_to_one_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "experiment=lab", "reward_model=random", "output=a,b", "--local", "1"]) == 2
    assert "A sweep belongs to one experiment, not to a/lab, b/lab." in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--resume", "runs/lab", "seed=1"], 2, "frozen in runs/lab, not seed=1"),
        (["--resume", "nowhere"], 1, "no experiment folder nowhere"),
        (["--resume", "."], 2, "holds no runs"),
        (["--resume", "runs/lab", "cluster=nix"], 2, "nix"),
        (["--resume", "runs/lab", "--local", "0"], 2, "'0' is no whole number from 1 on"),
    ],
)
def test_what_cannot_be_resumed(
    runs: Runs, slurm: Slurm, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    number_jobs(slurm)
    submit(runs, compose_cluster([]))
    submitted = slurm.calls("sbatch")
    assert main(["sweep", *words]) == code
    assert message in capsys.readouterr().err
    assert slurm.calls("sbatch") == submitted


def test_a_folder_of_frozen_runs_is_resumed_on_another_cluster(
    runs: Runs, slurm: Slurm, capsys: pytest.CaptureFixture[str]
) -> None:
    number_jobs(slurm)
    submit(runs, compose_cluster([]))
    words = ["sweep", "--resume", "runs/lab", "cluster=lab", "cluster.throttle=3", "--json"]
    assert main(words) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said) == ["submitted", "finished", "busy", "folder", "jobs"]
    assert (sorted(said["submitted"]), said["folder"]) == (
        sorted(path.name for path in runs),
        "runs/lab/sweeps/0002",
    )
    assert [job["name"] for job in said["jobs"]] == ["shared-1", "train-1", "generate-1", "judge-1"]
    assert "--array=0-9%3" in Path("runs/lab/sweeps/0002/train-1.sbatch").read_text()


def test_a_configuration_edited_after_freezing_is_not_resumed(
    runs: Runs, slurm: Slurm, capsys: pytest.CaptureFixture[str]
) -> None:
    number_jobs(slurm)
    submit(runs, compose_cluster([]))
    file = list(runs)[3] / "config.yaml"
    file.write_text(file.read_text().replace("learning_rate: 0.0005", "learning_rate: 0.1"))
    assert main(["sweep", "--resume", "runs/lab"]) == 2
    assert f"{file} was edited after it was frozen" in capsys.readouterr().err


def test_cancelling_takes_what_is_active_and_the_servers(
    runs: Runs, slurm: Slurm, capsys: pytest.CaptureFixture[str]
) -> None:
    number_jobs(slurm)
    submit(runs, compose_cluster([]))
    first, second, *_ = (path.name for path in runs)
    slurm.queue((102, 0, "RUNNING"), (103, 0, "PENDING"), (102, 1, "COMPLETED"), (103, 1, "PENDING"))
    assert main(["cancel", "runs/lab", first]) == 0
    assert slurm.calls("scancel") == ["102_0 103_0"]
    assert main(["cancel", "runs/lab"]) == 0
    assert set(slurm.calls("scancel")[1].split()) == {"102_0", "103_0", "103_1", "105"}
    assert "cancelled 3 tasks" in capsys.readouterr().out
    assert main(["cancel", "runs/lab", second, "nix"]) == 1
    assert "Nothing was submitted to SLURM for nix" in capsys.readouterr().err
    assert len(slurm.calls("scancel")) == 2
