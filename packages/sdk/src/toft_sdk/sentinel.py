"""The thread beside the main one: reads the socket while a call runs long, and takes in what is printed.

It ticks while the worker is in use and sleeps in `poll` when it is not, so an idle worker costs nothing.
"""

from __future__ import annotations

import os
import select
from _thread import allocate_lock, start_new_thread
from time import sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

    from toft_sdk.calls import WorkerCall
    from toft_sdk.capture import Capture
    from toft_sdk.segments import Segments

_TICK_S = 0.003
_PARK_AFTER = 300  # ticks without a call: about a second
_LOOK_MS = 50


class Sentinel:
    """Ticks while the worker is in use, parks when it is idle, reads when a call lasts longer than a tick.

    Args:
        socket: Descriptor to wait for.
        read: Takes in what the socket has; called with the read lock held.
        glance: The same, for a main thread that goes on by itself.
        relieve: Takes what waits away from a main thread that does not.
        above: Returns a copy of a descriptor out of the plugin's reach.
        give_up: Ends the process: without this thread it would be deaf in every call.

    Attributes:
        is_busy: Whether the main thread is inside a request; set by the main thread.
        current: The number of that request; set by the main thread.
        running: The requests that run now, by number.
        read_lock: Held by whoever reads the socket.
        capture: What the plugin prints; None when the host made no pipes.
        segments: Bulk memory; None until there is a large value.
    """

    def __init__(
        self,
        socket: int,
        read: Callable[[], None],
        glance: Callable[[], None],
        relieve: Callable[[], None],
        above: Callable[[int], int],
        give_up: Callable[[], None],
    ) -> None:
        self.is_busy = False
        self.current = 0
        self.running: dict[int, WorkerCall] = {}
        self.read_lock = allocate_lock()
        self.capture: Capture | None = None
        self.segments: Segments | None = None
        self._socket = socket
        self._take_in = read
        self._glance = glance
        self._relieve = relieve
        self._give_up = give_up
        self._is_parked = True
        self._is_started = False
        read_end, write_end = os.pipe()
        self._wake_read, self._wake_write = above(read_end), above(write_end)
        os.set_blocking(self._wake_read, False)

    def tag(self) -> int:
        """Return the number of the only running call, else 0."""
        numbers = list(self.running)
        return numbers[0] if len(numbers) == 1 else 0

    def start(self) -> None:
        """Start the thread; it parks at once."""
        self._is_started = True
        start_new_thread(self._run, ())

    def watch(self) -> None:
        """Called when the main thread starts to run a call."""
        if self._is_parked and self._is_started:
            self._is_parked = False
            self._wake()

    def give_back(self) -> None:
        """Take the socket back for the main thread; returns holding the read lock."""
        self._wake()
        self.read_lock.acquire()

    def fds(self) -> list[int]:
        """Return its descriptors."""
        return [self._wake_read, self._wake_write]

    def _wake(self) -> None:
        os.write(self._wake_write, b"x")

    def _run(self) -> None:
        try:
            self._loop()
        except BaseException:  # noqa: BLE001 - the worker loop: nobody else would hear of it
            self._give_up()

    def _loop(self) -> None:
        poller = select.poll()
        poller.register(self._wake_read, select.POLLIN)
        if self.capture is not None:
            for fd in self.capture.fds:
                poller.register(fd, select.POLLIN)
        while True:
            poller.poll()
            self._drain()
            self._is_parked = False
            idle = 0
            while idle < _PARK_AFTER:
                was_busy, before = self.is_busy, self.current
                # Lines are taken in by the tick and not as they come: waking up for each line of a plugin
                # that prints a lot would halve its speed.
                if self.capture is not None:
                    self.capture.take_in()
                sleep(_TICK_S)
                self._flush()
                if not self.is_busy:
                    idle = idle + 1
                    continue
                idle = 0
                if was_busy and self.read_lock.acquire(False):
                    try:
                        if self.current != before:
                            self._look(poller)
                        else:
                            self._relieve()
                            self._read(poller)
                    finally:
                        self.read_lock.release()
            self._is_parked = True
            if self.is_busy:
                self._wake()  # the main thread may have looked just before

    def _look(self, poller: select.poll) -> None:
        poller.register(self._socket, select.POLLIN)
        if any(fd == self._socket for fd, _ in poller.poll(0)):
            self._glance()
        poller.unregister(self._socket)

    def _read(self, poller: select.poll) -> None:
        poller.register(self._socket, select.POLLIN)
        printing = False
        while self.is_busy:
            if printing:
                sleep(_TICK_S)
            printing = False
            for fd, _ in poller.poll(_LOOK_MS):
                if fd == self._socket:
                    self._take_in()
                elif fd == self._wake_read:
                    self._drain()
                elif self.capture is not None:
                    self.capture.take_in()
                    printing = True
            self._flush()
        self._drain()
        poller.unregister(self._socket)

    def _flush(self) -> None:
        for call in list(self.running.values()):
            call.flush_progress()
        if self.segments is not None:
            self.segments.give_back()

    def _drain(self) -> None:
        try:  # noqa: SIM105 - contextlib costs a worker 3 ms
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            pass
