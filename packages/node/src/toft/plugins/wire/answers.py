"""The requests of one connection that wait for an answer, and what the worker's frames do to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from toft.plugins.packed import Packed
from toft.plugins.wire.streams import Flow
from toft_sdk import errors as sdk_errors
from toft_sdk import wire

OnProgress = Callable[[float, str], None]
OnUsage = Callable[[dict[str, float]], None]
OnEnd = Callable[[Any, Exception | None], None]


class Pending:
    """A request whose answer is still to come."""

    __slots__ = ("cancelled", "is_raw", "is_sent", "number", "on_end", "on_progress", "on_usage", "stream")

    def __init__(
        self,
        number: int,
        on_end: OnEnd | None,
        on_progress: OnProgress | None,
        on_usage: OnUsage | None,
        stream: Flow | None = None,
        is_raw: bool = False,
    ) -> None:
        self.number = number
        self.on_end = on_end
        self.on_progress = on_progress
        self.on_usage = on_usage
        self.stream = stream
        self.is_raw = is_raw
        self.is_sent = True  # False while a large value is still being copied
        self.cancelled: str | None = None  # why, when that was before it was sent

    def end(self, value: Any, error: Exception | None) -> None:
        """Give the answer to whoever waits for it."""
        if self.stream is not None:
            self.stream.finish(error)
        if self.on_end is not None:
            try:
                self.on_end(value, error)
            except (ValueError, TypeError, IndexError) as failed:
                # Its own fault; further out it would be taken for a malformed frame of the worker.
                raise RuntimeError("who waited for an answer failed when it came") from failed


class Answers:
    """The table of requests by number.

    Args:
        lease: Returns what the worker put into a segment.

    Attributes:
        pending: What still waits.
        kinds: What to do with each kind of frame that belongs to a request.
    """

    def __init__(self, lease: Callable[[int, int], Any]) -> None:
        self._lease = lease
        self._loop = asyncio.get_running_loop()
        self.pending: dict[int, Pending] = {}
        self._last = 0
        self.kinds: dict[str, Callable[[list[Any], bytearray, bool], None]] = {
            "result": self._on_result,
            "error": self._on_error,
            "chunk": self._on_chunk,
            "progress": self._on_progress,
            "usage": self._on_usage,
        }

    def add(self, pending: Pending) -> None:
        """Take note of a request that goes out."""
        number = pending.number
        self.pending[number] = pending
        if number > self._last:
            self._last = number

    def fail(self, error: Exception) -> None:
        """End all of them: no answer will come."""
        waiting = list(self.pending.values())
        self.pending.clear()
        for pending in waiting:
            pending.end(None, error)

    def find(self, number: int) -> Pending | None:
        pending = self.pending.get(number)
        if pending is None and (number > self._last or number < 1):
            raise wire.ProtocolError(f"an answer to the call {number}, which was never made")
        return pending

    def _value(self, header: list[Any], tail: bytearray, tagged: bool) -> Any:
        tree = header[2]
        if not tagged and not tail:
            return tree
        return wire.decode(tree, wire.slices(header[3], tail, self._lease) if len(header) > 3 else ())

    def _packed(self, header: list[Any], tail: bytearray, tagged: bool) -> Packed:
        """Return a value as it came: what lies in segments stays there until it is released."""
        buffers = wire.slices(header[3], tail, self._lease) if len(header) > 3 else ()
        return Packed(header[2], buffers, is_tagged=tagged)

    def _on_result(self, header: list[Any], tail: bytearray, tagged: bool) -> None:
        pending = self.find(header[1])
        if pending is None:
            return
        value = self._packed(header, tail, tagged) if pending.is_raw else self._value(header, tail, tagged)
        del self.pending[pending.number]
        pending.end(value, None)

    def _on_error(self, header: list[Any], tail: bytearray, tagged: bool) -> None:
        pending = self.find(header[1])
        if pending is None:
            return
        if not isinstance(header[2], dict):
            raise wire.ProtocolError("an error is not an object")
        error = sdk_errors.from_dict(header[2])
        del self.pending[pending.number]
        pending.end(None, error)

    def _on_chunk(self, header: list[Any], tail: bytearray, tagged: bool) -> None:
        pending = self.find(header[1])
        if pending is None:
            return
        if pending.stream is None:
            raise wire.ProtocolError(f"a chunk for the call {header[1]}, which is no stream")
        pending.stream.feed(self._value(header, tail, tagged))

    def _on_progress(self, header: list[Any], tail: bytearray, tagged: bool) -> None:
        pending = self.find(header[1])
        share, text = float(header[2]), str(header[3])
        if pending is not None and pending.on_progress is not None:
            # Not called from here: what it raises is its own fault, not the worker's.
            self._loop.call_soon(pending.on_progress, share, text)

    def _on_usage(self, header: list[Any], tail: bytearray, tagged: bool) -> None:
        pending = self.find(header[1])
        units = {str(unit): float(count) for unit, count in dict(header[2]).items()}
        if pending is not None and pending.on_usage is not None:
            self._loop.call_soon(pending.on_usage, units)


def resolve(future: asyncio.Future[Any], value: Any, error: Exception | None) -> None:
    """Give an answer to a future, unless its waiter has gone."""
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
        future.exception()  # may have no waiter
