"""The host's end of a socket: frames out without blocking, frames in as the event loop finds them.

No asyncio transport: a frame goes to the kernel in the call that sends it, and is taken in the callback
that found the socket readable. What the peer does not take waits in a bounded queue.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from toft_sdk import wire

HIGH_WATER = 4 << 20
_READS_PER_WAKE = 4


class Channel:
    """One non-blocking socket on the running loop.

    Args:
        sock: A stream socket; the channel owns it from now on.
        on_frame: Called with the header, the tail and whether the header may hold tags.
        on_end: Called once: with None at end of file, with the error when the peer broke the protocol.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_frame: Callable[[list[Any], bytearray, bool], None],
        on_end: Callable[[wire.ProtocolError | None], None],
    ) -> None:
        self._sock = sock
        self._on_frame = on_frame
        self._on_end = on_end
        self._frames = wire.FrameBuffer()
        self._queue: deque[tuple[memoryview, list[int]]] = deque()
        self._queued = 0
        self._drained: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self.is_open = True
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._on_readable)

    @property
    def is_full(self) -> bool:
        """Whether a sender should wait for `drain` first."""
        return self._queued > HIGH_WATER

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Hand bytes to the kernel, keep what it does not take.

        Args:
            data: One or more whole frames.
            fds: Descriptors that go with the first of the bytes; copied, so the caller may close them.
        """
        if not self.is_open:
            return
        if fds:
            self._send_with(data, fds)
            return
        sent = 0
        if not self._queue:
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                pass
            except OSError:
                return  # the reader finds out and says so
            if sent == len(data):
                return
            self._loop.add_writer(self._sock.fileno(), self._on_writable)
        self._queue.append((memoryview(data)[sent:], []))
        self._queued += len(data) - sent

    def _send_with(self, data: bytes, fds: Sequence[int]) -> None:
        if not self._queue:
            try:
                sent = socket.send_fds(self._sock, [data], list(fds))
            except BlockingIOError:
                sent = 0
            except OSError:
                return
            if sent:
                if sent < len(data):
                    self.send(data[sent:])
                return
            self._loop.add_writer(self._sock.fileno(), self._on_writable)
        self._queue.append((memoryview(data), [os.dup(fd) for fd in fds]))
        self._queued += len(data)

    async def drain(self) -> None:
        """Wait until the peer has taken enough; returns at once when the channel is closed."""
        while self.is_open and self._queued > HIGH_WATER:
            if self._drained is None:
                self._drained = self._loop.create_future()
            await asyncio.shield(self._drained)

    def close(self) -> None:
        """Close the socket; `on_end` is not called."""
        if not self.is_open:
            return
        self.is_open = False
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._forget_queue()
        self._release()

    def _forget_queue(self) -> None:
        for _, fds in self._queue:
            for fd in fds:
                os.close(fd)
        self._queue.clear()
        self._queued = 0

    def _release(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def _end(self, error: wire.ProtocolError | None) -> None:
        if self.is_open:
            self.close()
            self._on_end(error)

    def _on_readable(self) -> None:
        frames = self._frames
        for _ in range(_READS_PER_WAKE):
            room = frames.room()
            try:
                count = self._sock.recv_into(room)
            except BlockingIOError:
                return
            except OSError:
                count = 0
            if count == 0:
                self._end(None)
                return
            frames.filled(count)
            self._take_frames()
            if not self.is_open or count < len(room):
                return

    def _take_frames(self) -> None:
        try:
            while self.is_open and (frame := self._frames.take()) is not None:
                self._on_frame(*frame)
        except wire.ProtocolError as error:
            self._end(error)
        except BaseException:
            # Whoever was told of a frame failed, a full disk say: the frames behind it still count.
            self._loop.call_soon(self._take_frames)
            raise

    def _on_writable(self) -> None:
        queue = self._queue
        while queue:
            data, fds = queue[0]
            try:
                sent = socket.send_fds(self._sock, [data], fds) if fds else self._sock.send(data)
            except BlockingIOError:
                return
            except OSError:
                self._forget_queue()
                break
            for fd in fds:
                os.close(fd)
            self._queued -= sent
            if sent < len(data):
                queue[0] = (data[sent:], [])
                return
            queue.popleft()
        self._loop.remove_writer(self._sock.fileno())
        self._release()
