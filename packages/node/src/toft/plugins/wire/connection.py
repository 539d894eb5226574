"""The host's end of one worker: requests with numbers, streams with credit, cancels, pings, log lines.

Knows sockets and frames, nothing of processes: whoever starts the worker hands over the socket, and is told
once when the other end is gone.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from toft.kernel import clock as clocks
from toft.kernel.errors import NodeError, UnavailableError
from toft.plugins.errors import CallTimeoutError, WireError, WorkerLostError
from toft.plugins.wire.answers import Answers, OnEnd, OnProgress, OnUsage, Pending, resolve
from toft.plugins.wire.channel import Channel
from toft.plugins.wire.frames import Beat, Hello, LogLine, Welcome, read_hello
from toft.plugins.wire.memory import Load
from toft.plugins.wire.output import Lines, Output
from toft.plugins.wire.pings import Pings
from toft.plugins.wire.segments import SegmentPool, Segments
from toft.plugins.wire.streams import Flow, Stream
from toft_sdk import wire
from toft_sdk.errors import CancelledError

WINDOW = 256
# What reading a frame raises when it is not what it should be; an overflow is a number of 400 digits.
_MALFORMED = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


class Connection:
    """One worker's socket, from the handshake to its end.

    Args:
        sock: The host's end of the pair; owned by the connection from now on.
        segments: Where bulk values are put.
        on_log: Called with every line the worker printed or logged.
        on_lost: Called once when the other end is gone: with None at end of file, else with what was wrong.
        on_beat: Called with every answer to a ping.
        clock: Stamps the log lines.
        numbers: Where requests get their numbers; shared by connections whose lines end up in one log.
        keeps_calls: Open requests outlive the loss of the worker until `fail` says what they end with.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        segments: SegmentPool,
        on_log: Callable[[LogLine], None],
        on_lost: Callable[[WireError | None], None],
        on_beat: Callable[[Beat], None] | None = None,
        clock: clocks.Clock = clocks.SYSTEM,
        numbers: Iterator[int] | None = None,
        keeps_calls: bool = False,
    ) -> None:
        self.hello: Hello | None = None
        self._loop = asyncio.get_running_loop()
        self._lines = Lines(on_log, clock)
        self._on_lost = on_lost
        self._numbers = itertools.count(1) if numbers is None else numbers
        self._keeps_calls = keeps_calls
        self._bulk = Segments(segments, self._send, self._loop)
        self._answers = Answers(self._bulk.lease)
        self._copying: set[asyncio.Future[None]] = set()
        self._pending = self._answers.pending
        self._pings = Pings(self._send, on_beat)
        self._greeting: asyncio.Future[Hello] = self._loop.create_future()
        self._lost: Exception | None = None
        self._kinds: dict[str, Callable[[list[Any], bytearray, bool], None]] = {
            **self._answers.kinds,
            "log": self._lines.on_log,
            "want": self._bulk.on_want,
            "release": self._bulk.on_release,
            "pong": self._pings.on_pong,
            "protocol_error": self._on_protocol_error,
        }
        self._output = Output(self._on_line)
        self._channel = Channel(sock, self._on_frame, self._on_end)

    # -- what callers use ------------------------------------------------------------------------------------

    async def open(self, welcome: Welcome, *, timeout_s: float = 10.0) -> Hello:
        """Wait for the worker's first frame, check its protocol, tell it what it hosts.

        Raises:
            WireError: It speaks another protocol, or none.
            WorkerLostError: It ended before it said anything, or said nothing in time.
        """
        try:
            hello = await asyncio.wait_for(asyncio.shield(self._greeting), timeout_s)
        except TimeoutError:
            raise WorkerLostError(
                f"the worker said nothing within {timeout_s:g} s of its start", code="worker.stalled"
            ) from None
        if hello.protocol != wire.PROTOCOL:
            reason = f"the worker speaks protocol {hello.protocol}, this node {wire.PROTOCOL}"
            self._send(["refused", 0, reason])
            error = WireError(
                reason,
                details={"worker": hello.protocol, "node": wire.PROTOCOL},
                hint="use the SDK that belongs to this node: toft plugin refresh NAME",
            )
            self.fail(error)
            raise error
        self.hello = hello
        self._send_welcome(welcome, hello)
        return hello

    def _send_welcome(self, welcome: Welcome, hello: Hello) -> None:
        fields = welcome.to_dict(hello.capabilities & {"segments"})
        fds: list[int] = []
        if "output" in hello.capabilities and self._output.writing and not welcome.is_zygote:
            fields["output"] = True
            fds = [*self._output.reading, *self._output.writing]
        else:
            self._output.watch(self._loop)  # it leaves its output to us
        self._channel.send(wire.pack(["welcome", 0, fields]), fds)
        self._output.close_writing()

    @property
    def output_fds(self) -> tuple[int, int]:
        """Descriptors to start the process with as stdout and stderr; closed here once it is greeted."""
        stdout, stderr = self._output.writing
        return stdout, stderr

    async def request(
        self,
        op: str,
        arguments: Any = None,
        *,
        on_progress: OnProgress | None = None,
        on_usage: OnUsage | None = None,
        timeout_s: float | None = None,
        call_id: int | None = None,
    ) -> Any:
        """Ask the worker for something and return its answer.

        Args:
            op: Such as `load`, `initialize` or `call`.
            arguments: What goes with it; of a call `{"action": ..., "arguments": {...}}`.
            on_progress: Called with a fraction and a message.
            on_usage: Called with units.
            timeout_s: After so long the call is cancelled and `CallTimeoutError` raised.
            call_id: A number from `next_call_id`, for who wants to know it before the answer.

        Raises:
            PluginError: What the plugin raised; `EncodeError` when the arguments cannot cross.
            WorkerLostError: The worker ended first.

        Cancellation: Cancelling the awaiting task cancels the call.
        """
        number = next(self._numbers) if call_id is None else call_id
        future: asyncio.Future[Any] = self._loop.create_future()
        pending = Pending(number, partial(resolve, future), on_progress, on_usage)
        if self._channel.is_full:
            await self._drained(timeout_s)
        self._begin(pending, op, 0, arguments)
        timer = (
            None if timeout_s is None else self._loop.call_later(timeout_s, self._expire, pending, timeout_s)
        )
        try:
            return await future
        except asyncio.CancelledError:
            self.cancel(number)
            raise
        finally:
            self._pending.pop(number, None)
            if timer is not None:
                timer.cancel()

    async def _drained(self, timeout_s: float | None) -> None:
        """Wait for a worker that does not read, but no longer than its answer is waited for."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._channel.drain()
        except TimeoutError:
            raise CallTimeoutError(
                f"the worker has not taken what it was sent before within {timeout_s} s"
            ) from None

    def begin(
        self,
        op: str,
        arguments: Any,
        on_end: OnEnd,
        *,
        on_progress: OnProgress | None = None,
        on_usage: OnUsage | None = None,
        call_id: int | None = None,
        is_raw: bool = False,
    ) -> int:
        """Ask the worker for something without waiting; costs no task and no future.

        Args:
            op: As for `request`.
            arguments: As for `request`.
            on_end: Called once, with the answer and None, or with None and an error.
            on_progress: Called with a fraction and a message.
            on_usage: Called with units.
            call_id: A number from the connection's own source.
            is_raw: The answer is wanted as `toft.plugins.packed.Packed`; whoever gets it releases it.

        Returns:
            The number to cancel it by; a cancelled request still ends with what the worker answers.

        Raises:
            PluginError: The arguments cannot cross; `on_end` is not called.
            WorkerLostError: The worker is gone; `on_end` is not called.
        """
        self._refuse_when_full()
        number = next(self._numbers) if call_id is None else call_id
        self._begin(Pending(number, on_end, on_progress, on_usage, is_raw=is_raw), op, 0, arguments)
        return number

    def begin_stream(
        self,
        op: str,
        arguments: Any,
        on_end: OnEnd,
        *,
        window: int = WINDOW,
        on_progress: OnProgress | None = None,
        on_usage: OnUsage | None = None,
        call_id: int | None = None,
    ) -> Stream:
        """Ask for a stream without waiting; as `begin`, and a stream nobody reads any more still ends."""
        self._refuse_when_full()
        number = next(self._numbers) if call_id is None else call_id
        flow = Flow(window, lambda count: self._send(["credit", number, count]))
        self._begin(Pending(number, on_end, on_progress, on_usage, flow), op, window, arguments)
        return Stream(flow, None, lambda: self.cancel(number, "its reader went away"), number)

    def stream(
        self,
        op: str,
        arguments: Any = None,
        *,
        window: int = WINDOW,
        on_progress: OnProgress | None = None,
        on_usage: OnUsage | None = None,
        call_id: int | None = None,
    ) -> Stream:
        """Return the chunks of a request as they come; the worker stops when `window` of them wait here.

        The request goes out with the first `__anext__`. Closing the iterator cancels the call.
        """
        number = next(self._numbers) if call_id is None else call_id
        flow = Flow(window, lambda count: self._send(["credit", number, count]))
        pending = Pending(number, None, on_progress, on_usage, flow)

        async def begin() -> None:
            if self._channel.is_full:
                await self._channel.drain()
            self._begin(pending, op, window, arguments)

        def stop() -> None:
            self.cancel(number, "its reader went away")
            self._pending.pop(number, None)

        return Stream(flow, begin, stop, number)

    def add_kind(self, kind: str, handler: Callable[[list[Any], bytearray, bool], None]) -> None:
        """Take frames of one more kind; `handler` gets the header, the tail and whether it may hold tags."""
        self._kinds[kind] = handler

    def send(self, header: list[Any], fds: Iterable[int] = ()) -> None:
        """Send a frame that is no request, with descriptors; they may be closed at once."""
        if self._lost is not None:
            raise self._lost
        self._send(header, fds)

    def next_call_id(self) -> int:
        """Return a number for `request` or `stream`."""
        return next(self._numbers)

    def cancel(self, call_id: int, reason: str = "cancelled") -> None:
        """Ask the worker to stop one call; of a finished one nothing happens."""
        pending = self._pending.get(call_id)
        if pending is None:
            return
        if pending.is_sent:
            self._send(["cancel", call_id, reason])
        else:
            pending.cancelled = reason

    async def ping(self, *, stacks: bool = False) -> Beat:
        """Ask what the worker is doing; answered while a call runs, unless C code holds the interpreter lock.

        Args:
            stacks: Also ask where each of its threads is.
        """
        if self._lost is not None:
            raise self._lost
        # C code that prints while it holds the interpreter lock waits for somebody to empty the pipe.
        return await self._pings.ask(stacks, while_silent=self._output.drain)

    def _on_line(self, stream: str, text: str, goes_on: bool) -> None:
        # Taken from the pipe by the host, a line belongs to the only call there is, if any.
        numbers = list(self._pending)
        take = self._lines.hold if goes_on else self._lines.add
        take(stream, numbers[0] if len(numbers) == 1 else 0, text)

    def close(self) -> None:
        """Close the socket; what waits for an answer ends with `WorkerLostError`, and the worker exits."""
        if self._lost is None:
            self.fail(WorkerLostError("the connection to the worker was closed", code="worker.closed"))
        self._channel.close()
        self._close_output()

    def _close_output(self) -> None:
        self._output.close()
        self._lines.close()

    def fail(self, error: Exception) -> None:
        """Close the socket and end everything that still waits with this error."""
        self._channel.close()
        try:
            self._close_output()
        finally:  # even when nobody could write down its last words
            self._lose(error)
            self._answers.fail(self._lost or error)

    @property
    def calls(self) -> tuple[int, ...]:
        """Numbers of the requests that wait for an answer."""
        return tuple(self._pending)

    # -- sending ---------------------------------------------------------------------------------------------

    def _refuse_when_full(self) -> None:
        if self._channel.is_full:
            raise UnavailableError("the worker does not read what it is sent", code="worker.not_reading")

    def _send(self, header: list[Any], fds: Iterable[int] = ()) -> None:
        self._channel.send(wire.pack(header), tuple(fds))

    def _begin(self, pending: Pending, op: str, window: int, arguments: Any) -> None:
        if self._lost is not None:
            raise self._lost
        tree, buffers = wire.encode(arguments)
        header = ["request", pending.number, op, window, tree]
        if not buffers:
            data = wire.pack(header)
            self._answers.add(pending)
            self._channel.send(data)
        elif self.hello is None or "segments" not in self.hello.capabilities:
            inline = [data.to_bytes() if hasattr(data, "copy_into") else data for data in buffers]
            self._send_bulk(pending, header, [len(data) for data in inline], inline)
        else:
            load = self._bulk.allot(buffers)
            if load.is_large:
                copying = asyncio.ensure_future(self._copy_and_send(pending, header, load))
                self._copying.add(copying)
                copying.add_done_callback(self._copying.discard)
                pending.is_sent = False
                self._answers.add(pending)
            else:
                load.copy()
                self._send_bulk(pending, header, load.places, load.inline)

    def _send_bulk(self, pending: Pending, header: list[Any], places: list[Any], inline: list[Any]) -> None:
        data = wire.pack([*header, places], inline)
        self._answers.add(pending)
        self._channel.send(data)

    async def _copy_and_send(self, pending: Pending, header: list[Any], load: Load) -> None:
        """Copy in a thread: 100 MB take 10 ms or more, and numpy lets go of the interpreter lock for it."""
        failed: Exception | None = None
        try:
            await self._loop.run_in_executor(None, load.copy)
        except NodeError as error:  # what was to be copied lies in a file, and is gone or damaged
            # Its frames hold the segment, and an error may be kept for long.
            failed = error.with_traceback(None)
            failed.__cause__ = failed.__context__ = None
        if not self._channel.is_open:
            return  # the worker is lost, and with it the segments
        waits = self._pending.get(pending.number) is pending
        if not waits or pending.cancelled is not None:
            self._bulk.take_back(load.segments)
            if waits:
                del self._pending[pending.number]
                pending.end(None, CancelledError(pending.cancelled or ""))
            return
        pending.is_sent = True
        if failed is None:
            try:
                self._send_bulk(pending, header, load.places, load.inline)
                return
            except wire.EncodeError as error:
                failed = error
        self._bulk.take_back(load.segments)
        del self._pending[pending.number]
        pending.end(None, failed)

    def _expire(self, pending: Pending, timeout_s: float) -> None:
        self.cancel(pending.number, f"took longer than {timeout_s:g} s")
        pending.end(None, CallTimeoutError(f"the call took longer than {timeout_s:g} s"))

    # -- receiving -------------------------------------------------------------------------------------------

    def _on_frame(self, header: list[Any], tail: bytearray, tagged: bool) -> None:
        found = self._kinds.get(header[0])
        try:
            if found is not None and self.hello is not None:
                found(header, tail, tagged)
            else:
                self._on_first_frame(header)
        except _MALFORMED as error:
            raise wire.ProtocolError(
                f"a frame of kind {ascii(header[0])[:40]} is malformed: {error}"
            ) from error

    def _on_first_frame(self, header: list[Any]) -> None:
        if header[0] == "protocol_error":
            raise wire.ProtocolError(f"the worker says: {str(header[2])[:1000]}")
        if header[0] != "hello" or self._greeting.done():
            raise wire.ProtocolError(f"a frame of the unknown kind {ascii(header[0])[:40]}")
        self._greeting.set_result(read_hello(header[2]))

    def _on_protocol_error(self, header: list[Any], tail: bytearray, tagged: bool) -> None:
        raise wire.ProtocolError(f"the worker says: {str(header[2])[:1000]}")

    # -- the end ---------------------------------------------------------------------------------------------

    def _on_end(self, broken: wire.ProtocolError | None) -> None:
        error = None if broken is None else WireError(f"a worker broke the wire protocol: {broken}")
        try:
            self._close_output()
        finally:  # even when nobody could write down its last words
            self._lose(error or WorkerLostError("the worker closed its connection"))
            if not self._keeps_calls and self._lost is not None:
                self._answers.fail(self._lost)
            self._on_lost(error)

    def _lose(self, error: Exception) -> None:
        """Take no more requests."""
        self._lost = error
        if isinstance(error, WireError):
            self._lost = WorkerLostError(error.message, code="worker.protocol", details=error.details)
            self._lost.__cause__ = error
        self._bulk.close()
        resolve(self._greeting, None, error)
        self._pings.fail(self._lost)
