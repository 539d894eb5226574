"""One piece of sealed, mapped memory, and the buffers of a value on their way into several."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from typing import Any

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_OFF_LOOP_BYTES = 8 << 20
_CHUNK_BYTES = 4 << 20


class Segment:
    """One sealed piece of memory, mapped here."""

    __slots__ = ("fd", "map", "number", "size")

    def __init__(self, number: int, size: int) -> None:
        self.number = number
        self.size = size
        self.fd = os.memfd_create("toft", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, size)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS)
            self.map = mmap.mmap(self.fd, size)
        except OSError:
            os.close(self.fd)
            raise
        with contextlib.suppress(OSError, AttributeError):
            self.map.madvise(mmap.MADV_HUGEPAGE)

    def forget_pages(self, start: int, end: int) -> None:
        """Unmap the pages that were used last from this process; the memory itself keeps what it holds."""
        start -= start % mmap.PAGESIZE
        if end > start:
            self.map.madvise(mmap.MADV_DONTNEED, start, end - start)

    def announced(self) -> None:
        """Let go of the descriptor: the worker has its own now."""
        os.close(self.fd)
        self.fd = -1


class Load:
    """The buffers of one value on their way to the worker.

    Attributes:
        places: As the header names them.
        inline: What goes into the tail.
        is_large: Whether copying takes so long that it should not happen on the event loop.
    """

    def __init__(self) -> None:
        self.places: list[Any] = []
        self.inline: list[Any] = []
        self.is_large = False
        self._copies: list[tuple[Segment, Any, int]] = []

    @property
    def segments(self) -> list[int]:
        """Numbers of the segments it takes."""
        return [segment.number for segment, _, _ in self._copies]

    def add_inline(self, data: Any) -> None:
        """Take a buffer for the tail."""
        self.inline.append(data)
        self.places.append(len(data))

    def add(self, data: Any, size: int, segment: Segment) -> None:
        """Take a buffer for a segment."""
        self._copies.append((segment, data, size))
        self.places.append([segment.number, size])
        # A file is never read on the event loop, however small the part.
        self.is_large = self.is_large or size >= _OFF_LOOP_BYTES or hasattr(data, "read_into")

    def copy(self) -> None:
        """Copy every buffer to its segment; may run in any thread."""
        for segment, data, size in self._copies:
            with memoryview(segment.map) as whole, whole[:size] as target:
                if hasattr(data, "read_into"):
                    _read(data, segment, target, size)
                elif hasattr(data, "copy_into"):
                    data.copy_into(target)
                else:
                    target[:] = data


def _read(data: Any, segment: Segment, target: memoryview, size: int) -> None:
    """Read a buffer that is still in its file, never with more than a chunk of it in this process."""
    for start in range(0, size, _CHUNK_BYTES):
        end = min(start + _CHUNK_BYTES, size)
        data.read_into(target[start:end], start)
        segment.forget_pages(start, end)
