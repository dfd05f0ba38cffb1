"""What `rlhf-eval doctor` finds, and how its looks at the machine are carried out side by side.

A *look* is a function that yields findings. One that breaks, or gives no answer, becomes a finding itself and
never hides the others. What a finding says can be pasted into a public bug report.
"""

import getpass
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Any, Literal

from rlhf_eval.errors import RlhfEvalError, StageError
from rlhf_eval.keys import without_secrets

State = Literal["pass", "warning", "failure", "skipped"]
DEADLINE_SECONDS = 150.0
"""For all looks together."""
PROBE_SECONDS = 120.0
"""For an interpreter that imports something heavy."""


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        check: what was looked at.
        seen: what was found, in words.
        cure: what to do about it, a command where there is one; empty where nothing is to be done.
    """

    check: str
    state: State
    seen: str
    cure: str = ""
    topic: str = ""

    def as_json(self) -> dict[str, str]:
        """As `rlhf-eval doctor --json` prints it."""
        return {"topic": self.topic} | {k: v for k, v in asdict(self).items() if k != "topic"}


def passed(check: str, seen: str) -> Finding:
    return Finding(check, "pass", seen)


def warning(check: str, seen: str, cure: str) -> Finding:
    return Finding(check, "warning", seen, cure)


def failure(check: str, seen: str, cure: str) -> Finding:
    return Finding(check, "failure", seen, cure)


def skipped(check: str, seen: str) -> Finding:
    return Finding(check, "skipped", seen)


@dataclass(frozen=True)
class Look:
    """A function that yields findings, the topic they belong to, and the name of the finding if it breaks."""

    topic: str
    check: str
    findings: Callable[[], Iterable[Finding]]


def examine(looks: Sequence[Look]) -> list[Finding]:
    """The findings of all looks, in the order of the looks, after `DEADLINE_SECONDS` at most."""
    found: list[list[Finding]] = [[] for _ in looks]
    # Daemons: one that hangs in the file system or in a look-up of a name must not keep the command.
    threads = [
        Thread(target=_carry_out, args=(look, into), daemon=True)
        for look, into in zip(looks, found, strict=True)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + DEADLINE_SECONDS
    findings = []
    for thread, look, into in zip(threads, looks, found, strict=True):
        thread.join(max(0.0, deadline - time.monotonic()))
        late = [_no_answer(look)] if thread.is_alive() else []
        findings += [
            replace(f, topic=look.topic, seen=shareable(f.seen), cure=shareable(f.cure))
            for f in [*into, *late]
        ]
    return findings


def probe(program: str, *arguments: str, python: str = sys.executable, **environment: str) -> Any:
    """What a short program prints as JSON in its last line. An interpreter of its own runs it: a broken
    library ends that one.

    Raises:
        StageError: it failed; the message is the last line of its error.
        OSError: there is no such interpreter.
    """
    done = subprocess.run(
        [python, "-c", program, *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=PROBE_SECONDS,
        env=os.environ | environment,
    )
    if done.returncode < 0:
        raise StageError(f"ended by {signal.Signals(-done.returncode).name}", "Install the package anew.")
    if done.returncode:
        raise StageError(last_line(done.stderr), "Install the package anew, or what it misses.")
    return json.loads(last_line(done.stdout))


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def shareable(text: str) -> str:
    """The text in one line of ASCII without secrets, the home folder and the user's name."""
    text = " ".join(without_secrets(text).split())
    text = re.sub(rf"{re.escape(str(Path.home()))}(?=[/\s:;,)'\"]|$)", "~", text)
    with suppress(OSError, KeyError):  # in some containers the user has no name
        text = re.sub(rf"(?<=/){re.escape(getpass.getuser())}(?=[/\s:;,)'\"]|$)", "$USER", text)
    return text.encode("ascii", "backslashreplace").decode("ascii")


def _carry_out(look: Look, into: list[Finding]) -> None:
    try:
        for finding in look.findings():
            into.append(finding)  # noqa: PERF402  # those before an error are kept
    except RlhfEvalError as error:
        into.append(failure(look.check, error.what, error.cure))
    except subprocess.TimeoutExpired as error:
        into.append(failure(look.check, f"no answer within {error.timeout:.0f} s", "Try it by itself."))
    except Exception as error:
        # A broken installation may raise anything, and to say so is what this command is for.
        into.append(failure(look.check, f"{type(error).__name__}: {error}", "Mend the cause that it names."))


def _no_answer(look: Look) -> Finding:
    return failure(
        look.check,
        f"no answer within {DEADLINE_SECONDS:.0f} s",
        "Something hangs: a file system, or the look-up of a name.",
    )
