"""Continuous batching: one thread owns the model and serves whoever waits.

Items wait in one pool whichever client they came from. Each turn takes the one that has waited longest and
fills its batch with those of the nearest lengths, so that padding stays small and nobody is passed over.
"""

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from rlhf_eval.errors import RlhfEvalError


class QueueFull(RlhfEvalError):
    """More waits than may. `seconds` is about how long it will take until there is room."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The queue is full; there is room in about {seconds:.1f} s.", "Ask again then.")
        self.seconds = seconds


@dataclass
class Item:
    """One thing to be scored, and those who wait for it."""

    key: Hashable
    size: int
    waiting_since: float
    futures: list[Future] = field(default_factory=list)


@dataclass
class Counters:
    """What was done so far."""

    items: int = 0
    tokens: int = 0
    """Tokens that had to be computed."""
    padded_tokens: int = 0
    """Tokens that were computed, padding included."""
    batches: int = 0
    busy_seconds: float = 0.0
    invalid: int = 0


class Batcher:
    """Scores items in batches under a budget of tokens.

    Args:
        work: scores of a list of keys, in order; called from one thread only.
        batch_tokens: padded size of a batch.
        queue_tokens: how many tokens may wait.
    """

    def __init__(
        self, work: Callable[[Sequence[Any]], Sequence[Any]], batch_tokens: int, queue_tokens: int
    ) -> None:
        self.counters = Counters()
        self._work = work
        self._batch_tokens = batch_tokens
        self._queue_tokens = queue_tokens
        self._pool: dict[Hashable, Item] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="reward model", daemon=True)
        self._thread.start()

    @property
    def waiting_tokens(self) -> int:
        """Tokens that wait."""
        with self._changed:
            return sum(item.size for item in self._pool.values())

    def submit(self, keys: Sequence[Hashable], sizes: Sequence[int]) -> list[Future]:
        """Futures of the scores, in order. A cancelled future gives up its place.

        Raises:
            QueueFull: too much waits already; nothing of this was taken.
        """
        futures: list[Future] = [Future() for _ in keys]
        with self._changed:
            waiting = sum(item.size for item in self._pool.values())
            if waiting and waiting + sum(sizes) > self._queue_tokens:
                raise QueueFull(self._seconds_for(waiting))
            now = time.monotonic()
            for key, size, future in zip(keys, sizes, futures, strict=True):
                self._pool.setdefault(key, Item(key, size, now)).futures.append(future)
            self._changed.notify()
        return futures

    def close(self) -> None:
        """Finish what waits, then end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _serve(self) -> None:
        while batch := self._next_batch():
            began = time.monotonic()
            try:
                results = self._work([item.key for item in batch])
            except Exception as error:
                for item in batch:
                    for future in item.futures:
                        _settle(future, lambda f, e=error: f.set_exception(e))
                continue
            self._count(batch, results, time.monotonic() - began)
            for item, result in zip(batch, results, strict=True):
                for future in item.futures:
                    _settle(future, lambda f, r=result: f.set_result(r))

    def _next_batch(self) -> list[Item]:
        with self._changed:
            while True:
                self._pool = {
                    key: item
                    for key, item in self._pool.items()
                    if not all(future.cancelled() for future in item.futures)
                }
                if self._pool:
                    break
                if self._closing:
                    return []
                self._changed.wait()
            chosen = select(list(self._pool.values()), self._batch_tokens)
            for item in chosen:
                del self._pool[item.key]
            return chosen

    def _seconds_for(self, tokens: int) -> float:
        done = self.counters
        return max(0.1, tokens * done.busy_seconds / done.tokens) if done.tokens else 1.0

    def _count(self, batch: Sequence[Item], results: Sequence[Any], seconds: float) -> None:
        done = self.counters
        done.items += len(batch)
        done.tokens += sum(item.size for item in batch)
        done.padded_tokens += len(batch) * max(item.size for item in batch)
        done.batches += 1
        done.busy_seconds += seconds
        done.invalid += sum(result is None for result in results)


def select(items: Sequence[Item], batch_tokens: int) -> list[Item]:
    """The item that has waited longest and as many of the nearest lengths as fit with it."""
    oldest = min(items, key=lambda item: item.waiting_since)
    nearest = sorted(items, key=lambda item: (item is not oldest, abs(item.size - oldest.size)))
    chosen: list[Item] = []
    longest = 0
    for item in nearest:
        longest = max(longest, item.size)
        if chosen and longest * (len(chosen) + 1) > batch_tokens:
            break
        chosen.append(item)
    return chosen


def _settle(future: Future, settle: Callable[[Future], None]) -> None:
    if future.set_running_or_notify_cancel():
        settle(future)
