"""Runs, or jobs of a sweep, side by side on this machine, each in a process of its own.

One that fails or is killed is recorded and holds back what follows it; the others go on.
"""

import signal
import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

from rlhf_eval.config.compose import run_path
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import RlhfEvalError
from rlhf_eval.processes import become_child, fork_context
from rlhf_eval.progress import Progress
from rlhf_eval.runs.directory import RunDirectory

EXECUTE = "rlhf_eval.runs.stages:execute"
IS_FINISHED = "rlhf_eval.runs.stages:is_finished"


@dataclass(frozen=True)
class LocalTask:
    """What one process is to do.

    Attributes:
        stages: of the run; None is all.
        follows: number of the task that must have succeeded before.
        after: numbers of tasks that must have ended before, however they ended.
    """

    config: RunConfig
    path: Path
    stages: tuple[str, ...] | None = None
    follows: int | None = None
    after: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        return " ".join((self.config.reward_model.name, f"seed {self.config.seed}", *(self.stages or ())))


@dataclass(frozen=True)
class Outcome:
    """How one task ended. `error` is the cause if it failed; `seconds` is how long it took now."""

    task: LocalTask
    state: Literal["done", "up to date", "failed", "held back"]
    error: str | None = None
    seconds: float = 0.0

    @property
    def path(self) -> Path:
        return self.task.path


def run_all(
    configs: Sequence[RunConfig],
    jobs: int,
    progress: Progress,
    execute: str = EXECUTE,
    is_finished: str = IS_FINISHED,
) -> list[Outcome]:
    """Execute whole runs, `jobs` at a time, and return their outcomes in the order given.

    Finished runs are recognised before a process is started.

    Args:
        execute: `"module:function"` called with (config, path, progress, stages) in the run's process.
        is_finished: `"module:function"` called with (config, path) in this process; loads nothing heavy.
    """
    check: Callable[[RunConfig, Path], bool] = _attribute(is_finished)
    tasks = [LocalTask(config, run_path(config)) for config in configs]
    finished = {index for index, task in enumerate(tasks) if check(task.config, task.path)}
    return run_tasks(tasks, jobs, progress, execute, finished)


def run_tasks(
    tasks: Sequence[LocalTask],
    jobs: int,
    progress: Progress,
    execute: str = EXECUTE,
    finished: Collection[int] = (),
) -> list[Outcome]:
    """Execute tasks, `jobs` at a time, each when what it waits for has ended.

    Args:
        finished: numbers of tasks that have nothing left to do.

    Returns:
        Their outcomes in the order given.
    """
    outcomes = {index: Outcome(tasks[index], "up to date") for index in finished}
    waiting = [index for index in range(len(tasks)) if index not in outcomes]
    if waiting:
        _run_waiting(tasks, waiting, jobs, progress, execute, outcomes)
    return [outcomes[index] for index in range(len(tasks))]


def _run_waiting(
    tasks: Sequence[LocalTask],
    waiting: list[int],
    jobs: int,
    progress: Progress,
    execute: str,
    outcomes: dict[int, Outcome],
) -> None:
    context = fork_context()
    workers: dict[int, _Worker] = {}
    progress.stage("runs", "running")
    try:
        while waiting or workers:
            _hold_back(tasks, waiting, outcomes)
            ready = [index for index in waiting if _is_ready(tasks[index], outcomes)]
            for index in ready[: max(0, jobs - len(workers))]:
                waiting.remove(index)
                workers[index] = _Worker.start(context, tasks[index], execute)
            if not workers:
                continue
            wait([end for worker in workers.values() for end in (worker.process.sentinel, *worker.open_ends)])
            for index, worker in list(workers.items()):
                worker.listen()
                if worker.process.exitcode is not None:
                    outcomes[index] = worker.outcome()
                    del workers[index]
                    _tell(progress, outcomes[index])
            busy = ", ".join(f"{worker.label} {worker.doing}".rstrip() for worker in workers.values())
            progress.advance(len(outcomes), len(tasks), busy)
    finally:
        for worker in workers.values():
            worker.process.kill()
            worker.process.join()
    failed = sum(outcome.state == "failed" for outcome in outcomes.values())
    progress.stage("runs", f"{failed} failed" if failed else "done")


def _is_ready(task: LocalTask, outcomes: Mapping[int, Outcome]) -> bool:
    return all(
        index in outcomes for index in (*task.after, *([] if task.follows is None else [task.follows]))
    )


def _hold_back(tasks: Sequence[LocalTask], waiting: list[int], outcomes: dict[int, Outcome]) -> None:
    """Give up tasks that follow one which did not succeed; a task stands after the one it follows."""
    for index in list(waiting):
        follows = tasks[index].follows
        if follows in outcomes and outcomes[follows].state in ("failed", "held back"):
            waiting.remove(index)
            outcomes[index] = Outcome(tasks[index], "held back", outcomes[follows].error)


def _tell(progress: Progress, outcome: Outcome) -> None:
    cause = f": {outcome.error.splitlines()[0]}" if outcome.error else ""
    progress.stage(outcome.task.label, f"{outcome.state} in {outcome.seconds:.0f} s{cause}")


@dataclass
class _Worker:
    """A task under way, seen from the process that started it."""

    task: LocalTask
    process: Any
    messages: Connection
    began: float = field(default_factory=time.monotonic)
    doing: str = ""
    error: str | None = None
    ended: bool = False

    @classmethod
    def start(cls, context: Any, task: LocalTask, execute: str) -> "_Worker":
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(task, execute, theirs), daemon=False)
        process.start()
        theirs.close()
        return cls(task, process, ours)

    @property
    def label(self) -> str:
        return self.task.label

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
        seconds = time.monotonic() - self.began
        self.listen()
        error = self.error or _cause_of_death(self.process.exitcode)
        self.messages.close()
        if error is None:
            return Outcome(self.task, "done", None, seconds)
        with suppress(RlhfEvalError):  # another process may be working on it: then the status is not ours
            directory = RunDirectory.open(self.task.path, self.task.config)
            with directory.locked():
                directory.fail(error)
        return Outcome(self.task, "failed", error, seconds)


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


def _work(task: LocalTask, execute: str, messages: Connection) -> None:
    """The life of a task's process."""
    become_child(task.path / "logs" / "output.log")
    try:
        _attribute(execute)(task.config, task.path, _Messenger(messages), task.stages)
    except RlhfEvalError as error:
        traceback.print_exc()
        messages.send(("failed", str(error)))
    except Exception as error:
        traceback.print_exc()
        messages.send(
            ("failed", f"{type(error).__name__}: {error}\n  The traceback is in {task.path}/logs/output.log.")
        )


def _attribute(target: str) -> Any:
    module, name = target.split(":")
    return getattr(import_module(module), name)
