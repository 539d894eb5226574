"""The thread that reads the socket while the main thread is inside a call, and only then."""

from __future__ import annotations

import os
import select
from _thread import allocate_lock, start_new_thread
from time import sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

    from toft_sdk.calls import WorkerCall

_TICK_S = 0.003
_PARK_AFTER = 300  # ticks without a call: about a second


class Sentinel:
    """Ticks while the worker is in use, parks when it is idle, reads when a call lasts longer than a tick.

    Args:
        socket: Descriptor to wait for.
        read: Takes in what the socket has; called with the read lock held.

    Attributes:
        is_busy: Whether the main thread is inside a request; set by the main thread.
        running: The requests that run now, by number.
        read_lock: Held by whoever reads the socket.
    """

    def __init__(self, socket: int, read: Callable[[], None]) -> None:
        self.is_busy = False
        self.running: dict[int, WorkerCall] = {}
        self.read_lock = allocate_lock()
        self._socket = socket
        self._take_in = read
        self._parked = allocate_lock()
        self._parked.acquire()
        self._is_parked = True
        self._is_started = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)

    def watch(self) -> None:
        """Called when the main thread starts to run a call."""
        if self._is_parked:
            self._is_parked = False
            if self._is_started:
                self._parked.release()
            else:
                self._is_started = True
                start_new_thread(self._loop, ())

    def give_back(self) -> None:
        """Take the socket back for the main thread; returns holding the read lock."""
        os.write(self._wake_write, b"x")
        self.read_lock.acquire()

    def _loop(self) -> None:
        while True:
            idle = 0
            while idle < _PARK_AFTER:
                was_busy = self.is_busy
                sleep(_TICK_S)
                for call in list(self.running.values()):
                    call.flush_progress()
                if not self.is_busy:
                    idle += 1
                    continue
                idle = 0
                if was_busy and self.read_lock.acquire(False):
                    try:
                        self._read()
                    finally:
                        self.read_lock.release()
            self._is_parked = True
            self._parked.acquire()

    def _read(self) -> None:
        poller = select.poll()
        poller.register(self._wake_read, select.POLLIN)
        poller.register(self._socket, select.POLLIN)
        while self.is_busy:
            for fd, _ in poller.poll(50):
                if fd == self._socket:
                    self._take_in()
                else:
                    self._drain()
            for call in list(self.running.values()):
                call.flush_progress()
        self._drain()

    def _drain(self) -> None:
        try:  # noqa: SIM105 - contextlib costs a worker 3 ms
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            pass
