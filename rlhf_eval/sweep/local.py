"""Runs side by side on this machine, each in a process of its own.

A run that fails or is killed is recorded, and the others go on.
"""

import signal
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

from rlhf_eval.config.compose import run_path
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import RlhfEvalError
from rlhf_eval.processes import PRELOAD, become_child, fork_context
from rlhf_eval.progress import Progress
from rlhf_eval.runs.directory import RunDirectory

EXECUTE = "rlhf_eval.runs.stages:execute"
IS_FINISHED = "rlhf_eval.runs.stages:is_finished"


@dataclass(frozen=True)
class Outcome:
    """How one run ended. `error` is the cause if it failed; `seconds` is how long it took now."""

    config: RunConfig
    path: Path
    state: Literal["done", "up to date", "failed"]
    error: str | None = None
    seconds: float = 0.0


def run_all(
    configs: Sequence[RunConfig],
    jobs: int,
    progress: Progress,
    execute: str = EXECUTE,
    is_finished: str = IS_FINISHED,
    preload: Sequence[str] = PRELOAD,
) -> list[Outcome]:
    """Execute runs, `jobs` at a time, and return their outcomes in the order given.

    Finished runs are recognised before a process is started.

    Args:
        execute: `"module:function"` called with (config, path, progress) in the run's process.
        is_finished: `"module:function"` called with (config, path) in this process; loads nothing heavy.
        preload: modules that the runs' common parent process imports once.
    """
    check: Callable[[RunConfig, Path], bool] = _attribute(is_finished)
    outcomes: dict[int, Outcome] = {}
    waiting: list[int] = []
    for index, config in enumerate(configs):
        if check(config, run_path(config)):
            outcomes[index] = Outcome(config, run_path(config), "up to date")
        else:
            waiting.append(index)
    if waiting:
        _run_waiting(configs, waiting, jobs, progress, execute, preload, outcomes)
    return [outcomes[index] for index in range(len(configs))]


def _run_waiting(
    configs: Sequence[RunConfig],
    waiting: list[int],
    jobs: int,
    progress: Progress,
    execute: str,
    preload: Sequence[str],
    outcomes: dict[int, Outcome],
) -> None:
    context = fork_context(preload)
    workers: dict[int, _Worker] = {}
    progress.stage("runs", "running")
    try:
        while waiting or workers:
            while waiting and len(workers) < jobs:
                index = waiting.pop(0)
                workers[index] = _Worker.start(context, configs[index], execute)
            wait([end for worker in workers.values() for end in (worker.process.sentinel, *worker.open_ends)])
            for index, worker in list(workers.items()):
                worker.listen()
                if worker.process.exitcode is not None:
                    outcomes[index] = worker.outcome()
                    del workers[index]
                    _tell(progress, outcomes[index])
            busy = ", ".join(f"{worker.label} {worker.doing}".rstrip() for worker in workers.values())
            progress.advance(len(outcomes), len(configs), busy)
    finally:
        for worker in workers.values():
            worker.process.kill()
            worker.process.join()
    failed = sum(outcome.state == "failed" for outcome in outcomes.values())
    progress.stage("runs", f"{failed} failed" if failed else "done")


def _tell(progress: Progress, outcome: Outcome) -> None:
    cause = f": {outcome.error.splitlines()[0]}" if outcome.error else ""
    progress.stage(_label(outcome.config), f"{outcome.state} in {outcome.seconds:.0f} s{cause}")


def _label(config: RunConfig) -> str:
    return f"{config.reward_model.name} seed {config.seed}"


@dataclass
class _Worker:
    """A run under way, seen from the process that started it."""

    config: RunConfig
    process: Any
    messages: Connection
    began: float = field(default_factory=time.monotonic)
    doing: str = ""
    error: str | None = None
    ended: bool = False

    @classmethod
    def start(cls, context: Any, config: RunConfig, execute: str) -> "_Worker":
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(
            target=_work, args=(config, run_path(config), execute, theirs), daemon=False
        )
        process.start()
        theirs.close()
        return cls(config, process, ours)

    @property
    def label(self) -> str:
        return _label(self.config)

    @property
    def open_ends(self) -> list[Connection]:
        return [] if self.ended else [self.messages]

    def listen(self) -> None:
        """Take in all that the run has said."""
        try:
            while not self.ended and self.messages.poll():
                word, text = self.messages.recv()
                if word == "doing":
                    self.doing = text
                else:
                    self.error = text
        except (EOFError, OSError):
            self.ended = True

    def outcome(self) -> Outcome:
        """How the run ended, recorded in its status if it failed."""
        path, seconds = run_path(self.config), time.monotonic() - self.began
        self.listen()
        error = self.error or _cause_of_death(self.process.exitcode)
        self.messages.close()
        if error is None:
            return Outcome(self.config, path, "done", None, seconds)
        with suppress(RlhfEvalError):  # another process may be working on it: then the status is not ours
            directory = RunDirectory.open(path, self.config)
            with directory.locked():
                directory.fail(error)
        return Outcome(self.config, path, "failed", error, seconds)


def _cause_of_death(exitcode: int) -> str | None:
    if exitcode < 0:
        return f"The run's process was killed by {signal.Signals(-exitcode).name}."
    return f"The run's process ended with exit code {exitcode}." if exitcode else None


class _Messenger:
    """The Progress of a run's process: tells the process that started it, a few times a second."""

    def __init__(self, messages: Connection) -> None:
        self.messages = messages
        self.name = ""
        self.said = 0.0

    def stage(self, name: str, state: str) -> None:
        self.name = name
        self._say(f"{name} {state}")

    def advance(self, done: int, total: int, text: str = "") -> None:
        if time.monotonic() - self.said > 0.3:
            self._say(f"{self.name} {done}/{total}")

    def _say(self, text: str) -> None:
        self.said = time.monotonic()
        self.messages.send(("doing", text))


def _work(config: RunConfig, path: Path, execute: str, messages: Connection) -> None:
    """The life of a run's process."""
    become_child(path / "logs" / "output.log")
    try:
        _attribute(execute)(config, path, _Messenger(messages))
    except RlhfEvalError as error:
        traceback.print_exc()
        messages.send(("failed", str(error)))
    except Exception as error:
        traceback.print_exc()
        messages.send(
            ("failed", f"{type(error).__name__}: {error}\n  The traceback is in {path}/logs/output.log.")
        )


def _attribute(target: str) -> Any:
    module, name = target.split(":")
    return getattr(import_module(module), name)
