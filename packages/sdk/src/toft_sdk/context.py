"""The call that is running: where its progress, usage and log lines go, and whether it was cancelled.

`current()` answers inside a call. The worker enters a call of its own around every execution; plain Python,
with no worker around it, gets one that writes to stderr and is never cancelled.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextvars import Token
    from typing import Any, Callable, Mapping


class Call:
    """What a running call can be told and asked; this one ignores everything and is never cancelled."""

    def progress(self, fraction: float, message: str) -> None:
        """Take note of progress: 0 to 1, or -1 when there is no telling."""

    def usage(self, units: Mapping[str, float]) -> None:
        """Add what the call used, by unit."""

    def log(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Write one structured line that belongs to the call."""

    def is_cancelled(self) -> bool:
        """Tell whether somebody asked this call to stop."""
        return False

    def add_cancel_callback(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Run `callback` once when the call is cancelled, at once if it is already.

        Returns:
            What takes the callback back.
        """
        return lambda: None


class ConsoleCall(Call):
    """A call of plain Python: progress, usage and log lines are written to stderr."""

    def progress(self, fraction: float, message: str) -> None:
        share = " ... " if fraction < 0 else f"{fraction:4.0%} "
        _write(share + message)

    def usage(self, units: Mapping[str, float]) -> None:
        _write("usage " + _fields(units))

    def log(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        _write(f"{level} {event} {_fields(fields)}".rstrip())


def _fields(fields: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in fields.items())


def _write(line: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(line + "\n")


_entered: ContextVar[Call | None] = ContextVar("toft_call", default=None)
_running: list[Call] = []
_console: Call = ConsoleCall()


def current() -> Call:
    """Return the call this code runs in.

    A thread the author started has entered none. While a single call runs, it can only belong to that one.
    """
    call = _entered.get()
    if call is not None:
        return call
    running = _running[:2]
    return running[0] if len(running) == 1 else _console


class enter:
    """Make `call` the current one inside a `with` block; a class because contextlib costs a worker 3 ms."""

    __slots__ = ("_call", "_token")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._token: Token[Call | None] | None = None

    def __enter__(self) -> Call:
        self._token = _entered.set(self._call)
        _running.append(self._call)
        return self._call

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _running.remove(self._call)
            _entered.reset(self._token)
            self._token = None
