"""Sweeps without a cluster: configurations to submit, and programs that answer in SLURM's place."""

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest

from rlhf_eval.config.compose import compose
from rlhf_eval.config.schema import RunConfig


@dataclass(frozen=True)
class Slurm:
    """A folder of programs that stand for SLURM's: each says one thing and notes how it was called."""

    folder: Path

    def answer(self, program: str, text: str = "", exit_code: int = 0) -> None:
        """From now on the program prints this. Shell built-ins alone: it needs no PATH."""
        file = self.folder / program
        to = "" if exit_code == 0 else " >&2"
        calls = shlex.quote(str(self.folder / f"{program}.calls"))
        new = self.folder / f"{program}.new"
        new.write_text(
            f'#!/bin/sh\necho "$*" >> {calls}\nprintf %s {shlex.quote(text)}{to}\nexit {exit_code}\n'
        )
        new.chmod(0o755)
        new.replace(file)  # it may be called meanwhile

    def queue(self, *tasks: tuple[int, int | str, str], reason: str = "None", nodes: str = "n1") -> None:
        """What squeue knows: array, number of the task, state."""
        rows = [(job, number, state, reason, nodes, "1:00", 0) for job, number, state in tasks]
        self.answer("squeue", "".join("".join(f"{cell!s:120}|" for cell in row) + "\n" for row in rows))

    def calls(self, program: str) -> list[str]:
        """The arguments of every call so far."""
        file = self.folder / f"{program}.calls"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """A machine on which nothing of SLURM is installed, until `answer` says otherwise."""
    folder = tmp_path / "slurm-programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_"))]:
        monkeypatch.delenv(name)
    return Slurm(folder)


@pytest.fixture(scope="session")
def lab_run() -> Callable[..., RunConfig]:
    """A function: overrides → a run of the lab's experiment."""

    @lru_cache
    def configured(*words: str) -> RunConfig:
        return compose(["experiment=lab", *words])

    return configured
