"""The one error family of the project.

A user can cause many failures; each is an `RlhfEvalError` that says what went wrong, where, and the
cure. The command line prints it without a traceback (`--debug` shows one) and exits with `exit_code`.
"""

from collections.abc import Iterable
from difflib import get_close_matches

from rlhf_eval.keys import without_secrets


class RlhfEvalError(Exception):
    """Something a user can cause and mend.

    Args:
        what: one sentence saying what is wrong and where (file, field, address).
        cure: one sentence saying what to do about it.
    """

    exit_code = 1

    def __init__(self, what: str, cure: str) -> None:
        # A server may repeat in its refusal what it was sent, and errors are kept in files.
        self.what = without_secrets(what)
        self.cure = without_secrets(cure)
        super().__init__(self.what, self.cure)

    def __str__(self) -> str:
        return f"{self.what}\n  {self.cure}"


class ConfigError(RlhfEvalError):
    """A configuration or command line that cannot work; nothing was loaded or run."""

    exit_code = 2


class DataError(RlhfEvalError):
    """A file or data set that is not what its place asks for."""


class StageError(RlhfEvalError):
    """A stage of a run that could not be finished; what it had computed is kept."""


class JudgeError(RlhfEvalError):
    """A judge that cannot be reached, refuses, or fails too often."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The cure for an unknown name: the likely one if there is one, and all that exist."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    guess = f"Did you mean '{close[0]}'? " if close else ""
    return f"{guess}Known: {', '.join(names)}."
