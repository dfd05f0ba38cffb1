"""A process beside this one, by an interpreter of its own, that never outlives it.

Its standard input is its life line: the scripts that run in it end themselves, and whatever they started,
when that closes, so even a `kill -9` of this process leaves nothing behind.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from rlhf_eval.errors import ConfigError, StageError
from rlhf_eval.generation.vllm_worker import GRACE, NO_VLLM

TELLING = re.compile(r"(\w+\.)*\w*(Error|Exception)\b")
"""How the last line of a traceback begins."""


class WorkerProcess:
    """Talks to a process in lines: JSON to it, text from it."""

    def __init__(self, process: subprocess.Popen[str], interpreter: str, log: Path) -> None:
        self._process = process
        self._interpreter = interpreter
        self._log = log

    def say(self, value: Any) -> None:
        """Send one line of JSON.

        Raises:
            ConfigError, StageError: the process has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(value) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._ended()

    def hear(self) -> str:
        """Wait for the next line; without its end.

        Raises:
            ConfigError, StageError: the process ended without a further line.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith("\n"):
            self._ended()
        return line[:-1]

    def _ended(self) -> NoReturn:
        code = self._process.wait()
        if code == NO_VLLM:
            raise ConfigError(
                f"The interpreter {self._interpreter} has no vLLM.",
                "pip install vllm==0.31.0 there, or name one that has it in generation.python (on a machine "
                "without GPUs `make setup-vllm` makes .venv-vllm/bin/python).",
            )
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines() or ["nothing"]
        telling = [number for number, line in enumerate(lines) if TELLING.match(line)] or [len(lines) - 1]
        # Some errors say in their first line only that there is one.
        said = " ".join(" ".join(lines[telling[-1] : telling[-1] + 3]).split())
        raise StageError(
            f"vLLM ended with exit code {code}, saying: {said[:500]} (the rest is in {self._log}).",
            "Mend the cause and give the same command again: answers given before are kept.",
        )


@contextmanager
def started(
    interpreter: str | None, script: str, arguments: Sequence[str], log: Path
) -> Iterator[WorkerProcess]:
    """A script of this folder, running for the length of the block.

    Args:
        interpreter: null is the one that runs this process.
        log: file that takes its standard error; one from before is replaced.

    Raises:
        ConfigError: the interpreter does not exist.
    """
    interpreter = interpreter or sys.executable
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as stream:
        try:
            process = subprocess.Popen(
                [interpreter, str(Path(__file__).with_name(script)), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                encoding="utf-8",
                env=os.environ | {"VLLM_NO_USAGE_STATS": "1"},
                start_new_session=True,
            )
        except OSError as error:
            raise ConfigError(
                f"generation.python: '{interpreter}' cannot be started: {error.strerror}.",
                "Name the interpreter of the environment that holds vLLM.",
            ) from None
    try:
        yield WorkerProcess(process, interpreter, log)
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(2 * GRACE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
