"""What a plugin does below Python: C code that keeps the interpreter lock, descriptors, libc buffers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.interpreters import VERSIONS, interpreter
from tests.leaks import leaks_checked
from tests.workers import worker

from toft_sdk.errors import CancelledError

__all__ = ["leaks_checked"]
pytestmark = pytest.mark.usefixtures("leaks_checked")


async def test_c_code_that_prints_with_the_interpreter_lock_is_freed_by_the_host() -> None:
    async with worker() as run:
        size = 1_000_000  # more than any pipe holds
        call = asyncio.ensure_future(run.call("write_holding_the_lock", size=size))
        while not call.done():
            # The host takes what is there with each patience of the ping; write() ends when all went through.
            await run.connection.ping()
        assert call.result() == size
        # A line that both took a part of may arrive as two; nothing is lost.
        assert sum(line.text.count("x") for line in run.lines) == size // 100 * 99


async def test_a_cancel_arrives_as_soon_as_c_code_lets_go() -> None:
    async with worker() as run:
        number = run.connection.next_call_id()
        call = asyncio.ensure_future(run.call("sleep_holding_the_lock", {"call_id": number}, seconds=0.3))
        await asyncio.sleep(0.05)
        run.connection.cancel(number)
        ping = asyncio.ensure_future(run.connection.ping())
        with pytest.raises(CancelledError):
            await asyncio.wait_for(call, 5)
        await asyncio.wait_for(ping, 5)


async def test_what_libc_buffered_belongs_to_the_call_that_printed_it() -> None:
    async with worker() as run:
        numbers = [run.connection.next_call_id() for _ in range(3)]
        for number in numbers:
            await run.call("print_from_c", {"call_id": number}, text=f"of {number}")
        assert [(line.call, line.text) for line in run.lines] == [(each, f"of {each}") for each in numbers]


async def test_a_plugin_that_closes_every_descriptor_it_can_think_of_still_answers() -> None:
    async with worker() as run:
        await run.call("close_descriptors")
        assert await run.call("execute", value=b"z" * 100_000) == b"z" * 100_000
        await run.call("say", text="still here")
        assert run.texts() == ["still here"]
        call = asyncio.ensure_future(run.call("loop"))
        assert (await run.until_it_runs()).op == "call"
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_a_thread_of_the_plugin_prints_and_reports_for_the_call() -> None:
    async with worker() as run:
        seen: list[Any] = []
        number = run.connection.next_call_id()
        options = {"call_id": number, "on_progress": lambda share, text: seen.append((share, text))}
        await run.call("from_thread", options, text="from a thread")
        assert [(line.call, line.text) for line in run.lines] == [(number, "from a thread")]
        assert seen == [(0.5, "from a thread")]


@pytest.mark.parametrize("version", VERSIONS)
async def test_output_large_values_cancels_and_pings_under_every_python(version: str) -> None:
    async with worker(python=interpreter(version)) as run:
        for value in (b"a" * 200_000, bytearray(300_000), "ü" * 100_000, (b"b" * 70_000, b"c")):
            assert await run.call("execute", value=value) == value
        assert await run.call("say", text="line", times=1000) == 4
        assert run.texts() == ["line"] * 1000
        number = run.connection.next_call_id()
        call = asyncio.ensure_future(run.call("loop", {"call_id": number}))
        beat = await run.until_it_runs(number)
        assert any("loop" in line for line in beat.stacks[0][1])
        run.connection.cancel(number)
        with pytest.raises(CancelledError):
            await call
        assert await run.call("fork_child")
        assert run.texts()[-1] == "from the child"
