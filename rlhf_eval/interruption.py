"""SIGTERM: what a scheduler sends before it takes a machine away. The run saves, ends, and can be
continued."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: not failed, to be given again."""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""SIGUSR1 too: srun ends at SIGTERM, and hands that one on."""
_waiting: list[bool] = []
"""One entry for each `deferred` block that is open: whether a signal has come since it began."""


class Interrupted(BaseException):
    """SIGTERM came, and everything computed is on disk: the same command continues."""


def listen() -> None:
    """From now on SIGTERM, and SIGUSR1, raise `Interrupted` in the main thread, or are kept until it suits
    (`deferred`)."""
    for number in SIGNALS:
        signal.signal(number, _on_signal)


def stop_listening() -> None:
    """From now on nothing interrupts a process that listened: how it ends is settled. Python takes its
    handlers away before it is gone, and a signal that came then would make a success a death."""
    for number in SIGNALS:
        if signal.getsignal(number) is _on_signal:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Inside the block SIGTERM interrupts nothing; the function given says whether it has come.

    Raises:
        Interrupted: it has come, and the block has ended without an error of its own.
    """
    _waiting.append(False)
    try:
        yield lambda: _waiting[-1]
    except BaseException:
        _waiting.pop()
        raise
    if _waiting.pop():
        raise Interrupted("interrupted by SIGTERM")


def _on_signal(*_: Any) -> None:
    if not _waiting:
        raise Interrupted("interrupted by SIGTERM")
    _waiting[-1] = True
