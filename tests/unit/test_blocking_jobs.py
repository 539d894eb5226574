"""A watcher in another thread misses nothing, is not flooded, hears the error, and can be closed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from toft.blocking import Watch, watching
from toft.kernel.errors import UnavailableError
from toft.plugins.loop_thread import LoopThread


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    started = LoopThread("test")
    yield started
    started.stop()


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_every_event_arrives_in_order_and_no_more_are_read_ahead_than_fit(thread: LoopThread) -> None:
    ahead: list[int] = []
    total = 4 * watching._READ_AHEAD

    async def source() -> AsyncIterator[int]:
        for number in range(total):
            ahead.append(number)
            yield number
            await asyncio.sleep(0)

    with Watch(thread, source()) as watch:
        seen = [next(watch)]
        thread.run(turns(2 * total))
        assert len(ahead) <= watching._READ_AHEAD + 2
        seen += [next(watch) for _ in range(watching._READ_AHEAD)]
        thread.run(turns(2 * total))
        assert len(ahead) <= 2 * watching._READ_AHEAD + 2
        seen += watch
    assert seen == list(range(total))


def test_what_ends_the_source_is_raised_after_its_last_event(thread: LoopThread) -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        raise UnavailableError("the daemon went away")

    watch = Watch(thread, source())
    assert next(watch) == 1
    with pytest.raises(UnavailableError, match="went away"):
        next(watch)
    assert list(watch) == []


def test_closing_ends_a_reader_who_waits_and_lets_the_source_tidy_up(thread: LoopThread) -> None:
    waits, tidied = threading.Event(), threading.Event()

    async def source() -> AsyncIterator[Any]:
        try:
            waits.set()
            await asyncio.Event().wait()
            yield None
        finally:
            tidied.set()

    watch = Watch(thread, source())
    got: list[Any] = []
    reader = threading.Thread(target=lambda: got.extend(watch), daemon=True)
    reader.start()
    assert waits.wait(5)
    watch.close()
    reader.join(5)
    assert not reader.is_alive()
    assert tidied.wait(5)
    assert got == []
