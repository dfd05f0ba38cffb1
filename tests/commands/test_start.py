"""`init` makes a folder whose every command works, and TAB completes in a real bash, zsh and fish."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlhf_eval.cli import main

BIN = Path(sys.executable).parent


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rlhf_eval", *words], cwd=folder, capture_output=True, text=True
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in a place with a space, as `init` makes it."""
    place = tmp_path / "my work"
    place.mkdir()
    done = command(place, "init", "my-study")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "cd my-study and read README.md"
    return place / "my-study"


def readme_commands(folder: Path) -> list[list[str]]:
    lines = (folder / "README.md").read_text().splitlines()
    return [line.split()[1:] for line in lines if line.startswith("    rlhf-eval ")]


def test_the_commands_of_its_readme_work_as_typed(folder: Path, small_lab: list[str]) -> None:
    """Those of a cluster as far as a dry run, those of the lab on a small one."""
    commands = readme_commands(folder)
    assert len(commands) == 8
    for words in commands:
        if words[0] == "run":
            words += [word for word in small_lab if not word.startswith(("experiment=", "algorithm.steps="))]
        if words[0] in ("doctor", "report", "status") or (words[0] == "sweep" and "--dry-run" not in words):
            continue
        done = command(folder, *words)
        assert done.returncode == 0, (words, done.stderr)
    assert list((folder / "runs/lab").glob("my_rule--lab--*/stages/score/scores.json"))
    dry = folder / "runs/my-study/sweeps/dry-run"
    assert "--gres" in next(dry.glob("train-*.sbatch")).read_text()


def test_every_setting_has_a_comment(folder: Path) -> None:
    for file in (folder / "conf").rglob("*.yaml"):
        before = ""
        for line in file.read_text().splitlines():
            if line.strip() and not line.lstrip().startswith(("#", "- /", "- _self_")):
                assert before.lstrip().startswith("#"), f"{file.name}: {line}"
            before = line


def test_nothing_is_overwritten(folder: Path) -> None:
    (folder / "rewards.py").write_text("mine")
    done = command(folder.parent, "init", "my-study")
    assert done.returncode == 2
    assert "is there already" in done.stderr
    assert (folder / "rewards.py").read_text() == "mine"


def test_own_choices_join_the_shipped_ones(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = command(folder, "ls", "--configs", "reward_model").stdout
    assert "my_rule" in listed
    assert "skywork_v2_llama_8b" in listed
    assert (
        "Did you mean 'my_rule'?"
        in command(folder, "validate", "experiment=lab", "reward_model=my_rle").stderr
    )
    (folder / "conf/db").mkdir()
    (folder / "conf/db/sqlite.yaml").write_text("a: 1")
    assert "sqlite" not in command(folder, "ls", "--configs").stdout
    elsewhere = folder.parent
    assert command(elsewhere, "validate", "experiment=lab", "reward_model=my_rule").returncode == 2
    monkeypatch.setenv("RLHF_EVAL_CONF", str(folder / "conf"))
    assert "my_rule" in command(elsewhere, "ls", "--configs").stdout
    monkeypatch.setenv("RLHF_EVAL_CONF", "nowhere")
    assert "RLHF_EVAL_CONF=nowhere is no folder" in command(elsewhere, "ls", "--configs").stderr


def test_a_shipped_name_always_means_what_was_shipped(folder: Path) -> None:
    shutil.copy(folder / "conf/reward_model/my_rule.yaml", folder / "conf/reward_model/random.yaml")
    done = command(folder, "validate", "experiment=lab", "reward_model=my_rule")
    assert done.returncode == 2
    assert "random.yaml has the name of a shipped choice" in done.stderr


@pytest.mark.parametrize("name", ["a b", "lab", "my--study", "2026"])
def test_a_name_that_no_experiment_can_have_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(tmp_path / name)]) == 2
    assert "cannot be the name of an experiment" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def typed(shell: list[str], setup: str, line: str, expected: str, folder: Path) -> str:
    """What an interactive shell shows after a line that ends in TAB."""
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(folder), "TERM": "dumb", "PS1": "$ "}
    environment["RLHF_EVAL_CONF"] = str(folder / "conf")
    (folder / "my-experiments").mkdir()
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execvpe(shell[0], shell, environment)
    shown = ""

    def read_until(text: str) -> bool:
        nonlocal shown
        deadline = time.monotonic() + 20
        while text not in shown and time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.2)[0]:
                shown += os.read(terminal, 65536).decode(errors="replace")
        return text in shown

    try:
        os.write(terminal, f"{setup}; echo re''ady\n".encode())
        assert read_until("\nready"), shown
        shown = ""
        os.write(terminal, line.encode())
        assert read_until(expected), f"{line!r} shows {shown!r}"
    finally:
        os.close(terminal)
        os.waitpid(child, 0)
    return shown


LINES = [
    ("rlhf-eval repr\t", "reproduce "),
    ("rlhf-eval run --run\t", "--run-dir "),
    ("rlhf-eval run reward_model=skywork_v2_llama_8b_4\t", "skywork_v2_llama_8b_40m"),
    ("rlhf-eval run experiment=lab reward_model=my_r\t", "my_rule"),
    ("rlhf-eval sweep reward_model=lab_clean,lab_cont\t", "lab_clean,lab_contaminated"),
    ("rlhf-eval run experiment=lab algorithm.ste\t", "algorithm.steps="),
    ("rlhf-eval report my-exp\t", "my-experiments/"),
]


@pytest.mark.parametrize(("line", "expected"), LINES)
def test_bash_completes(folder: Path, line: str, expected: str) -> None:
    setup = 'eval "$(rlhf-eval completion bash)"; bind "set enable-bracketed-paste off"'
    typed(["bash", "--norc", "--noprofile", "-i"], setup, line, expected, folder)


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh; `apt-get install zsh` brings it")
@pytest.mark.parametrize(("line", "expected"), LINES[:3])
def test_zsh_completes(folder: Path, line: str, expected: str) -> None:
    setup = 'autoload -Uz compinit; compinit -u; eval "$(rlhf-eval completion zsh)"'
    typed(["zsh", "-f", "-i"], setup, line, expected, folder)


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish; `apt-get install fish` brings it")
@pytest.mark.parametrize(("line", "expected"), LINES)
def test_fish_completes(folder: Path, line: str, expected: str) -> None:
    (folder / "my-experiments").mkdir()
    asked = f"rlhf-eval completion fish | source; complete -C '{line.strip()}'"
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(folder)}
    environment["RLHF_EVAL_CONF"] = str(folder / "conf")
    command = ["fish", "-c", asked]
    shown = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True).stdout
    words = [text.partition("\t")[0].rpartition("=")[2] or text for text in shown.splitlines()]
    assert expected.strip() in words, shown
