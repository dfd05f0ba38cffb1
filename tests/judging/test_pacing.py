"""The number of calls under way: all that is permitted, halved by trouble, silent when told to be."""

import asyncio
import time
from statistics import mean

import pytest

from rlhf_eval.judging.pacing import Pace, pause


def test_a_healthy_endpoint_gets_all_that_is_permitted() -> None:
    async def under_way() -> list[int]:
        pace, seen = Pace(16), list[int]()

        async def worker() -> None:
            while len(seen) < 320:
                async with pace:
                    seen.append(pace.under_way)
                    await asyncio.sleep(0.001)
                    pace.good()

        await asyncio.gather(*(worker() for _ in range(16)))
        return seen

    seen = asyncio.run(under_way())
    assert max(seen) == 16
    assert mean(seen) > 14


def test_one_bad_round_halves_once_and_never_below_one() -> None:
    async def check() -> None:
        pace = Pace(16)
        began = time.monotonic()
        for _ in range(10):  # ten calls of one round fail together
            pace.trouble(began, None)
        assert pace.limit == 8
        for _ in range(20):
            await asyncio.sleep(0.001)
            pace.trouble(time.monotonic(), None)
        assert pace.limit == 1
        for _ in range(16):
            pace.good()
        assert 4 < pace.limit < 7  # one more for each round
        assert int(pace.limit) <= pace.most

    asyncio.run(check())


def test_retry_after_holds_everybody_back() -> None:
    async def check() -> float:
        pace = Pace(4)
        pace.trouble(time.monotonic(), 0.3)
        start = time.monotonic()

        async def enter() -> None:
            async with pace:
                pass

        await asyncio.gather(*(enter() for _ in range(4)))
        return time.monotonic() - start

    assert asyncio.run(check()) == pytest.approx(0.3, abs=0.1)


def test_pauses_grow_to_eight_seconds() -> None:
    assert [pause(attempt) for attempt in range(6)] == [0.5, 1, 2, 4, 8, 8]
