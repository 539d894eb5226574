"""Bulk values through mapped memory, on the worker's side.

Every segment is made by the host and sealed at its size, so nobody can pull it away under anybody. At any
moment one side holds a segment: the host hands it over with the frame that names it, the worker gives it back
when the value that lies in it is gone, or hands it over again as a result.
"""

from __future__ import annotations

import mmap
import os
from _weakref import ref
from collections import deque
from itertools import count

from toft_sdk.errors import ResourceError
from toft_sdk.wire import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    from toft_sdk.calls import WorkerCall
    from toft_sdk.link import Link


class Segments:
    """The segments that the host has told this worker of.

    Args:
        link: The socket to the host.
    """

    def __init__(self, link: Link) -> None:
        self.returned: deque[int] = deque()
        self._link = link
        self._maps: dict[int, Any] = {}
        self._views: dict[int, Any] = {}
        self._grants: dict[int, Any] = {}
        self._waiting: dict[int, WorkerCall] = {}
        self._tokens = count(1)

    def on_segment(self, header: list[Any], _: Any) -> None:
        """Map a segment whose descriptor came along."""
        _, number, size = header
        fd = self._link.fds.pop(0)
        try:
            self._maps[number] = mmap.mmap(fd, size)
        finally:
            os.close(fd)

    def on_forget(self, header: list[Any], _: Any) -> None:
        """Unmap a segment that the host has given up; it held nothing."""
        self._maps.pop(header[1], None)

    def on_grant(self, header: list[Any], _: Any) -> None:
        """Take note of the answer to a want: a number, or why there is none."""
        self._grants[header[1]] = header[2]
        self._waiting.pop(header[1]).wake()

    def lease(self, number: int, size: int) -> Lease:
        """Return what the host put into a segment."""
        whole = self._maps.get(number)
        if whole is None or not 0 <= size <= len(whole):
            raise ProtocolError(f"the host names the segment {number}, which it never sent")
        return Lease(self, number, whole, size)

    def put(self, data: Any, size: int, call: WorkerCall, wait: Callable[[WorkerCall], None]) -> list[int]:
        """Copy a buffer into a segment asked for from the host; return its place."""
        self.give_back()
        token = next(self._tokens)
        self._waiting[token] = call
        self._link.send(["want", token, size])
        while token not in self._grants:
            wait(call)
        granted = self._grants.pop(token)
        if type(granted) is not int:
            raise ResourceError(str(granted), resource="system_ram", needed_bytes=size, code="wire.segments")
        try:
            with memoryview(self._maps[granted]) as whole, whole[:size] as target:
                if hasattr(data, "copy_into"):
                    data.copy_into(target)
                else:
                    target[:] = data
        except BaseException:
            self.returned.append(granted)
            raise
        return [granted, size]

    def watch(self, number: int, view: Any) -> None:
        """Give a segment back when `view` is gone."""
        # Only noted here: this runs wherever the last reference dies, in the middle of a send as well.
        self._views[number] = ref(view, lambda _: self.returned.append(number))

    def give_back(self) -> None:
        """Tell the host which segments are free again."""
        returned = self.returned
        if not returned:
            return
        numbers = []
        try:
            while True:
                numbers.append(returned.popleft())
        except IndexError:  # empty, perhaps by another thread
            pass
        if numbers:
            self._link.send(["release", 0, numbers])


class Lease:
    """One buffer in a segment, until it is copied or its view is gone."""

    __slots__ = ("_number", "_segments", "_whole", "is_taken", "size")

    def __init__(self, segments: Segments, number: int, whole: Any, size: int) -> None:
        self._segments = segments
        self._number = number
        self._whole = whole
        self.size = size
        self.is_taken = False

    def view(self) -> memoryview:
        """Return the bytes, to be copied now."""
        return memoryview(self._whole)[: self.size]

    def array(self, np: Any) -> Any:
        """Return the bytes as a flat array without a copy; the lease lasts as long as it and its views."""
        if self.is_taken:
            raise ValueError("two arrays name one buffer")
        self.is_taken = True
        flat = np.frombuffer(self._whole, np.uint8, self.size)
        self._segments.watch(self._number, flat)
        return flat

    def release(self) -> None:
        """Give the segment back, unless an array lives in it."""
        if not self.is_taken:
            self.is_taken = True
            self._segments.returned.append(self._number)
