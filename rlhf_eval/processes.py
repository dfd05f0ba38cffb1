"""Child processes for work side by side on this machine.

Children are forked from a server process that has the heavy libraries loaded (`preload.py`), so that each
starts in no time. None outlives the process that asked for it.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from pathlib import Path

PR_SET_PDEATHSIG = 1


def one_thread_each() -> None:
    """Keep the libraries of this process's children to one thread, unless the environment says otherwise.

    Two torch processes of two threads each on two cores are several times slower than of one thread each.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def fork_context() -> ForkServerContext:
    """The context to start children from; `preload.py` is imported once, before the first."""
    one_thread_each()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rlhf_eval.preload"])
    return context


def become_child(log: Path) -> None:
    """To be called first in a child: it dies with its parent, and what it prints is appended to `log`."""
    _die_with_parent()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the parent ends its children
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab", buffering=0) as stream:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)


def die_with(parent: int) -> Callable[[], None]:
    """To be called first in a child of the process `parent` (`preexec_fn`): it is killed when that one
    ends."""

    def tie() -> None:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the tie was made
            os.kill(os.getpid(), signal.SIGKILL)

    return tie


def _die_with_parent() -> None:
    """End this process when the process that asked for it ends, or the one that it was forked from."""
    die_with(os.getppid())()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
