"""Names and paths of users are no shell: from the command line into a job's script, and bash executes it."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_eval.cli import main

HOSTILE = 'it\'s "my" $(touch stolen) `touch stolen`; touch stolen & \\n #'
"""As a folder's name."""
LAB = ("experiment=lab", "reward_model=random", "seed=0", "cluster=lab")
STUB = """#!/bin/sh
printf '%s\\n' "$@" > "$NOTED"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that nobody should have named so."""
    folder = tmp_path / HOSTILE
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def dry_run(*words: str) -> int:
    return main(["sweep", *LAB, *words, "--dry-run"])


def quoted(text: str) -> str:
    """A value as Hydra takes it."""
    escaped = text.replace('"', '\\"')
    return f'"{escaped}"'


def test_a_script_executes_its_run_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    python = folder / "python $(touch stolen)"
    python.write_text(STUB)
    python.chmod(0o755)
    assert dry_run(f"output={quoted(HOSTILE)}", f"cluster.python={quoted(str(python))}") == 0
    scripts = folder / HOSTILE / "lab" / "sweeps" / "dry-run"
    tasks = sorted(scripts.glob("*.runs"))
    assert tasks
    for runs in tasks:
        (run,) = runs.read_text().splitlines()
        Path(run).mkdir(parents=True, exist_ok=True)
        (Path(run) / "config.yaml").touch()
        noted = tmp_path / "noted"
        environment = {"PATH": os.environ["PATH"], "NOTED": str(noted), "SLURM_JOB_ID": "1"}
        done = subprocess.run(
            ["bash", str(runs.with_suffix(".sbatch"))],
            env=environment | {"SLURM_ARRAY_JOB_ID": "1", "SLURM_ARRAY_TASK_ID": "0"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        said = noted.read_text().splitlines()
        assert said[said.index("--frozen") + 1] == run
    assert not list(tmp_path.rglob("stolen"))


def test_what_sbatch_reads_is_one_word_each(folder: Path) -> None:
    assert dry_run(f"output={quoted(HOSTILE)}") == 0
    for script in (folder / HOSTILE / "lab" / "sweeps" / "dry-run").glob("*.sbatch"):
        options = [line for line in script.read_text().splitlines() if line.startswith("#SBATCH ")]
        words = [shlex.split(line.removeprefix("#SBATCH ")) for line in options]
        assert all(len(word) == 1 for word in words)
        assert [f"--chdir={folder}"] in words


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\x1bb"])
def test_a_path_that_ends_a_line_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would end the comment, or the option of sbatch's, that it stands in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}touch stolen").mkdir()
    monkeypatch.chdir(tmp_path / f"{name}touch stolen")
    assert dry_run() == 2
    assert "has a control character" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.sbatch"))


@pytest.mark.parametrize("field", ["reward_model.name", "policy.name", "algorithm.name", "experiment"])
@pytest.mark.parametrize("name", ["../up", "$(touch stolen)", "a b", "-rf", "a\nb", "a--b"])
def test_a_name_that_is_no_folder_s_is_refused(
    field: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert dry_run(f"{field}={quoted(name)}") == 2
    assert f"{field}: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_judge_s_command_is_no_shell(tmp_path: Path) -> None:
    """Its words are passed on as they are."""
    from rlhf_eval.config.schema import JudgeConfig
    from rlhf_eval.judging.server import serving

    noted = tmp_path / "noted"
    program = f"import sys; open({str(noted)!r}, 'w').write(sys.argv[1]); print('http://127.0.0.1:1/v1')"
    judge = JudgeConfig("j", "m", serve=(sys.executable, "-c", program, f"$(touch {tmp_path}/stolen); *"))
    with serving(judge):
        pass
    assert noted.read_text() == f"$(touch {tmp_path}/stolen); *"
    assert not (tmp_path / "stolen").exists()
