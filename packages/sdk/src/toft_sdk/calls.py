"""One request inside the worker: what the plugin can tell and ask while it runs, and how it is cancelled."""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread
from time import monotonic

from toft_sdk.codec import dumps
from toft_sdk.context import Call
from toft_sdk.errors import CancelledError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Mapping

    from toft_sdk.link import Link

_PROGRESS_EVERY_S = 0.02
_MAX_TEXT = 8 << 10


class WorkerCall(Call):
    """A request that waits or runs. The reader calls `cancel` and `add_credit`, the runner all else.

    Attributes:
        number: The call number of the host, unique for the life of the connection.
        op: What is asked, such as `call` or `load`.
        window: Chunks the host takes before it says so again; 0 for a request that is no stream.
    """

    # Defaults on the class: most calls never touch them, and a call is made for every request.
    reason: str | None = None
    is_tagged = False
    is_done = False
    buffers: Any = ()
    seen = 0.0
    _next_progress = 0.0
    _pending: tuple[float, str] | None = None
    _callbacks: tuple[Callable[[], object], ...] = ()
    _waiting: Any = None
    _held: dict[str, str] | None = None

    def __init__(self, link: Link, number: int, op: str, window: int, tree: Any) -> None:
        self._link = link
        self.number = number
        self.op = op
        self.window = self.credit = window
        self.tree = tree

    @property
    def has_extras(self) -> bool:
        """Whether it left a line unfinished, or progress that was not sent."""
        return self._pending is not None or bool(self._held)

    @property
    def held(self) -> dict[str, str]:
        """Unfinished lines it printed, by stream; only where several calls run at once."""
        held = self._held
        if held is None:
            held = self._held = {}
        return held

    def progress(self, fraction: float, message: str) -> None:
        """Send progress; of many in a short time only the latest."""
        if self.is_done:
            return  # a thread that outlived its call
        now = self.seen = monotonic()
        # Made sure of here, where the plugin hears of it, and not in the thread that may send it later.
        self._pending = (float(fraction), str(message)[:_MAX_TEXT])
        if now >= self._next_progress:
            self._next_progress = now + _PROGRESS_EVERY_S
            self.flush_progress()

    def flush_progress(self) -> None:
        """Send progress that was held back."""
        if self._pending is None:
            return
        with _progress_lock:  # the sentinel flushes too, and progress must not go backwards
            pending, self._pending = self._pending, None
            if pending is not None:
                fraction = pending[0]
                if not -1.0 <= fraction <= 1.0:
                    fraction = -1.0
                self._link.send(["progress", self.number, fraction, pending[1]])

    def usage(self, units: Mapping[str, float]) -> None:
        """Send what was used."""
        if self.is_done:
            return
        self.seen = monotonic()
        self._link.send(["usage", self.number, {str(unit): float(count) for unit, count in units.items()}])

    def log(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Send a structured line; a field that is not JSON is sent as text."""
        self.seen = monotonic()
        self._link.send(["log", self.number, [["log", str(event)[:_MAX_TEXT], str(level), jsonable(fields)]]])

    def is_cancelled(self) -> bool:
        """Whether somebody cancelled this very call."""
        return self.reason is not None

    def add_cancel_callback(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Run `callback` once in a thread of its own when the call is cancelled."""
        with _callbacks_lock:
            if self.reason is None:
                self._callbacks += (callback,)
                return lambda: self._forget(callback)
        start_new_thread(_run_callbacks, ((callback,),))
        return lambda: None

    def _forget(self, callback: Callable[[], object]) -> None:
        with _callbacks_lock:
            self._callbacks = tuple(each for each in self._callbacks if each is not callback)

    def cancel(self, reason: str) -> None:
        """Mark it cancelled, wake it where it waits for credit, run what it registered."""
        with _callbacks_lock:
            if self.reason is not None:
                return
            self.reason = reason
            callbacks, self._callbacks = self._callbacks, ()
        if callbacks:
            # Not on the reader's thread: a callback may wait for a process, and pings must go on.
            start_new_thread(_run_callbacks, (callbacks,))
        self.wake()

    def cancelled_error(self) -> CancelledError:
        """Return the error a cancelled call ends with."""
        return CancelledError(self.reason or "cancelled")

    def add_credit(self, count: int) -> None:
        """Let the stream go on by so many chunks."""
        self.credit += count
        self.wake()

    def wake(self) -> None:
        """Wake the runner where it waits for the reader."""
        waiting = self._waiting
        if waiting is not None and waiting.locked():
            waiting.release()

    def wait(self, timeout_s: float) -> None:
        """Sleep until `wake`, or for a while; the caller looks again at what it waits for."""
        if self._waiting is None:
            self._waiting = allocate_lock()
            self._waiting.acquire()
            return  # whoever woke us before the lock was there was missed: look once more
        self._waiting.acquire(True, timeout_s)


_callbacks_lock = allocate_lock()
_progress_lock = allocate_lock()


def _run_callbacks(callbacks: tuple[Callable[[], object], ...]) -> None:
    for callback in callbacks:
        callback()


def jsonable(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields with every value that is not JSON as text."""
    safe: dict[str, Any] = {}
    for name, value in fields.items():
        try:
            dumps(value)
        except (TypeError, ValueError, RecursionError):
            value = repr(value)[:_MAX_TEXT]
        safe[str(name)] = value
    return safe
