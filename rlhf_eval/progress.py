"""What a long command tells its user while it works: time left on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Progress(Protocol):
    """Told about work under way. Every call is cheap; an implementation decides what to show."""

    def stage(self, name: str, state: str) -> None:
        """A stage changed its state: "running", "done", "failed", "up to date" or another short word."""

    def advance(self, done: int, total: int, text: str = "") -> None:
        """`done` of `total` units of the stage under way are finished; `text` says a figure or two."""


class SilentProgress:
    """Shows nothing."""

    def stage(self, name: str, state: str) -> None:
        pass

    def advance(self, done: int, total: int, text: str = "") -> None:
        pass


class PlainProgress:
    """One line per change of stage, and one per `every` seconds within a stage."""

    def __init__(self, every: float = 15.0) -> None:
        self.every = every
        self.name = ""
        self.began = self.shown = time.monotonic()

    def stage(self, name: str, state: str) -> None:
        now = time.monotonic()
        took = f" ({now - self.began:.1f} s)" if state == "done" and name == self.name else ""
        print(f"{name}: {state}{took}", flush=True)
        if state == "running":
            self.name, self.began = name, now
        self.shown = now

    def advance(self, done: int, total: int, text: str = "") -> None:
        now = time.monotonic()
        if now - self.shown >= self.every:
            left = (now - self.began) / max(done, 1) * (total - done)
            print(f"{self.name}: {done}/{total}, {left:.0f} s left {text}".rstrip(), flush=True)
            self.shown = now


class RichProgress:
    """A bar with the time left, on a terminal."""

    def __init__(self, bars: Any) -> None:
        self.bars = bars
        self.name = ""
        self.task = None

    def stage(self, name: str, state: str) -> None:
        if self.task is not None and (state == "running" or name == self.name):
            self.bars.remove_task(self.task)
            self.task = None
        if state == "running":
            self.name = name
            self.task = self.bars.add_task(name, total=None, text="")
        else:
            self.bars.console.print(f"[bold]{name}[/bold]: {state}", highlight=False)

    def advance(self, done: int, total: int, text: str = "") -> None:
        if self.task is None:
            self.task = self.bars.add_task(self.name, total=total, text="")
        self.bars.update(self.task, completed=done, total=total, text=text)


@contextmanager
def progress_for_terminal(silent: bool = False) -> Iterator[Progress]:
    """Bars where standard error is a terminal, plain lines on standard output elsewhere; or nothing."""
    if silent:
        yield SilentProgress()
        return
    if not sys.stderr.isatty():
        yield PlainProgress()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        yield RichProgress(bars)
