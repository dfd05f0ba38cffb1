"""How many calls to have under way: as many as the endpoint bears, found out while asking.

It begins with all that is permitted, is halved by each round that meets trouble, and grows by one with each
round of good answers (additive increase, multiplicative decrease; Chiu and Jain 1989).
"""

import asyncio
import time
from types import TracebackType

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0


class Pace:
    """Hands out places for calls.

    Args:
        most: the highest number under way.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(most)
        self.under_way = 0
        self.open_at = 0.0
        self.halved_at = 0.0
        self.changed = asyncio.Condition()

    async def __aenter__(self) -> float:
        """Wait for a place; the time at which it was given."""
        async with self.changed:
            while True:
                wait = self.open_at - time.monotonic()
                if wait > 0:
                    self.changed.release()
                    try:
                        await asyncio.sleep(wait)
                    finally:
                        await self.changed.acquire()
                elif self.under_way < int(self.limit):
                    self.under_way += 1
                    return time.monotonic()
                else:
                    await self.changed.wait()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with self.changed:
            self.under_way -= 1
            self.changed.notify_all()

    def good(self) -> None:
        """A call was answered."""
        self.limit = min(self.most, self.limit + 1 / self.limit)

    def trouble(self, began: float, retry_after: float | None) -> None:
        """A call met 429, 5xx or a time-out. Calls of one round that fail together halve the number once.

        Args:
            began: when the call got its place.
            retry_after: seconds that the endpoint asks to be left alone; None if it says nothing.
        """
        now = time.monotonic()
        if began >= self.halved_at:
            self.limit = max(1.0, self.limit / 2)
            self.halved_at = now
        if retry_after:
            self.open_at = max(self.open_at, now + retry_after)


def pause(attempt: int) -> float:
    """Seconds before the retry after `attempt` failures: half a second, doubled each time, at most eight."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt)
