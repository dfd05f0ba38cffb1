"""Whoever types a page of `docs/adding/` word for word gets what it promises.

A block with a title is written to the file of that name, a bash block is run, in the order of the page; a
block that is only shown is marked `text`.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from rlhf_eval.files import read_json, read_jsonl

ROOT = Path(__file__).parents[2]
COPIED = ("rlhf_eval", "conf", "launch")
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
PORT = "18731"
SECONDS = 900

Typed = Callable[[str], Path]


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    title: str | None
    text: str


def blocks(page: str) -> list[Block]:
    """The page's blocks, with a free port in the place of its own: two checkouts may be typing it at once."""
    text = (ROOT / "docs/adding" / f"{page}.md").read_text(encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        text = text.replace(PORT, str(free.getsockname()[1]))
    found = [Block(*match.groups()) for match in BLOCK.finditer(text)]
    assert 2 * len(found) == len(re.findall("^```", text, re.MULTILINE)), "a fence that is no block"
    return found


def run(script: str, folder: Path, environment: dict[str, str]) -> str:
    """What a bash block prints; what it leaves running is ended."""
    shell = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = shell.communicate(timeout=SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 0, f"{script}\n{printed}"
    return printed


@pytest.fixture
def typed(tmp_path: Path, small_lab: list[str]) -> Typed:
    """A function: types a page into a copy of the checkout and returns its folder; the lab is shared."""
    checkout, commands = tmp_path / "checkout", tmp_path / "bin"
    for name in COPIED:
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", checkout)
    worlds = Path(next(word for word in small_lab if word.startswith("lab.cache=")).partition("=")[2])
    worlds.mkdir(exist_ok=True)
    (checkout / ".cache").mkdir()
    (checkout / ".cache/lab").symlink_to(worlds)
    commands.mkdir()
    (commands / "rlhf-eval").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rlhf_eval "$@"\n')
    (commands / "rlhf-eval").chmod(0o755)
    environment = os.environ | {
        "PATH": os.pathsep.join([str(commands), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(checkout),
    }

    def type_page(page: str) -> Path:
        printed = ""
        for block in blocks(page):
            if block.title is not None:
                place = checkout / block.title
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(block.text, encoding="utf-8")
            elif block.language == "bash":
                printed += run(block.text, checkout, environment)
            else:
                assert block.language == "text", f"a {block.language} block that is neither written nor run"
        (checkout / "printed.txt").write_text(printed, encoding="utf-8")
        return checkout

    return type_page


def runs(checkout: Path, experiment: str) -> dict[str, Path]:
    """The finished runs of an experiment by the first part of their name."""
    done = (checkout / "runs" / experiment).glob("*/stages/score/scores.json")
    return {file.parents[2].name.rpartition("--s0--")[0]: file.parents[2] for file in done}


def test_a_reward_model(typed: Typed) -> None:
    checkout = typed("reward_model")
    names = ("mine", "short_sentence", "distinct_words")
    assert runs(checkout, "small").keys() == {f"{name}--lab--grpo_lab" for name in names}
    scores = {row["id"]: row["score"] for row in read_jsonl(checkout / "scores.jsonl")}
    assert scores["short"] == pytest.approx(1 - 15 / 200)
    assert scores["short"] > scores["long"]


def test_an_algorithm(typed: Typed) -> None:
    checkout = typed("algorithm")
    found = runs(checkout, "small")
    assert found.keys() == {"lab_clean--lab--grpo_gentle", "lab_clean--lab--cispo_lab"}
    rows = read_jsonl(found["lab_clean--lab--cispo_lab"] / "metrics.jsonl")
    assert max(row["step"] for row in rows) == 6


def test_a_benchmark(typed: Typed) -> None:
    checkout = typed("benchmark")
    assert all("canary" in row for row in read_jsonl(checkout / "secret/pairs.jsonl"))
    assert (checkout / "secret/pairs.jsonl.salt").exists()
    assert runs(checkout, "small_mine").keys() == {"lab_clean--lab--grpo_lab"}
    # Of the naming prompts, the best answer is the longest for one of two.
    assert '"accuracy": 50.0' in (checkout / "printed.txt").read_text()


def test_a_judge(typed: Typed) -> None:
    checkout = typed("judge")
    scores = {
        experiment: read_json(next(iter(runs(checkout, experiment).values())) / "stages/score/scores.json")
        for experiment in ("judged", "judged_twice")
    }
    second = scores["judged_twice"]["second_judges"]["short"]
    # The same judge, started in two ways.
    assert second["alpaca_eval"]["win_rate"] == scores["judged"]["alpaca_eval"]["win_rate"]
    assert second["alpaca_eval"]["win_rate"] != scores["judged_twice"]["alpaca_eval"]["win_rate"]
    assert 0 < second["agreement"]["alpaca_eval"]["same"] < 100
