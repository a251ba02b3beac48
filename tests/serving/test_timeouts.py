import asyncio
import threading
import time
from typing import Any

import pytest
from traitroute.serving.timeouts import WAIT_S, SaturatedError, TimeBudget


def test_work_that_takes_too_long_is_left_and_others_still_run() -> None:
    budget = TimeBudget(workers=2)
    release = threading.Event()

    async def run() -> int:
        with pytest.raises(TimeoutError):
            await budget.run(release.wait, 0.02)
        return await budget.run(lambda: 7, 1)

    assert asyncio.run(run()) == 7
    release.set()


def test_time_is_counted_from_when_a_thread_takes_the_work_up() -> None:
    budget = TimeBudget(workers=2)

    async def run() -> list[None]:
        # Eight rounds of 20 ms: the last waits for three times the budget, and then takes no longer than it may.
        return await asyncio.gather(*(budget.run(lambda: time.sleep(0.02), 0.05) for _ in range(16)))

    assert len(asyncio.run(run())) == 16


def test_what_waits_too_long_is_given_up_and_never_begun() -> None:
    budget = TimeBudget(workers=1, wait_s=0.1)
    begun = []

    async def run() -> list[Any]:
        def work() -> None:
            begun.append(1)
            time.sleep(0.015)

        pieces = (budget.run(work, 0.1) for _ in range(40))
        return await asyncio.gather(*pieces, return_exceptions=True)

    results = asyncio.run(run())
    given_up = sum(isinstance(r, SaturatedError) for r in results)
    assert given_up > 0
    assert len(begun) <= len(results) - given_up + 1


def test_what_the_work_raises_is_raised() -> None:
    async def run() -> None:
        with pytest.raises(ZeroDivisionError):
            await TimeBudget().run(lambda: 1 // 0, 1)

    asyncio.run(run())


def test_when_every_thread_is_overdue_nothing_more_is_begun_until_one_ends() -> None:
    budget = TimeBudget(workers=2)
    release = threading.Event()

    async def run() -> None:
        stuck = [budget.run(release.wait, 0.02) for _ in range(20)]
        start = time.perf_counter()
        failures = await asyncio.gather(*stuck, return_exceptions=True)
        assert [type(f) for f in failures] == [TimeoutError] * 2 + [SaturatedError] * 18
        assert time.perf_counter() - start < WAIT_S
        start = time.perf_counter()
        with pytest.raises(SaturatedError):
            await budget.run(lambda: 7, 1)
        assert time.perf_counter() - start < 0.01
        release.set()
        async with asyncio.timeout(5):
            while True:
                try:
                    assert await budget.run(lambda: 7, 1) == 7
                    return
                except SaturatedError:
                    await asyncio.sleep(0.001)

    asyncio.run(run())


def test_work_that_was_in_time_counts_where_the_event_loop_was_late() -> None:
    budget = TimeBudget()

    async def run() -> int:
        asked = asyncio.create_task(budget.run(lambda: 7, 0.02))
        await asyncio.sleep(0)
        time.sleep(0.05)
        return await asked

    assert asyncio.run(run()) == 7


def test_no_more_than_the_given_number_waits() -> None:
    budget = TimeBudget(workers=1, waiting=3)
    release = threading.Event()

    async def run() -> list[Any]:
        asked = asyncio.gather(*(budget.run(release.wait, 5) for _ in range(5)), return_exceptions=True)
        await asyncio.sleep(0.01)
        release.set()
        return await asked

    assert [type(result) for result in asyncio.run(run())] == [bool] * 3 + [SaturatedError] * 2


def test_a_request_given_up_by_its_client_counts_as_overdue_until_its_thread_ends() -> None:
    budget = TimeBudget(workers=1)
    release = threading.Event()

    async def run() -> None:
        task = asyncio.create_task(budget.run(release.wait, 5))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with pytest.raises(SaturatedError):
            await budget.run(lambda: 7, 1)

    asyncio.run(run())
    release.set()
