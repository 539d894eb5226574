"""What goes on while a command works: a bar or a step for a person, a line now and then for a log."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING, Self

from toft.cli.terminal import Terminal
from toft.kernel.clock import SYSTEM, Clock
from toft.kernel.visible import one_line

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_QUIET_S = 1.0
_STEP = 0.1


class Live:
    """Shows progress for the length of a `with` block; may be told from any thread.

    Args:
        terminal: Where; its stderr is used.
        label: What is being worked on.
        clock: Lines for a log are not written more often than once a second.
    """

    def __init__(self, terminal: Terminal, label: str, *, clock: Clock = SYSTEM) -> None:
        self._terminal = terminal
        self._label = one_line(label, 60)
        self._clock = clock
        self._lock = threading.Lock()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._told_at = float("-inf")
        self._told: tuple[float, str] = (-1.0, "")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

    def progress(self, fraction: float, message: str = "") -> None:
        """Show how far the work has come: 0 to 1, or -1 when there is no telling."""
        with self._lock:
            if self._terminal.shows_progress:
                self._show(fraction, message)
            else:
                self._tell(fraction, message)

    def step(self, message: str) -> None:
        """Show the step that begins now."""
        with self._lock:
            if self._terminal.shows_progress:
                self._show(-1.0, message)
            else:
                self._terminal.note(one_line(message))

    def log(self, text: str) -> None:
        """Show a line that was printed, above the bar if there is one."""
        with self._lock:
            self._terminal.log(text)

    def _show(self, fraction: float, message: str) -> None:
        if self._bar is None:
            self._bar, self._task = self._start()
        if self._task is not None:
            total = 1.0 if fraction >= 0 else None
            self._bar.update(
                self._task, total=total, completed=max(fraction, 0.0), message=one_line(message, 60)
            )

    def _start(self) -> tuple[Progress, TaskID]:
        from rich import progress as bars  # noqa: PLC0415 - 60 ms that a command without progress does not pay

        bar = bars.Progress(
            bars.SpinnerColumn(),
            bars.TextColumn("{task.description}", markup=False),
            bars.BarColumn(bar_width=30),
            bars.TextColumn("{task.fields[message]}", markup=False),
            bars.TimeElapsedColumn(),
            console=self._terminal.console(err=True),
            transient=True,
        )
        bar.start()
        return bar, bar.add_task(self._label, total=None, message="")

    def _tell(self, fraction: float, message: str) -> None:
        """Write a line when something new is to be said and the last one is a while ago."""
        before, said = self._told
        is_new = message != said or abs(fraction - before) >= _STEP
        now = self._clock.monotonic()
        if not is_new or (now - self._told_at < _QUIET_S and fraction < 1):
            return
        self._told, self._told_at = (fraction, message), now
        share = f"{fraction:.0%} " if fraction >= 0 else ""
        self._terminal.note(one_line(f"{self._label}: {share}{message}".rstrip()))
