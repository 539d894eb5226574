"""Mapped memory that bulk values travel in: made here, sealed, reused, bounded in total.

A segment belongs to one connection for its whole life: a worker keeps its mapping whatever we do, so memory
that one worker has seen never carries what belongs to another. At any moment one side holds a segment. Arrays
arrive as views of it, without a copy; it is free again when the last view is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from toft.plugins.wire.memory import Load, Segment
from toft_sdk import wire
from toft_sdk.errors import ResourceError

_MAX_POOL_BYTES = 8 << 30
_LEAST_POOL_BYTES = 2 << 30  # half of it holds a value of one gigabyte
_MAX_WAITING = 1024


class SegmentPool:
    """What the segments of all workers together may take.

    Args:
        max_bytes: Bound for all of them; one worker may take half of it. None: half of this machine's memory,
            at most 8 GiB.
        idle_bytes: What may be kept for reuse while nothing is in it.
        patience_s: How long a worker with a result waits while nothing comes back.
    """

    def __init__(
        self, *, max_bytes: int | None = None, idle_bytes: int = 512 << 20, patience_s: float = 10.0
    ) -> None:
        self.patience_s = patience_s
        self.max_bytes = _default_bytes() if max_bytes is None else max_bytes
        self.idle_bytes = idle_bytes
        self.used_bytes = 0
        self._late: deque[int] = deque()

    def reserve(self, size: int) -> None:
        """Take note of a new segment, or refuse it."""
        self._collect()
        if self.used_bytes + size > self.max_bytes:
            raise ResourceError(
                f"a value needs a segment of {size} bytes; {self.used_bytes} of {self.max_bytes} are in use",
                resource="system_ram",
                needed_bytes=size,
                available_bytes=self.max_bytes - self.used_bytes,
                code="wire.segments",
            )
        self.used_bytes += size

    def free(self, size: int) -> None:
        """Take note that a segment is gone."""
        self.used_bytes -= size

    def free_late(self, size: int) -> None:
        """The same, from any thread and from inside the garbage collector."""
        self._late.append(size)

    def _collect(self) -> None:
        while self._late:
            self.used_bytes -= self._late.popleft()


def _rounded(size: int) -> int:
    """Return the size of the segment for a value: powers of two, so that few sizes serve all."""
    return max(wire.INLINE_BYTES, 1 << (size - 1).bit_length())


def _default_bytes() -> int:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(_MAX_POOL_BYTES, max(_LEAST_POOL_BYTES, memory // 2))


class Segments:
    """The segments of one connection.

    Args:
        pool: The bound they share with others.
        announce: Sends a header, with a descriptor when the segment is new to the worker.
        loop: Where `collect` runs when memory came back from another thread.
    """

    def __init__(
        self,
        pool: SegmentPool,
        announce: Callable[[list[Any], Iterable[int]], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._pool = pool
        self._announce = announce
        self._loop = loop
        self._numbers = 0
        self._own_bytes = 0
        self._idle_bytes = 0
        self._free: dict[int, list[Segment]] = {}
        self._held: dict[int, Segment] = {}
        self._returned: deque[Segment] = deque()
        self._views: dict[int, weakref.ref[Any]] = {}
        self._wants: deque[tuple[int, int]] = deque()
        self._patience: asyncio.TimerHandle | None = None
        self._is_closed = False

    # -- towards the worker ----------------------------------------------------------------------------------

    def hand_over(self, size: int) -> Segment:
        """Return a free segment of at least this size; the worker holds it from now on and knows it.

        Raises:
            ResourceError: There is no room for it.
        """
        self._take_returned()
        rounded = _rounded(size)
        free = self._free.get(rounded)
        if free:
            segment = free.pop()
            self._idle_bytes -= segment.size
        else:
            segment = self._make(rounded)
        self._held[segment.number] = segment
        return segment

    def _make(self, size: int) -> Segment:
        if self._own_bytes + size > self._pool.max_bytes // 2:
            self._trim(0)
        if self._own_bytes + size > self._pool.max_bytes // 2:
            raise ResourceError(
                f"a value needs a segment of {size} bytes, and its worker has {self._own_bytes} in use; "
                f"one worker may have {self._pool.max_bytes // 2}",
                needed_bytes=size,
                code="wire.segments",
            )
        try:
            self._pool.reserve(size)
        except ResourceError:
            self._trim(0)
            self._pool.reserve(size)
        self._own_bytes += size
        self._numbers += 1
        try:
            segment = Segment(self._numbers, size)
        except OSError as error:
            self._forget(size)
            raise ResourceError(f"no segment of {size} bytes: {error}", needed_bytes=size) from error
        self._announce(["segment", segment.number, size], [segment.fd])
        segment.announced()
        return segment

    def allot(self, buffers: list[Any]) -> Load:
        """Give each buffer its place; nothing is copied yet.

        Raises:
            ResourceError: There is no room; nothing was taken.
        """
        load = Load()
        try:
            for data in buffers:
                size = size_of(data)
                if size < wire.INLINE_BYTES:
                    load.add_inline(data.to_bytes() if hasattr(data, "copy_into") else data)
                else:
                    load.add(data, size, self.hand_over(size))
        except ResourceError:
            self.take_back(load.segments)
            raise
        return load

    def on_want(self, header: list[Any], tail: Any, tagged: bool) -> None:
        """Give the worker a segment for a result, or say why not."""
        size = header[2]
        if type(size) is not int or not 0 < size <= 1 << 46:
            raise wire.ProtocolError("a worker wants a segment of no size")
        if len(self._wants) >= _MAX_WAITING:
            raise wire.ProtocolError("a worker wants more and more segments")
        if _rounded(size) > self._pool.max_bytes // 2:
            reason = f"a value of {size} bytes; one worker may have {self._pool.max_bytes // 2} in segments"
            self._announce(["grant", header[1], reason], ())
            return
        self._wants.append((header[1], size))
        self._serve_wants()

    def _serve_wants(self, *, at_once: bool = False) -> None:
        """Grant what there is room for, in order.

        A worker waits until its caller has let go of something: so a stream of arrays is slowed down. When
        nothing came back for a while, or `at_once`, it is told why there is none.
        """
        served = False
        while self._wants:
            token, size = self._wants[0]
            try:
                answer: Any = self.hand_over(size).number
            except ResourceError as error:
                if not at_once:
                    break
                answer = error.message
            self._wants.popleft()
            self._announce(["grant", token, answer], ())
            served = True
        if self._patience is not None and (served or not self._wants):
            self._patience.cancel()
            self._patience = None
        if self._wants and self._patience is None:
            self._patience = self._loop.call_later(self._pool.patience_s, self._lose_patience)

    def _lose_patience(self) -> None:
        self._patience = None
        self._serve_wants(at_once=True)

    # -- from the worker -------------------------------------------------------------------------------------

    def on_release(self, header: list[Any], tail: Any, tagged: bool) -> None:
        """Take segments back that the worker is done with."""
        self.take_back(list(header[2]))
        self.collect()

    def take_back(self, numbers: list[int]) -> None:
        """Put segments among the free ones."""
        for number in numbers:
            self._add_free(self._take(number))

    def _take(self, number: int) -> Segment:
        segment = self._held.pop(number, None)
        if segment is None:
            raise wire.ProtocolError(
                f"the worker names the segment {ascii(number)[:20]}, which it does not hold"
            )
        return segment

    def lease(self, number: int, size: int) -> Lease:
        """Return what the worker put into a segment; it is ours from now on."""
        segment = self._take(number)
        if not 0 <= size <= segment.size:
            raise wire.ProtocolError("a buffer is larger than its segment")
        return Lease(self, segment, size)

    def watch(self, segment: Segment, view: Any) -> None:
        """Take a segment back when `view` is gone."""

        def gone(_: object) -> None:
            self._views.pop(segment.number, None)
            self.dropped(segment)

        self._views[segment.number] = weakref.ref(view, gone)

    def dropped(self, segment: Segment) -> None:
        """Take a segment back in any thread, wherever its last reader was forgotten: only take note."""
        if self._is_closed:
            self._pool.free_late(segment.size)
            return
        self._returned.append(segment)
        if self._wants or self._idle_bytes + segment.size > self._pool.idle_bytes:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and so will be everything here
                self._loop.call_soon_threadsafe(self.collect)

    def collect(self) -> None:
        """Put what came back among the free ones, serve who waits for it, and give up what is too much."""
        if self._is_closed:
            return
        self._take_returned()
        self._serve_wants()
        self._trim(self._pool.idle_bytes)

    def _take_returned(self) -> None:
        while self._returned:
            self._add_free(self._returned.popleft())

    def put_back(self, segment: Segment) -> None:
        """Put one segment among the free ones; when the worker is gone meanwhile, it is gone too."""
        if self._is_closed:
            self._forget(segment.size)
            return
        self._add_free(segment)
        self.collect()

    def _add_free(self, segment: Segment) -> None:
        self._free.setdefault(segment.size, []).append(segment)
        self._idle_bytes += segment.size

    def _trim(self, allowed: int) -> None:
        while self._idle_bytes > allowed:
            size = max(size for size, free in self._free.items() if free)
            segment = self._free[size].pop(0)
            self._idle_bytes -= size
            self._forget(size)
            if not self._is_closed:
                self._announce(["forget", segment.number], ())

    def _forget(self, size: int) -> None:
        self._own_bytes -= size
        self._pool.free(size)

    def close(self) -> None:
        """Free everything; views that callers still have stay valid, and are counted until they are gone."""
        if self._is_closed:
            return
        self._is_closed = True
        for segment in self._held.values():
            self._forget(segment.size)
        self._held.clear()
        self._take_returned()
        self._trim(0)
        self._wants.clear()
        if self._patience is not None:
            self._patience.cancel()


def size_of(data: Any) -> int:
    """Return the bytes a buffer takes."""
    return int(data.nbytes) if hasattr(data, "nbytes") else len(data)


class Lease:
    """One buffer of a result, until it is copied or its view is gone."""

    __slots__ = ("_segment", "_segments", "is_taken", "size")

    def __init__(self, segments: Segments, segment: Segment, size: int) -> None:
        self._segments = segments
        self._segment = segment
        self.size = size
        self.is_taken = False

    def view(self) -> memoryview:
        """Return the bytes, to be copied now."""
        return memoryview(self._segment.map)[: self.size]

    def forget_pages(self, start: int, end: int) -> None:
        """Let the pages that are read go out of this process; the memory itself keeps what it holds."""
        self._segment.forget_pages(start, end)

    def array(self, np: Any) -> Any:
        """Return the bytes as a flat array without a copy; the lease lasts as long as it and its views."""
        if self.is_taken:
            raise ValueError("two arrays name one buffer")
        self.is_taken = True
        flat = np.frombuffer(self._segment.map, np.uint8, self.size)
        self._segments.watch(self._segment, flat)
        return flat

    def release(self) -> None:
        """Take the segment back, unless an array lives in it."""
        if not self.is_taken:
            self.is_taken = True
            self._segments.put_back(self._segment)

    def __del__(self) -> None:
        if not self.is_taken:
            # An answer that nobody wanted any more.
            self._segments.dropped(self._segment)
