"""Interrupting a job of submitit's: the run saves first, then the job goes back into the queue."""

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

REQUEUE = signal.SIGUSR2
"""What submitit has a scheduler send before it takes a job's machine away."""

SECONDS_TO_BE_KILLED = 600
"""How long a job that got SIGTERM and nothing else waits for SLURM to end it."""


@dataclass(frozen=True)
class Requeue:
    """Submitit's handler of the signal that announces a preemption or the time limit.

    Submitit requeues the job at once, from within whatever is being computed. Here the signal interrupts the
    run as SIGTERM does, and the job is requeued when everything is saved.
    """

    handler: Callable[[int, Any], Any]
    asked: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def take_over(cls) -> "Requeue | None":
        """From now on the signal interrupts the run; None where this process is no job of submitit's."""
        handler = signal.getsignal(REQUEUE)
        if not callable(handler):
            return None
        requeue = cls(handler)
        # A thread of a library that was loaded before may get the signal: then Python's handler is called.
        signal.signal(REQUEUE, requeue._interrupt)
        # SLURM sends the signal to every process of the job step. Blocked is what children inherit, and what
        # keeps those without a handler alive.
        signal.pthread_sigmask(signal.SIG_BLOCK, {REQUEUE})
        threading.Thread(target=requeue._wait, daemon=True).start()
        return requeue

    def carry_out(self) -> str:
        """End the process, requeued; what went wrong if that was not to be."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        what = "SIGTERM ended the job."
        # SIGTERM alone announces a preemption, the time limit or a cancellation: SLURM knows which, and kills
        # the job or requeues it. A job that ended by itself before that would not be requeued.
        on_slurm = os.environ.get("SUBMITIT_EXECUTOR") == "slurm"
        if self.asked.wait(SECONDS_TO_BE_KILLED if on_slurm else 0):
            print("interrupted: all is saved, and the job goes back into the queue", flush=True)
            try:
                self.handler(REQUEUE, None)
            except Exception as error:
                what = str(error)
        return f"{what}\n  The same command continues the run from here."

    def _wait(self) -> None:
        signal.sigwait({REQUEUE})
        self._interrupt()

    def _interrupt(self, *_: Any) -> None:
        self.asked.set()
        os.kill(os.getpid(), signal.SIGTERM)
