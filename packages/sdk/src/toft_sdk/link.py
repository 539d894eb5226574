"""The worker's end of the socket: whole frames in, whole frames out, from any thread."""

from __future__ import annotations

import fcntl
import os
import sys
from _thread import allocate_lock
from time import monotonic

from toft_sdk.codec import dumps
from toft_sdk.wire import MAX_HEADER, PREFIX, FrameBuffer, pack

try:  # `socket` costs 8 ms at each start of a worker; its C half is all that is needed here.
    import _socket as sockets
except ImportError:
    import socket as sockets  # type: ignore[no-redef]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Sequence

_FDS_ROOM = sockets.CMSG_SPACE(4 * 16)

# A core that fell asleep takes some 30 us to wake up, on either side. A host that calls in a tight loop is
# back within a tenth of a millisecond, so a worker that was asked again so soon looks for as long, no longer.
_LOOK_S = 150e-6
_SOON_S = 300e-6

_HIGH = (700, 200, 100, 3)  # where descriptors go, so that a plugin that writes to fd 3 does not hit them


def above(fd: int) -> int:
    """Move a descriptor out of the plugin's way; children do not inherit it."""
    for lowest in _HIGH:
        try:
            moved: int = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)
        except OSError:
            continue  # above what this process may have open
        os.close(fd)
        return moved
    return fd


class Link:
    """A socket that speaks in frames.

    Attributes:
        fds: File descriptors that arrived and that no frame has claimed yet, oldest first.
    """

    def __init__(self, fd: int) -> None:
        self._socket = sockets.socket(fileno=above(fd))
        self._socket.setblocking(True)
        self._sendall: Callable[[bytes], None] = self._socket.sendall
        self._frames = FrameBuffer()
        self._write_lock = allocate_lock()
        self.fds: list[int] = []
        self._is_detached = False
        self._is_soon = False
        self._may_look = hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) > 1

    def fileno(self) -> int:
        """Return the descriptor, for waiting."""
        return self._socket.fileno()

    def send(self, header: list[Any], inline: Sequence[Any] = ()) -> None:
        """Send one frame; waits while the host does not read.

        Raises:
            EncodeError: It is larger than a frame may be.
        """
        text = dumps(header).encode("ascii")
        if inline or len(text) > MAX_HEADER:  # noqa: SIM108 - reads better in two lines
            data = pack(header, inline)
        else:
            data = PREFIX.pack(len(text), 0) + text
        with self._write_lock:
            try:  # noqa: SIM105 - contextlib costs a worker 3 ms
                self._sendall(data)
            except ConnectionError:
                pass  # the host is gone; whoever reads finds out and ends the process

    def detach(self) -> bool:
        """Let go of the socket in a forked process: what is sent goes nowhere. False when that was done."""
        if self._is_detached:
            return False
        self._is_detached = True
        self._write_lock = allocate_lock()
        os.close(self._socket.detach())
        self._sendall = lambda data: None
        return True

    def receive_next(self) -> bool:
        """Wait for the next request of a host that may call in a tight loop; False when the host is gone."""
        began = monotonic()
        if self._is_soon and self._may_look:
            while monotonic() - began < _LOOK_S:
                try:
                    return self._receive(sockets.MSG_CMSG_CLOEXEC | sockets.MSG_DONTWAIT)
                except BlockingIOError:
                    pass
        is_there = self.receive()
        self._is_soon = monotonic() - began < _SOON_S
        return is_there

    def receive(self) -> bool:
        """Wait for bytes and take them in; False when the host is gone."""
        return self._receive(sockets.MSG_CMSG_CLOEXEC)

    def _receive(self, flags: int) -> bool:
        try:
            count, messages, _, _ = self._socket.recvmsg_into([self._frames.room()], _FDS_ROOM, flags)
        except ConnectionError:
            return False
        if messages:
            for _, _, data in messages:
                for at in range(0, len(data) - 3, 4):
                    self.fds.append(int.from_bytes(data[at : at + 4], sys.byteorder))
        self._frames.filled(count)
        return count > 0

    def take(self) -> tuple[list[Any], bytearray, bool] | None:
        """Return the next whole frame that arrived, or None."""
        return self._frames.take()
