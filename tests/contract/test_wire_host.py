"""The host's end against a peer that breaks the rules: a typed error, a closed connection, nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.waiting import eventually_async

from toft.plugins.errors import CallTimeoutError, WireError, WorkerLostError
from toft.plugins.wire.connection import Connection
from toft.plugins.wire.frames import Hello, LogLine, Welcome
from toft.plugins.wire.segments import SegmentPool
from toft_sdk import wire
from toft_sdk.errors import CancelledError, InputError

HELLO = {
    "protocol": 1,
    "language": "test",
    "version": "1",
    "sdk": "1",
    "pid": 7,
    "capabilities": ["segments"],
}


@dataclass
class Peer:
    """A worker made of a bare socket."""

    sock: socket.socket
    connection: Connection
    lines: list[LogLine] = field(default_factory=list)
    ends: list[WireError | None] = field(default_factory=list)
    frames: wire.FrameBuffer = field(default_factory=wire.FrameBuffer)

    async def send(self, *frames: list[Any] | bytes) -> None:
        for frame in frames:
            data = frame if isinstance(frame, bytes) else wire.pack(frame)
            with contextlib.suppress(ConnectionError):
                await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def receive(self) -> list[Any] | None:
        while (taken := self.frames.take()) is None:
            count = await asyncio.get_running_loop().sock_recv_into(self.sock, self.frames.room())
            if count == 0:
                return None
            self.frames.filled(count)
        return taken[0]

    async def open(self) -> Hello:
        await self.send(["hello", 0, HELLO])
        hello = await self.connection.open(Welcome(module="m"), timeout_s=5)
        assert (await self.receive() or [""])[0] == "welcome"
        return hello

    async def begin(self, op: str = "call", arguments: Any = None) -> tuple[asyncio.Future[Any], int]:
        call = asyncio.ensure_future(self.connection.request(op, arguments))
        frame = await self.receive()
        assert frame is not None
        return call, frame[1]


@contextlib.asynccontextmanager
async def peers(take: Callable[[LogLine], None] | None = None) -> AsyncIterator[Peer]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    lines: list[LogLine] = []
    ends: list[WireError | None] = []
    pool = SegmentPool(max_bytes=64 << 20, patience_s=0.05)
    connection = Connection(ours, segments=pool, on_log=take or lines.append, on_lost=ends.append)
    before = len(os.listdir("/proc/self/fd"))
    try:
        yield Peer(theirs, connection, lines, ends)
    finally:
        connection.close()
        theirs.close()
        assert len(os.listdir("/proc/self/fd")) < before
        assert pool.used_bytes == 0


async def test_a_hello_is_answered_with_a_welcome() -> None:
    async with peers() as peer:
        assert (await peer.open()).pid == 7


@pytest.mark.parametrize("protocol", [0, 2, 99])
async def test_another_protocol_is_refused_with_both_numbers(protocol: int) -> None:
    async with peers() as peer:
        await peer.send(["hello", 0, {**HELLO, "protocol": protocol}])
        with pytest.raises(WireError, match=rf"protocol {protocol}, this node 1") as caught:
            await peer.connection.open(Welcome(module="m"), timeout_s=5)
        assert caught.value.details == {"worker": protocol, "node": 1}
        frame = await peer.receive()
        assert frame is not None
        assert frame[0] == "refused"
        assert await peer.receive() is None


@pytest.mark.parametrize(
    "first",
    [
        ["welcome", 0, {}],
        ["hello", 0, None],
        ["hello", 0, {"protocol": "1"}],
        ["hello", 0],
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_no_hello_is_refused(first: Any) -> None:
    async with peers() as peer:
        await peer.send(first)
        with pytest.raises(WireError):
            await peer.connection.open(Welcome(module="m"), timeout_s=5)
        assert len(peer.ends) == 1


async def test_silence_is_reported_and_the_end_of_file_too() -> None:
    async with peers() as peer:
        with pytest.raises(WorkerLostError, match="said nothing"):
            await peer.connection.open(Welcome(module="m"), timeout_s=0.01)
        peer.sock.close()
        with pytest.raises(WorkerLostError, match="closed"):
            await peer.connection.open(Welcome(module="m"), timeout_s=5)
        assert peer.ends == [None]


BROKEN: list[Any] = [
    wire.PREFIX.pack(2**31, 0) + b"x",
    wire.PREFIX.pack(5, 2**31) + b"[1,2]",
    wire.PREFIX.pack(3, 0) + b"abc",
    wire.PREFIX.pack(100_000, 0) + b"[" * 100_000,
    ["unknown", 1],
    ["hello", 0, HELLO],
    ["result", 99, None],
    ["result", -1, None],
    ["result", 1],
    ["error", 1, "text"],
    ["chunk", 1, 5],
    ["result", 1, {"$": "nonsense"}],
    ["result", 1, {"$": "bytes", "b": 0}],
    ["result", 1, {"$": "bytes", "b": 0}, [[1, 100_000]]],
    ["result", 1, {"$": "bytes", "b": 0}, [5]],
    ["progress", 1, "much", "text"],
    ["progress", 1],
    ["usage", 1, [1]],
    ["usage", 1, {"a": "b"}],
    ["log", 1, [["stdout"]]],
    ["log", 1, 5],
    ["log", 1, [["log", "a", "info", 5]]],
    ["pong", 1, {}],
    ["want", 1, -5],
    ["want", 1, "big"],
    ["want", 1],
    ["release", 0, [1]],
    ["release", 0, 5],
    ["release", 0, [[]]],
    ["protocol_error", 0, "you broke it"],
    ["protocol_error", 0],
]


@pytest.mark.parametrize("frame", BROKEN, ids=lambda frame: ascii(frame)[:40])
async def test_a_broken_frame_ends_the_connection_and_every_call(frame: Any) -> None:
    async with peers() as peer:
        await peer.open()
        call, number = await peer.begin()
        assert number == 1
        await peer.send(frame)
        with pytest.raises(WorkerLostError) as caught:
            await asyncio.wait_for(call, 5)
        assert caught.value.code == "worker.protocol"
        assert [type(end) for end in peer.ends] == [WireError]
        with pytest.raises(WorkerLostError):
            await peer.connection.request("call")
        with pytest.raises(WorkerLostError):
            await peer.connection.ping()
        assert await peer.receive() is None


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-5, 10)
    | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False)
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["$", "v", "b", "op"]), inner)
    ),
    max_leaves=6,
)
kinds = st.sampled_from(
    [
        "hello",
        "result",
        "error",
        "chunk",
        "progress",
        "usage",
        "log",
        "pong",
        "want",
        "release",
        "protocol_error",
        "child",
        "unknown",
    ]
)


@given(st.lists(st.tuples(kinds, st.integers(-1, 3), st.lists(anything, max_size=3)), min_size=1, max_size=6))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_frame_of_a_peer_raises_anything_else(frames: list[tuple[str, int, list[Any]]]) -> None:
    loop = asyncio.get_running_loop()
    surprises: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: surprises.append(context))
    async with peers() as peer:
        await peer.open()
        call, _ = await peer.begin()
        for kind, number, rest in frames:
            await peer.send([kind, number, *rest])
        peer.sock.shutdown(socket.SHUT_WR)
        await asyncio.wait([call], timeout=5)
        await eventually_async(lambda: peer.ends)
        assert call.done()
        call.exception()
    loop.set_exception_handler(None)
    assert surprises == []


HUGE = 10**400
LIES: list[list[Any]] = [
    ["progress", 1, HUGE, "x"],
    ["progress", 1, [], {}],
    ["usage", 1, {"tokens": HUGE}],
    ["usage", 1, [[1]]],
    ["error", 1, {"kind": "TransientError", "retry_after_s": HUGE}],
    ["error", 1, {"details": {"$": 1}, "kind": ["x"]}],
    ["result", HUGE, 1],
    ["result", -1, 1],
    ["result", 1, {"$": "array", "b": HUGE}, [1]],
    ["result", 1, {"$": "int", "v": "9" * 5000}, []],
    ["result", 1, {"$": ["x"]}, []],
    ["result", 1, {"$": "tuple", "v": 5}, [[1, 2]]],
    ["chunk", 1, 1],
    ["log", 1, [["stdout", "x", "info", 5]]],
    ["log", HUGE, [[{}, "x"], ["stdout", "y", True]]],
    ["log", 1, 5],
    ["pong", 1, {"op": "x", "quiet_s": HUGE, "calls": [1], "waiting": HUGE}],
    ["pong", [1], {"op": "x", "quiet_s": 1, "calls": [], "waiting": 1, "stacks": [[1]]}],
    ["want", 1, HUGE],
    ["want", 1, -1],
    ["release", 0, [1]],
    ["release", 0, [[]]],
    ["release", 0, 7],
    ["hello", 0, {"protocol": 1}],
    ["protocol_error", 0],
    [{}, 0],
    ["grant"],
]


@pytest.mark.parametrize("lie", LIES, ids=[str(lie)[:40] for lie in LIES])
async def test_a_lie_ends_the_connection_or_means_nothing(lie: list[Any]) -> None:
    """Numbers that overflow, segments it does not hold, answers nobody asked for, in the middle of a call."""
    loop = asyncio.get_running_loop()
    surprises: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: surprises.append(context))
    async with peers() as peer:
        await peer.open()
        call, _ = await peer.begin()
        await peer.send(lie)
        await peer.send(["result", 1, "after"])
        await asyncio.wait([call], timeout=5)
        assert call.done()
        call.exception()
    loop.set_exception_handler(None)
    assert surprises == []


async def test_a_stream_beyond_its_credit_is_refused() -> None:
    async with peers() as peer:
        await peer.open()
        stream = peer.connection.stream("stream", None, window=4)
        first = asyncio.ensure_future(anext(stream))
        frame = await peer.receive()
        assert frame is not None
        assert frame[3] == 4
        for number in range(20):
            await peer.send(["chunk", frame[1], number])
        assert await first == 0
        await eventually_async(lambda: peer.ends)
        assert isinstance(peer.ends[0], WireError)


async def test_a_slow_reader_gives_credit_only_for_what_it_took() -> None:
    async with peers() as peer:
        await peer.open()
        stream = peer.connection.stream("stream", None, window=4)
        first = asyncio.ensure_future(anext(stream))
        frame = await peer.receive()
        assert frame is not None
        number = frame[1]
        for chunk in range(4):
            await peer.send(["chunk", number, chunk])
        assert await first == 0
        assert await anext(stream) == 1
        assert await peer.receive() == ["credit", number, 2]
        await stream.aclose()
        assert await peer.receive() == ["cancel", number, "its reader went away"]


async def test_a_stream_that_nobody_holds_is_cancelled() -> None:
    async with peers() as peer:
        await peer.open()

        async def take_one() -> Any:
            async for chunk in peer.connection.stream("stream"):
                return chunk

        first = asyncio.ensure_future(take_one())
        frame = await peer.receive()
        assert frame is not None
        await peer.send(["chunk", frame[1], "a"])
        assert await first == "a"
        assert await peer.receive() == ["cancel", frame[1], "its reader went away"]
        assert peer.connection.calls == ()


async def test_a_cancelled_waiter_cancels_its_call_and_a_late_answer_is_ignored() -> None:
    async with peers() as peer:
        await peer.open()
        call, number = await peer.begin()
        call.cancel()
        assert await peer.receive() == ["cancel", number, "cancelled"]
        await peer.send(["progress", number, 0.5, ""], ["result", number, 1])
        second, number = await peer.begin()
        await peer.send(["error", number, CancelledError("gone").to_dict()])
        with pytest.raises(CancelledError, match="gone"):
            await second


async def test_a_call_that_takes_too_long_is_cancelled_and_says_so() -> None:
    async with peers() as peer:
        await peer.open()
        call = asyncio.ensure_future(peer.connection.request("call", timeout_s=0.01))
        assert (await peer.receive() or [""])[0] == "request"
        with pytest.raises(CallTimeoutError):
            await call
        assert (await peer.receive() or [""])[0] == "cancel"


async def test_a_typed_error_arrives_with_its_fields() -> None:
    async with peers() as peer:
        await peer.open()
        call, number = await peer.begin()
        await peer.send(["error", number, InputError("bad", fields={"x": "is not y"}).to_dict()])
        with pytest.raises(InputError) as caught:
            await call
        assert caught.value.fields == {"x": "is not y"}


async def test_a_peer_that_never_reads_does_not_fill_the_host() -> None:
    async with peers() as peer:
        await peer.open()
        calls = [asyncio.ensure_future(peer.connection.request("call", "x" * 60_000)) for _ in range(400)]
        await eventually_async(lambda: peer.connection._channel.is_full)
        await asyncio.sleep(0.05)
        assert peer.connection._channel._queued < 6 << 20
        assert len(peer.connection.calls) < 200
        async with asyncio.timeout(5):
            # Whoever ends a worker lets it clean up for some seconds; it need not read the wish.
            with pytest.raises(CallTimeoutError):
                await peer.connection.request("cleanup", timeout_s=0.02)
        for _ in range(300):
            peer.connection.cancel(1)
        pings = [asyncio.ensure_future(peer.connection.ping()) for _ in range(300)]
        await asyncio.sleep(0.01)
        assert peer.connection._channel._queued < 6 << 20
        peer.connection.close()
        for each in [*calls, *pings]:
            with pytest.raises(WorkerLostError):
                await each


async def test_a_peer_that_only_wants_gets_no_more_than_its_share() -> None:
    async with peers() as peer:
        await peer.open()
        for token in range(40):
            await peer.send(["want", token, 8 << 20])
        answers = []
        while len(answers) < 40:
            frame = await peer.receive()
            assert frame is not None
            if frame[0] == "grant":
                answers.append(frame[2])
        assert len([each for each in answers if isinstance(each, int)]) == 4
        assert all("segment of" in each for each in answers if not isinstance(each, int))


@pytest.mark.parametrize("failure", [OSError("disk full"), ValueError("closed file")])
async def test_who_takes_lines_may_fail_and_no_call_hangs(failure: Exception) -> None:
    surprises: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: surprises.append(context))

    def refuse(line: LogLine) -> None:
        raise failure

    async with peers(refuse) as peer:
        await peer.open()
        call, number = await peer.begin()
        await peer.send(["log", number, [["stdout", "a line"]]], ["result", number, 5])
        assert await asyncio.wait_for(call, 5) == 5
        call, number = await peer.begin()
        await peer.send(["log", number, [["stdout", "the last words", True]]])
        peer.sock.close()
        with pytest.raises(WorkerLostError):
            await asyncio.wait_for(call, 5)
        assert peer.ends == [None]
    assert len(surprises) == 2


async def test_who_waits_for_an_answer_may_fail_and_the_worker_is_not_blamed() -> None:
    surprises: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: surprises.append(context))

    def refuse(*_: Any) -> None:
        raise ValueError("not ready for it")

    async with peers() as peer:
        await peer.open()
        number = peer.connection.begin("call", None, refuse, on_progress=refuse)
        await peer.receive()
        call, second = await peer.begin()
        await peer.send(["progress", number, 0.5, ""], ["result", number, 1], ["result", second, 2])
        assert await asyncio.wait_for(call, 5) == 2
        assert peer.ends == []
    assert len(surprises) == 2
