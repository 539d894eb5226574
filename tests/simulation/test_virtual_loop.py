import asyncio
import time

import pytest
from tests.simulation import virtual_loop


def test_a_year_of_waiting_takes_no_time() -> None:
    clock = virtual_loop.Clock()

    async def wait() -> float:
        await asyncio.sleep(365 * 86400)
        async with asyncio.timeout(1000):
            await asyncio.sleep(3)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 5)
        return asyncio.get_running_loop().time()

    before = time.perf_counter()
    assert virtual_loop.run(wait(), clock) == pytest.approx(365 * 86400 + 8, abs=0.001)
    assert clock.now() == pytest.approx(virtual_loop.START + 365 * 86400 + 8, abs=0.001)
    assert time.perf_counter() - before < 2


def test_timers_fire_in_order_and_threads_run_in_line() -> None:
    async def work() -> list[str]:
        told: list[str] = []
        loop = asyncio.get_running_loop()
        for delay, name in ((2, "two"), (1, "one"), (1, "one again")):
            loop.call_later(delay, told.append, name)
        told.append(await asyncio.to_thread(lambda: "thread"))
        await asyncio.sleep(3)
        return told

    assert virtual_loop.run(work()) == ["thread", "one", "one again", "two"]


def test_a_hang_and_a_spin_are_failures_not_endless_tests() -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    async def spin() -> None:
        while True:  # noqa: ASYNC110 - the spin to be found
            await asyncio.sleep(0)

    with pytest.raises(virtual_loop.NothingLeftError, match="no timer"):
        virtual_loop.run(hang())
    with pytest.raises(virtual_loop.NothingLeftError, match="spins"):
        virtual_loop.run(spin())


def test_a_failure_that_nobody_awaited_is_told() -> None:
    async def work() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)

    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        virtual_loop.run(work())
