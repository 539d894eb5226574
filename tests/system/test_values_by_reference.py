"""A large answer goes from one worker into a file and from there to another: the host never holds it."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.leaks import leaks_checked
from tests.memory import Memory
from tests.waiting import eventually_async
from tests.workers import Running, worker

from toft.kernel.errors import IntegrityError
from toft.plugins.errors import WorkerLostError
from toft.plugins.packed import Packed
from toft.plugins.wire.segments import SegmentPool

__all__ = ["leaks_checked"]
pytestmark = pytest.mark.usefixtures("leaks_checked")

MB = 1 << 20
SIZE = 300 * MB


async def raw(run: Running, action: str, **arguments: Any) -> Packed:
    ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def told(value: Any, error: Exception | None) -> None:
        ended.set_exception(error) if error else ended.set_result(value)

    run.connection.begin("call", {"action": action, "arguments": arguments}, told, is_raw=True)
    found: Packed = await ended
    return found


def write(path: Path, packed: Packed) -> None:
    with path.open("wb", buffering=0) as file:
        for part in packed.parts():
            file.write(part)


async def test_a_large_array_passes_through_two_workers_without_entering_the_host(tmp_path: Path) -> None:
    pool = SegmentPool()
    async with worker(segments=pool) as first, worker(segments=pool) as second:
        await first.call("zeros", size=MB // 8)
        with await asyncio.to_thread(Memory().__enter__) as memory:
            answer = await raw(first, "zeros", size=SIZE // 8)
            await asyncio.to_thread(write, tmp_path / "blob", answer)
            answer.release()
            kept = await asyncio.to_thread(Packed.open, tmp_path / "blob")
            again = await raw(second, "execute", value={"image": [kept]})
            await asyncio.to_thread(write, tmp_path / "second", again)
            again.release()
        assert memory.most < 40 * MB, f"{memory.most >> 20} MB"
        found = await second.call("size", value=Packed.open(tmp_path / "second").at(["image", 0]))
        assert found == SIZE
        assert np.array_equal(Packed.open(tmp_path / "second").value()["image"][0][:9], np.zeros(9))


async def test_small_answers_come_packed_as_well() -> None:
    async with worker() as run:
        for value in ({"a": [1, 2]}, (1, b"x"), np.arange(5)):
            answer = await raw(run, "execute", value=value)
            assert repr(answer.value()) == repr(value)
            assert repr(Packed.read(answer.to_bytes()).value()) == repr(value)
            answer.release()


async def test_an_answer_nobody_wants_gives_its_memory_back() -> None:
    pool = SegmentPool()
    async with worker(segments=pool) as run:
        for _ in range(5):
            await raw(run, "zeros", size=MB)

        def is_bounded() -> bool:
            gc.collect()
            run.connection._bulk.collect()
            return pool.used_bytes <= 16 * MB

        await eventually_async(is_bounded)


async def test_an_answer_outlives_its_worker(tmp_path: Path) -> None:
    pool = SegmentPool()
    async with worker(segments=pool) as run:
        answer = await raw(run, "execute", value=np.arange(MB))
        run.process.kill()
        await eventually_async(lambda: bool(run.ends))
        with pytest.raises(WorkerLostError):
            await run.call("execute")
        write(tmp_path / "blob", answer)
        answer.release()
        assert np.array_equal(Packed.open(tmp_path / "blob").value(), np.arange(MB))
    await eventually_async(lambda: pool.used_bytes == 0)


@pytest.mark.parametrize("how", ["gone", "cut"])
@pytest.mark.parametrize("size", [MB // 8, 16 * MB])
async def test_a_value_whose_file_is_gone_ends_the_call_and_not_the_worker(
    tmp_path: Path, how: str, size: int
) -> None:
    pool = SegmentPool()
    path = tmp_path / "blob"
    await asyncio.to_thread(path.write_bytes, Packed.of({"image": bytes(size), "n": 1}).to_bytes())
    async with worker(segments=pool) as run:
        kept = await asyncio.to_thread(Packed.open, path)
        if how == "gone":
            path.unlink()
        else:
            os.truncate(path, 4096)
        with pytest.raises(IntegrityError) as caught:
            await raw(run, "execute", value=kept)
        assert caught.value.code == "value.damaged"
        assert await run.call("execute", value=3) == 3
        run.connection._bulk.collect()
        assert not run.connection._bulk._held
