"""Large values: through segments, exact, reused, never under an array that somebody still has."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import numpy as np
import pytest
from tests.leaks import leaks_checked
from tests.waiting import eventually_async
from tests.workers import Running, worker

from toft.plugins.errors import WorkerLostError
from toft.plugins.wire.segments import SegmentPool
from toft_sdk.errors import CancelledError, ResourceError

__all__ = ["leaks_checked"]
pytestmark = pytest.mark.usefixtures("leaks_checked")

MB = 1 << 20


async def wait_for_idle(run: Running, pool: SegmentPool, bytes_left: int = 0) -> None:
    def is_idle() -> bool:
        gc.collect()
        run.connection._bulk.collect()
        return pool.used_bytes <= bytes_left

    await eventually_async(is_idle)


async def test_large_values_of_every_kind_come_back_equal() -> None:
    async with worker() as run:
        array = np.arange(300_000, dtype=np.float32).reshape(300, 1000)
        for value in (array, array.T, array[::2, ::3], np.asfortranarray(array)):
            back = await run.call("execute", value=value)
            assert np.array_equal(back, value)
            assert back.dtype == value.dtype
            assert back.flags.f_contiguous == value.flags.f_contiguous or not value.flags.contiguous
            assert back.flags.writeable
        for plain in (b"x" * MB, bytearray(b"y" * MB), "z" * MB, "\ud800ä" * MB):
            back = await run.call("execute", value=plain)
            assert back == plain
            assert type(back) is type(plain)


async def test_segments_are_reused_and_not_multiplied() -> None:
    pool = SegmentPool()
    async with worker(segments=pool) as run:
        array = np.zeros(MB, dtype=np.uint8)
        for _ in range(50):
            await run.call("execute", value=array)
        assert pool.used_bytes <= 4 * MB


async def test_an_array_the_plugin_keeps_is_never_overwritten() -> None:
    async with worker() as run:
        for number in range(8):
            await run.call("keep", value=np.full(MB // 8, float(number)))
            await run.call("execute", value=np.full(MB // 8, -1.0))
        assert await run.call("kept_sums") == [number * MB / 8 for number in range(8)]


async def test_an_array_the_caller_keeps_is_never_overwritten() -> None:
    pool = SegmentPool()
    async with worker(segments=pool) as run:
        kept = [await run.call("execute", value=np.full(MB // 8, float(number))) for number in range(8)]
        view = kept[3][10:20]
        assert [array[0] for array in kept] == list(range(8))
        used = pool.used_bytes
        del kept
        gc.collect()
        run.connection._bulk.collect()
        for number in range(20):
            await run.call("execute", value=np.full(MB // 8, -float(number)))
        assert pool.used_bytes <= used
        assert (view == 3.0).all()


async def test_views_outlive_the_worker_and_its_memory_is_given_back() -> None:
    pool = SegmentPool()
    async with worker(segments=pool) as run:
        back = await run.call("execute", value=np.full(MB, 7.0))
        assert pool.used_bytes > 0
        with pytest.raises(WorkerLostError):
            await run.call("say_and_die", text="bye")
        assert (back == 7.0).all()
    del back
    gc.collect()
    pool._collect()
    assert pool.used_bytes == 0


async def test_a_result_of_a_gigabyte_arrives() -> None:
    pool = SegmentPool()
    async with worker(segments=pool) as run:
        size = 1_000_000_000
        back = await run.call("big_bytes", size=size)
        assert len(back) == size
        del back
        await wait_for_idle(run, pool, pool.idle_bytes)


async def test_a_value_beyond_the_bound_is_refused_and_the_worker_lives() -> None:
    pool = SegmentPool(max_bytes=8 * MB)
    async with worker(segments=pool) as run:
        with pytest.raises(ResourceError, match="segment"):
            await run.call("execute", value=bytes(9 * MB))
        with pytest.raises(ResourceError, match="segment"):
            await run.call("big_bytes", size=9 * MB)
        assert await run.call("execute", value=b"small") == b"small"


async def test_many_large_calls_side_by_side() -> None:
    async with worker("Many") as run:

        async def one(number: int) -> Any:
            back = await run.call("execute", value=np.full(MB // 8, float(number)))
            return back.sum() == number * MB / 8

        assert all(await asyncio.gather(*[one(number) for number in range(40)]))


async def test_a_stream_of_arrays() -> None:
    async with worker() as run:
        chunks = [chunk async for chunk in run.stream("arrays", count=20, size=MB)]
        assert [int(chunk[0]) for chunk in chunks] == list(range(20))


async def test_arrays_reach_a_worker_without_numpy() -> None:
    async with worker() as run:
        # Small ones as well as large ones; the worker of the test has numpy, so this is the way with it.
        for size in (1, 100, MB):
            value = {"a": np.zeros(size, dtype=np.int16), "b": [np.float32(1.5), np.int64(3)]}
            back = await run.call("execute", value=value)
            assert back["a"].dtype == np.int16
            assert back["b"] == value["b"]
            assert [type(each) for each in back["b"]] == [np.float32, np.int64]


async def test_a_stream_of_large_chunks_waits_for_its_slow_reader() -> None:
    pool = SegmentPool(max_bytes=16 * MB)
    async with worker(segments=pool) as run:
        seen = 0
        async for chunk in run.stream("arrays", count=60, size=MB):  # far more than the pool holds
            assert int(chunk[0]) == seen
            seen += 1
            if seen < 10:
                await asyncio.sleep(0.02)
            del chunk
        assert seen == 60
        assert pool.used_bytes <= 16 * MB


async def test_a_worker_holds_no_more_after_a_thousand_calls() -> None:
    async with worker() as run:

        async def round_of_calls(count: int) -> None:
            for number in range(count):
                await run.call("execute", value=np.zeros(MB // 8))
                await run.call("say", text="x")
                call_id = run.connection.next_call_id()
                call = asyncio.ensure_future(run.call("sleep", {"call_id": call_id}, seconds=60.0))
                await asyncio.sleep(0.001 * (number % 5))
                run.connection.cancel(call_id)
                with pytest.raises(CancelledError):
                    await call
                async for _ in run.stream("count", to=1000):
                    break

        await round_of_calls(20)
        before = await run.call("holdings")
        await round_of_calls(100)
        await eventually_async(lambda: same_holdings(run, before), 10)


async def same_holdings(run: Running, before: tuple[int, int]) -> bool:
    now = await run.call("holdings")
    return bool(now[0] <= before[0] and now[1] <= before[1])
