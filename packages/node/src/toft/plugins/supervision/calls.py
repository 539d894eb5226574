"""One execution on an instance, from the moment it is asked for to its end.

A call ends exactly once, and what it ends with depends on what was asked of it first: a call that was told
to stop is `cancelled` (or timed out) whatever the plugin makes of it afterwards, never `failed`.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Generator, Mapping
from typing import Any, Protocol

from toft.plugins import errors as faults
from toft.plugins.wire.frames import LogLine
from toft_sdk import errors as plugin_errors

OnProgress = Callable[[float, str], object]
OnLog = Callable[[LogLine], object]
OnEnd = Callable[[Any, Exception | None], object]
OnPhase = Callable[[str], object]


class Executor(Protocol):
    """What a call turns to when something happens to it; its supervisor."""

    def cancel(self, call: Call) -> None:
        """Begin to end a call that was asked to stop, or go on faster."""
        ...

    def ended(self, call: Call, result: Any, error: Exception | None) -> None:
        """Take the end of a call that was running."""
        ...


class Phase(enum.StrEnum):
    """How far a call is."""

    WAITING = "waiting"
    RUNNING = "running"
    CANCELLING = "cancelling"
    FORCING = "forcing"
    ENDED = "ended"


class Call:
    """A handle on one execution; `await` it for its result.

    Attributes:
        number: Counts the calls of its instance; log lines carry it.
        action: What is executed.
        phase: How far it is.
        progress: The last fraction the plugin reported, 0 to 1; -1 for no telling; None before the first.
        message: What the plugin said with it.
        usage: What the plugin reported to have used, by unit.
        is_raw: Whether its result is wanted as `toft.plugins.packed.Packed`, to be kept or sent on.
        started_at: Loop time at which it began to run; 0 while it waits.
        seen_at: Loop time of the last sign of life.
    """

    __slots__ = (
        "_asked",
        "_executor",
        "_loop",
        "_on_end",
        "_on_log",
        "_on_phase",
        "_on_progress",
        "_timer",
        "action",
        "arguments",
        "ended_at",
        "future",
        "grace_s",
        "is_raw",
        "message",
        "number",
        "phase",
        "progress",
        "seen_at",
        "started_at",
        "timeout_s",
        "usage",
        "worker",
    )

    def __init__(
        self,
        number: int,
        action: str,
        arguments: Mapping[str, Any],
        executor: Executor,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.number = number
        self.action = action
        self.arguments = arguments
        self.future: asyncio.Future[Any] = loop.create_future()
        self.phase = Phase.WAITING
        self.progress: float | None = None
        self.message = ""
        self.usage: dict[str, float] = {}
        self.started_at = 0.0
        self.seen_at = 0.0
        self.ended_at = 0.0
        self.grace_s: float | None = None
        self.timeout_s: float | None = None
        self.worker: Any = None
        self.is_raw = False
        self._executor = executor
        self._loop = loop
        self._on_progress: OnProgress | None = None
        self._on_log: OnLog | None = None
        self._on_end: OnEnd | None = None
        self._on_phase: OnPhase | None = None
        self._asked: Exception | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the result; a task that is cancelled while it waits cancels the call."""
        return self._wait().__await__()

    async def _wait(self) -> Any:
        try:
            return await self.future
        except asyncio.CancelledError:
            self.cancel("the caller went away")
            raise

    async def result(self, timeout_s: float | None = None) -> Any:
        """Wait for the result.

        Args:
            timeout_s: Seconds to wait; the call goes on when they are over.

        Raises:
            TimeoutError: It has not ended yet.
            PluginError: What the plugin raised; `CancelledError` when it was cancelled.
            WorkerLostError: Its process is gone.
        """
        async with asyncio.timeout(timeout_s):
            return await asyncio.shield(self.future)

    def cancel(self, reason: str = "cancelled", *, grace_s: float | None = None) -> bool:
        """Ask the call to stop; its worker is replaced when it does not within the grace.

        Args:
            reason: For the error and the log.
            grace_s: Seconds it may take to end by itself; 0 replaces the worker at once. A shorter grace may
                be given later.

        Returns:
            False when it has ended already.
        """
        return self.ask_to_end(plugin_errors.CancelledError(reason), grace_s=grace_s)

    def ask_to_end(self, outcome: Exception, *, grace_s: float | None = None) -> bool:
        """Ask the call to stop and say what it ends with; the first outcome stays."""
        if self.phase is Phase.ENDED:
            return False
        if self._asked is None:
            self._asked = outcome
        if grace_s is not None:
            self.grace_s = grace_s
        self._executor.cancel(self)
        return True

    def belongs_to(self, executor: Executor) -> bool:
        """Say whether it is one of this executor's."""
        return self._executor is executor

    @property
    def is_open(self) -> bool:
        """Say whether it has not ended yet."""
        return self.phase is not Phase.ENDED

    @property
    def duration_s(self) -> float:
        """Return the seconds it ran; 0 while it has not ended."""
        return self.ended_at - self.started_at if self.ended_at and self.started_at else 0.0

    def listen(self, on_progress: OnProgress | None, on_log: OnLog | None = None) -> None:
        """Name who is told about progress and lines of output."""
        self._on_progress, self._on_log = on_progress, on_log

    def when_cancelling(self, told: OnPhase) -> None:
        """Name who is told how far a cancel is: `cooperative`, `force`, `reloading`."""
        self._on_phase = told

    def tell_phase(self, phase: str) -> None:
        """Tell how far a cancel is."""
        if self._on_phase is not None:
            self._on_phase(phase)

    def when_ended(self, told: OnEnd) -> None:
        """Name who is told the result or the error, without a turn of the event loop between."""
        if self.is_open:
            self._on_end = told
        elif self.future.cancelled():
            told(None, plugin_errors.CancelledError("cancelled"))
        else:
            error = self.future.exception()
            told(None if error else self.future.result(), error if isinstance(error, Exception) else None)

    def note_line(self, line: LogLine) -> None:
        """Take a line it printed or logged."""
        self.seen_at = self._loop.time()
        if self._on_log is not None:
            self._loop.call_soon(self._on_log, line)

    def note_progress(self, fraction: float, message: str) -> None:
        """Take what the plugin reported."""
        self.progress, self.message, self.seen_at = fraction, message, self._loop.time()
        if self._on_progress is not None:
            # Not from here: what a listener raises would look like a fault of the worker's frame.
            self._loop.call_soon(self._on_progress, fraction, message)

    def note_usage(self, units: Mapping[str, float]) -> None:
        """Add what the plugin reported."""
        self.seen_at = self._loop.time()
        for unit, amount in units.items():
            self.usage[unit] = self.usage.get(unit, 0.0) + amount

    def expire_after(self, seconds: float) -> None:
        """End the call as timed out when it is still open then."""
        self.timeout_s = seconds
        self._timer = self._loop.call_later(seconds, self._expire)

    def begin_running(self, worker: Any) -> None:
        """Note that a worker has it."""
        self.worker = worker
        self.phase = Phase.RUNNING
        self.started_at = self.seen_at = self._loop.time()

    def worker_ended(self, result: Any, error: Exception | None) -> None:
        """Take the worker's answer; called once."""
        self._executor.ended(self, result, error)

    def _expire(self) -> None:
        waited = self.phase is Phase.WAITING
        self.ask_to_end(
            faults.CallTimeoutError(
                f"{self.action} did not end within {self.timeout_s:g} s"
                + (" because it never got its turn" if waited else ""),
                details={
                    "timeout_s": self.timeout_s,
                    "phase": str(self.phase),
                    "progress": self.progress,
                    "message": self.message,
                },
            )
        )

    def finish(self, result: Any, error: Exception | None) -> None:
        """End the call; whoever waits gets the result or the error."""
        self.phase = Phase.ENDED
        self.ended_at = self._loop.time()
        if self._timer is not None:
            self._timer.cancel()
        future = self.future
        if self._asked is not None:
            if error is not None and error is not self._asked:
                self._asked.__cause__ = error
            error = self._asked
        if self._on_end is not None:
            self._on_end(result, error)
        if future.done():
            return
        if error is None:
            future.set_result(result)
            return
        future.set_exception(error)
        # A handle that nobody waits for any more is no mistake to be reported by the loop.
        future.exception()

    @property
    def outcome(self) -> str:
        """Return `succeeded`, `failed` or `cancelled` once it has ended, the phase before."""
        if self.is_open:
            return str(self.phase)
        if self._asked is not None:
            return "cancelled" if isinstance(self._asked, plugin_errors.CancelledError) else "failed"
        if self.future.cancelled():
            return "cancelled"
        return "succeeded" if self.future.exception() is None else "failed"
