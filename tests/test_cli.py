"""The command line as a user meets it: exit codes, errors with their cure, and JSON contracts."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_eval import files
from rlhf_eval.cli import main
from rlhf_eval.config.compose import compose, run_path
from rlhf_eval.runs.directory import RunDirectory

COMMANDS = ("demo", "run", "rank", "plot", "report", "status", "ls", "validate", "checkpoints", "reward")
COMMANDS += ("benchmark", "private", "audit", "score", "correlate", "frontier", "table", "power", "judge")


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """Two finished reward models, the untrained policy, one failed run and one that was interrupted."""
    write_run(tmp_path, "lab_clean", 0, 0.7, accuracy=82.0)
    write_run(tmp_path, "lab_noisy", 0, 0.6, accuracy=75.0)
    write_run(tmp_path, "random", 0, 0.5, accuracy=50.0)
    write_run(tmp_path, "untrained", 0, 0.5, accuracy=None)
    failed = open_run(tmp_path, "lab_contaminated", 0)
    failed.update_status(stage="judge", attempt=2)
    failed.fail("The judge at http://127.0.0.1:9/v1 cannot be reached.\n  Start it.")
    open_run(tmp_path, "lab_contaminated", 1).update_status(state="running", stage="train", step=3, steps=40)
    return tmp_path / "lab"


def open_run(output: Path, reward_model: str, seed: int) -> RunDirectory:
    config = compose(["experiment=lab", f"reward_model={reward_model}", f"seed={seed}"])
    config = replace(config, output=str(output))
    return RunDirectory.open(run_path(config), config)


def write_run(output: Path, reward_model: str, seed: int, value: float, accuracy: float | None) -> None:
    directory = open_run(output, reward_model, seed)
    benchmark, score = directory.stage("benchmark"), directory.stage("score")
    benchmark.begin("a")
    result = {"n": 300, "accuracy": accuracy, "low": 0, "high": 100, "subsets": {"all": accuracy}}
    files.write_json(benchmark.path / "results.json", {"lab_public": result} if accuracy else {})
    benchmark.finish([benchmark.path / "results.json"])
    score.begin("a")
    rows = [
        {"prompt_id": f"p{index}", "value": value, "length_controlled": value, "characters": 9, "gold": None}
        for index in range(8)
    ]
    files.write_jsonl(
        score.path / "per_prompt.jsonl",
        ({"evaluation": name} | row for name in ("alpaca_eval", "arena_hard") for row in rows),
    )
    common = {"n": 8, "failed": 0, "baseline": "lab_policy", "standard_error": 1.0, "mean_characters": 9.0}
    alpaca = {"win_rate": 100 * value, "length_controlled_win_rate": 100 * value}
    alpaca |= {"length_controlled_standard_error": 1.0, "length_control": "none"}
    files.write_json(
        score.path / "scores.json",
        {
            "judge": {"name": "lab_judge", "model": "lab-judge-1"},
            "alpaca_eval": common | alpaca,
            "arena_hard": common | {"score": 100 * value},
        },
    )
    score.finish([score.path / "scores.json", score.path / "per_prompt.jsonl"])
    directory.update_status(state="done", stage="score", attempt=1)


def printed_json(capsys: pytest.CaptureFixture[str], *arguments: str):
    assert main(arguments) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_examples_that_parse(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    examples = capsys.readouterr().out.split("examples:\n")[1].strip().splitlines()
    assert examples
    assert all(line.strip().startswith(f"rlhf-eval {command}") for line in examples)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnak", "runs/lab"], r"no command 'rnak'[\s\S]*mean 'rank'"),
        (["rank"], "EXPERIMENT_FOLDER"),
        ([], "COMMAND"),
        (["rank", "x", "--jsno"], r"no option --jsno[\s\S]*mean '--json'"),
        (["demo", "--seeds", "0"], "--seeds"),
        (["run", "experiment=lab", "reward_model=lab_claen"], r"lab_claen[\s\S]*mean 'lab_clean'"),
        (["run", "experiment=lab", "reward_model=random", "seed=x"], "seed: 'x'"),
        (["run", "experiment=lab", "reward_model=random", "reward_model.kind=x"], r"reward_model\.kind"),
        (["run", "experiment=lab", "reward_model=random", "prompts.train=nix.json"], r"prompts\.train"),
        (["validate", "experiment=lab", "reward_model=random", "--experiment", "a/b"], "'a/b'"),
        (["reward"], "ACTION"),
        (["reward", "score", "reward_model=random"], "--input"),
        (
            ["reward", "score", "reward_model=random", "--input", "a", "--output", "b", "--intput"],
            r"`rlhf-eval reward score` has no option --intput[\s\S]*mean '--input'",
        ),
        (["ls", "--configs", "jugde"], r"'jugde'[\s\S]*mean 'judge'"),
    ],
)
def test_usage_and_configuration_errors_exit_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.match(r"error: .*\n  .", shown.err)
    assert re.search(message, shown.err), shown.err
    assert "Traceback" not in shown.err


@pytest.mark.parametrize("command", ["rank", "plot", "report", "status", "ls", "checkpoints"])
def test_an_absent_folder_exits_1(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, str(tmp_path / "nowhere")]) == 1
    assert "nowhere" in capsys.readouterr().err


def test_debug_shows_the_traceback() -> None:
    command = [sys.executable, "-m", "rlhf_eval", "status", "nowhere", "--debug"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "no experiment folder nowhere" in done.stderr


def test_overrides_may_stand_around_options(capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed_json(
        capsys,
        "validate",
        "experiment=lab",
        "--json",
        "reward_model=random",
        "--experiment",
        "mine",
        "seed=5",
    )
    assert shown["run_directory"] == f"runs/mine/{shown['run']}"
    assert shown["run"].startswith("random--lab--grpo_lab--s5--")
    assert shown["run"].endswith(shown["hash8"])
    assert shown["config"]["seed"] == 5
    assert {"field": "policy.model", "value": "lab:policy", "state": "built on demand"} in shown["inputs"]


def test_rank_json_is_the_contract(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = printed_json(capsys, "rank", str(experiment), "--json")
    assert [row["reward_model"] for row in rows] == ["lab_clean", "lab_noisy", "random"]
    assert list(rows[0]) == (
        "reward_model control n_seeds score low high rank rank_low rank_high "
        "benchmark benchmark_low benchmark_high benchmark_n gold probability_best tier "
        "difference difference_low difference_high better_than_untrained "
        "control_difference control_difference_low control_difference_high "
        "training_steps no_gradient_steps warning".split()
    )
    assert rows[0]["score"] == pytest.approx(70)
    assert [row["control"] for row in rows] == [False, False, True]


def test_rank_prints_a_table(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", str(experiment), "--metric", "arena_hard.score"]) == 0
    shown = capsys.readouterr().out
    assert shown.index("lab_clean") < shown.index("lab_noisy")
    assert "untrained policy" in shown
    assert main(["rank", str(experiment), "--metric", "arena_hard.scoer"]) == 2
    assert "Did you mean 'arena_hard.score'" in capsys.readouterr().err


def test_plot_and_report_say_what_they_wrote(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", str(experiment), "--output", str(experiment / "drawn")]) == 0
    names = {Path(line).name for line in capsys.readouterr().out.splitlines()}
    assert {"correlation.png", "correlation.svg"} <= names
    assert all((experiment / "drawn" / name).is_file() for name in names)
    assert main(["report", str(experiment)]) == 0
    assert Path(capsys.readouterr().out.strip()) == experiment / "report.html"
    assert "lab_clean" in (experiment / "report.html").read_text()


def test_status_tells_failed_from_interrupted(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = printed_json(capsys, "status", str(experiment), "--json")
    assert list(rows[0]) == (
        "run reward_model seed state stage step steps attempt error updated step_times "
        "stage_attempt seconds_left jobs waits_for training_steps no_gradient_steps warning".split()
    )
    states = {(row["reward_model"], row["seed"]): row for row in rows}
    assert states["lab_clean", 0]["state"] == "done"
    assert states["lab_contaminated", 0]["state"] == "failed"
    assert states["lab_contaminated", 0]["error"] == "The judge at http://127.0.0.1:9/v1 cannot be reached."
    interrupted = states["lab_contaminated", 1]
    assert (interrupted["state"], interrupted["step"], interrupted["steps"]) == ("interrupted", 3, 40)
    assert main(["status", str(experiment)]) == 0
    assert "3/40" in capsys.readouterr().out


def test_a_run_being_worked_on_is_running(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = open_run(experiment.parent, "lab_contaminated", 1)
    with directory.locked():
        rows = printed_json(capsys, "status", str(experiment), "--json")
    [row] = [row for row in rows if row["run"] == directory.path.name]
    assert row["state"] == "running"


def test_a_damaged_configuration_does_not_hide_the_others(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = open_run(experiment.parent, "random", 0)
    broken.config_file.write_text("seed: [")
    rows = printed_json(capsys, "status", str(experiment), "--json")
    assert len(rows) == 6
    [row] = [row for row in rows if row["run"] == broken.path.name]
    assert row["state"] == "damaged"
    assert "not YAML" in row["error"]


def test_ls_counts_runs_by_state(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [row] = printed_json(capsys, "ls", str(experiment.parent), "--json")
    assert (row["experiment"], row["runs"]) == ("lab", 6)
    assert (row["done"], row["failed"], row["interrupted"], row["pending"]) == (4, 1, 1, 0)
    assert main(["ls", str(experiment.parent)]) == 0


def test_ls_lists_configuration_choices(capsys: pytest.CaptureFixture[str]) -> None:
    rows = printed_json(capsys, "ls", "--configs", "--json")
    assert {"group": "experiment", "name": "lab"}.items() <= next(
        row for row in rows if row["group"] == "experiment"
    ).items()
    assert all(row["description"].endswith(".") for row in rows)
    chosen = printed_json(capsys, "ls", "--configs", "judge", "--json")
    assert {row["group"] for row in chosen} == {"judge"}


def test_ctrl_c_exits_130_with_one_line(tmp_path: Path) -> None:
    program = (
        "import signal, sys, time; from rlhf_eval import cli; from rlhf_eval.commands import runs\n"
        # Where the tests run in the background of a shell, SIGINT is ignored and that is inherited.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def wait(options): print('waiting', flush=True); time.sleep(60)\n"
        "runs.ls = wait\n"
        "sys.exit(cli.main(['ls']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 130
    assert len(error.splitlines()) == 1


def test_a_closed_pipe_is_no_error(experiment: Path) -> None:
    command = f"{sys.executable} -m rlhf_eval ls --configs | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.stderr == ""
