"""Calls, errors, cancels and streams across a real process, under every Python a plugin may have."""

from __future__ import annotations

import asyncio
import signal

import pytest
from tests.interpreters import VERSIONS, interpreter
from tests.leaks import leaks_checked
from tests.waiting import eventually_async
from tests.workers import worker

from toft_sdk.errors import CancelledError, FatalError, InputError, PluginError

__all__ = ["leaks_checked"]
pytestmark = pytest.mark.usefixtures("leaks_checked")


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_worker_answers_under_every_python(version: str) -> None:
    async with worker(python=interpreter(version)) as run:
        assert await run.call("python") == version
        value = {"a": (1, b"x"), "n": float("inf"), "s": {1, 2}, 3: None}
        assert await run.call("execute", value=value) == value
        assert [n async for n in run.stream("count", to=1000)] == list(range(1000))


async def test_load_gives_the_description() -> None:
    async with worker(load=False) as run:
        description = await run.connection.request("load")
        assert description["name"] == "probe"
        assert "execute" in description["actions"]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("ValueError", InputError),
        ("InputError", InputError),
        ("SystemExit", PluginError),
        ("KeyboardInterrupt", PluginError),
    ],
)
async def test_what_a_plugin_raises_arrives_typed_and_the_worker_lives(
    kind: str, expected: type[Exception]
) -> None:
    async with worker() as run:
        with pytest.raises(expected) as caught:
            await run.call("fail", kind=kind)
        assert "as told" in str(caught.value)
        assert "probes.py" in caught.value.trace  # type: ignore[attr-defined]
        assert await run.call("execute", value=1) == 1


async def test_a_result_that_cannot_cross_names_its_path() -> None:
    async with worker() as run:
        with pytest.raises(FatalError, match=r"\$\.items\[2\]\.model") as caught:
            await run.call("unencodable")
        assert caught.value.code == "result.unencodable"
        assert caught.value.blame == "plugin"


@pytest.mark.parametrize("action", ["loop", "sleep"])
@pytest.mark.parametrize("class_name", ["Probe", "Many"])
async def test_cancel_ends_one_call_and_no_other(action: str, class_name: str) -> None:
    async with worker(class_name) as run:
        numbers = [run.connection.next_call_id() for _ in range(3)]
        calls = [
            asyncio.ensure_future(run.call(action, {"call_id": number}, seconds=0.3 if at else 60.0))
            for at, number in enumerate(numbers)
        ]
        await run.until_it_runs(numbers[0])
        run.connection.cancel(numbers[0], "enough")
        with pytest.raises(CancelledError, match="enough"):
            await calls[0]
        assert await asyncio.gather(*calls[1:]) == ["done" if action == "loop" else "slept"] * 2
        run.connection.cancel(numbers[1])  # of a finished call: nothing
        assert await run.call("execute", value=2) == 2


async def test_a_queued_call_is_cancelled_before_it_starts() -> None:
    async with worker() as run:
        first = asyncio.ensure_future(run.call("sleep", seconds=0.3))
        number = run.connection.next_call_id()
        second = asyncio.ensure_future(run.call("loop", {"call_id": number}, seconds=60.0))
        await run.until_it_runs()
        run.connection.cancel(number)
        assert await first == "slept"
        with pytest.raises(CancelledError):
            await second


async def test_a_ping_is_answered_while_a_call_runs() -> None:
    async with worker() as run:
        call = asyncio.ensure_future(run.call("loop", seconds=60.0))
        beat = await run.until_it_runs()
        assert beat.op == "call"
        assert beat.stacks[0][0] == "main"
        assert any("loop" in line for line in beat.stacks[0][1])
        call.cancel()
        await eventually_async(lambda: not run.connection.calls)


async def test_progress_is_coalesced_and_the_last_arrives() -> None:
    async with worker() as run:
        seen: list[tuple[float, str]] = []
        used: list[dict[str, float]] = []
        options = {"on_progress": lambda share, text: seen.append((share, text)), "on_usage": used.append}
        assert await run.call("report", options, times=100_000) == 100_000
        assert seen[-1] == (1.0, "all")
        assert seen == sorted(seen, key=lambda each: each[0])
        assert len(seen) < 2000
        assert used == [{"tokens": 100_000.0}]
        assert [(line.text, dict(line.fields)) for line in run.lines if line.stream == "log"] == [
            ("counted", {"times": 100_000})
        ]


async def test_progress_that_is_none_is_an_error_where_it_is_reported() -> None:
    async with worker() as run:
        assert len(await run.call("report_nonsense")) >= 3
        # The thread beside the main one has not died of it.
        call = asyncio.ensure_future(run.call("loop", seconds=60.0))
        assert (await run.until_it_runs()).op == "call"
        call.cancel()
        await eventually_async(lambda: not run.connection.calls)


async def test_calls_that_came_together_do_not_wait_for_the_one_that_runs_long() -> None:
    async with worker("Many") as run:
        await run.connection.request("initialize", {"config": {}})
        # Stopped, so that its main thread finds them all at once and has read all before it runs one.
        run.process.send_signal(signal.SIGSTOP)
        calls = [asyncio.ensure_future(run.call("meet", last=number == 7)) for number in range(8)]
        await asyncio.sleep(0)
        run.process.send_signal(signal.SIGCONT)
        names = await asyncio.gather(*calls)
        assert names[0] == "MainThread"
        assert len(set(names)) > 1


async def test_many_short_calls_need_no_other_thread() -> None:
    async with worker("Many") as run:
        await run.connection.request("initialize", {"config": {}})
        names = [await run.call("meet", last=True) for _ in range(50)]
        assert names.count("MainThread") > 40
