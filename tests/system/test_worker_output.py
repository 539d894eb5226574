"""What a plugin prints: every line, once, with the call that printed it."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from tests.leaks import leaks_checked
from tests.waiting import eventually_async
from tests.workers import worker

from toft.plugins.errors import WorkerLostError

__all__ = ["leaks_checked"]
pytestmark = pytest.mark.usefixtures("leaks_checked")


async def test_lines_of_calls_sent_back_to_back_carry_their_own_call() -> None:
    async with worker() as run:
        numbers = [run.connection.next_call_id() for _ in range(200)]
        await asyncio.gather(
            *[run.call("say", {"call_id": number}, text=f"line of {number}", times=3) for number in numbers]
        )
        assert Counter((line.call, line.text) for line in run.lines) == {
            (number, f"line of {number}"): 3 for number in numbers
        }


async def test_lines_of_calls_that_run_together_carry_their_own_call() -> None:
    async with worker("Many") as run:
        numbers = [run.connection.next_call_id() for _ in range(100)]
        await asyncio.gather(
            *[run.call("say", {"call_id": number}, text=f"line of {number}", times=3) for number in numbers]
        )
        assert Counter((line.call, line.text) for line in run.lines) == {
            (number, f"line of {number}"): 3 for number in numbers
        }


async def test_an_unfinished_line_ends_with_its_call() -> None:
    async with worker() as run:
        await run.call("say", text="no end", end="")
        await run.call("say", text="other", end="", error=True)
        assert [(line.stream, line.text) for line in run.lines] == [("stdout", "no end"), ("stderr", "other")]


async def test_a_line_printed_in_parts_is_one_line() -> None:
    async with worker() as run:
        await run.call("say_slowly", parts=["a", "ü", "c\nd", "e"], pause_s=0.03)
        await run.call(
            "shell", command=r"printf '\303'; sleep 0.03; printf '\274 \360\237'; sleep 0.03; echo"
        )
        assert run.texts() == ["aüc", "de", "ü \\xf0\\x9f"]


async def test_child_processes_and_raw_writes_are_caught() -> None:
    async with worker() as run:
        await run.call("shell", command="echo from a shell; echo oops >&2")
        assert await run.call("write_fd", fd=1, text="raw\n") == 4
        assert run.texts() == ["from a shell", "oops", "raw"]


async def test_a_write_to_the_first_free_descriptors_does_not_reach_the_protocol() -> None:
    async with worker() as run:
        for fd in range(3, 64):
            await run.call("write_fd", fd=fd, text="garbage\n")
        assert await run.call("execute", value=1) == 1


async def test_a_forked_child_prints_but_cannot_speak() -> None:
    async with worker() as run:
        seen: list[float] = []
        assert await run.call("fork_child", {"on_progress": lambda share, text: seen.append(share)})
        assert run.texts() == ["from the child"]
        assert seen == []
        assert await run.call("execute", value=1) == 1


async def test_the_last_words_of_a_killed_worker_arrive_with_their_call() -> None:
    async with worker() as run:
        number = run.connection.next_call_id()
        with pytest.raises(WorkerLostError):
            await run.call("say_and_die", {"call_id": number}, text="first\nlast words")
        assert [(line.call, line.text) for line in run.lines] == [(number, "first"), (number, "last words")]
        await eventually_async(lambda: run.ends == [None])


async def test_two_hundred_thousand_lines_do_not_stall() -> None:
    async with worker() as run:
        await run.call("say", text="one of many", times=200_000)
        assert len(run.lines) == 200_000


async def test_a_line_longer_than_a_line_is_split() -> None:
    async with worker() as run:
        await run.call("say", text="x" * 100_000)
        assert "".join(run.texts()) == "x" * 100_000
        assert max(map(len, run.texts())) <= 8192
