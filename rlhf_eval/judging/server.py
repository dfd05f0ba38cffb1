"""A judge that a run starts and stops itself."""

import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, Queue
from typing import IO

from rlhf_eval.config.schema import JudgeConfig
from rlhf_eval.errors import JudgeError
from rlhf_eval.judging.client import OPENAI

START_SECONDS = 900.0
"""A server that loads a large model takes minutes."""
STOP_SECONDS = 5.0


@contextmanager
def serving(judge: JudgeConfig) -> Iterator[str]:
    """The judge's address, with its server running for the length of the block if `judge.serve` names one.

    An explicit `judge.base_url` wins: then nothing is started.

    Raises:
        JudgeError: the server could not be started, ended early, or gave no address within 15 minutes.
    """
    if judge.base_url is not None or not judge.serve:
        yield judge.base_url or OPENAI
        return
    command = [sys.executable if judge.serve[0] == "python" else judge.serve[0], *judge.serve[1:]]
    with tempfile.TemporaryFile() as log:
        try:
            server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        except OSError as error:
            raise JudgeError(
                f"The judge's command could not be started: {' '.join(command)}: {error}.",
                "Correct judge.serve.",
            ) from None
        try:
            yield _address(server, log, command)
        finally:
            _stop(server)


def _address(server: subprocess.Popen[bytes], log: IO[bytes], command: list[str]) -> str:
    lines: Queue[str] = Queue()
    threading.Thread(target=_pass_first_line, args=(server, lines), daemon=True).start()
    try:
        address = lines.get(timeout=START_SECONDS)
    except Empty:
        address = f"nothing within {START_SECONDS:.0f} seconds"
    if not address.startswith(("http://", "https://")):
        _stop(server)
        log.seek(0)
        said = log.read().decode("utf-8", "replace").strip()[-2000:]
        raise JudgeError(
            f"The judge's command gave no address: {' '.join(command)} printed '{address}', exit code "
            f"{server.returncode}. Its standard error: {said or 'empty'}",
            "Correct judge.serve: the command prints http://…/v1 as its first line.",
        )
    return address


def _pass_first_line(server: subprocess.Popen[bytes], lines: Queue[str]) -> None:
    """Hand on the first line, then keep the pipe empty so that the server never blocks on it."""
    assert server.stdout is not None
    lines.put(server.stdout.readline().decode("utf-8", "replace").strip())
    for _ in server.stdout:
        pass


def _stop(server: subprocess.Popen[bytes]) -> None:
    """End a server: by closing its input, then by request, then by force."""
    assert server.stdin is not None
    server.stdin.close()
    for end in (server.terminate, server.kill, lambda: None):
        try:
            server.wait(STOP_SECONDS)
            return
        except subprocess.TimeoutExpired:
            end()
