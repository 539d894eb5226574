"""One call's share of a reference plugin: its progress, its usage, its cancel.

A class of the reference system keeps these on the instance, so that two calls would share them.
`hosted_class` derives a class whose attributes of those names belong to the running call; the methods of the
reference's own base class, and code that reads or sets the attributes directly, work as they are.
"""

from __future__ import annotations

from contextvars import ContextVar

from toft_sdk.context import current

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    from toft_sdk.context import Call


class Callbacks(list):  # type: ignore[type-arg]
    """What a call wants to be told of its cancel; who comes too late is told at once."""

    def __init__(self, state: CallState) -> None:
        super().__init__()
        self._state = state

    def append(self, callback: Callable[[], object]) -> None:
        """Take a callback."""
        super().append(callback)
        if self._state.is_cancelled():
            callback()


class CallState:
    """What belongs to one call on a reference plugin."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.was_told = False
        self.callbacks: list[Callable[[], object]] = Callbacks(self)
        self.fraction: Any = 0.0
        self.message = ""
        self.usage: dict[str, float] = {}
        self.is_muted = False

    def is_cancelled(self) -> bool:
        """Whether the host cancelled the call, or the plugin's own `cancel` was called."""
        return self.was_told or self.call.is_cancelled()

    def push(self) -> None:
        """Report progress as it stands; what is no number is no progress."""
        if not self.is_muted and isinstance(self.fraction, (int, float)):
            self.call.progress(float(self.fraction), str(self.message or ""))

    def report(self, usage: Any) -> None:
        """Take the whole usage so far; the host adds up, so it is sent what is new."""
        if not isinstance(usage, dict):
            return
        amounts = {str(unit): float(each) for unit, each in usage.items() if isinstance(each, (int, float))}
        new = {unit: amount - self.usage.get(unit, 0.0) for unit, amount in amounts.items()}
        changed = {unit: amount for unit, amount in new.items() if amount}
        self.usage = amounts
        if changed:
            self.call.usage(changed)


_entered: ContextVar[CallState | None] = ContextVar("toft_reference_call")


class entered:
    """Make a state the current one for a block; a thread the plugin starts finds the latest one entered.

    Entering twice is fine: the worker's thread for the call, another for its cancel.
    """

    _latest: CallState | None = None

    def __init__(self, state: CallState) -> None:
        self._state = state
        self._before: CallState | None = None

    def __enter__(self) -> CallState:
        self._before = _entered.get(None)
        _entered.set(self._state)
        entered._latest = self._state
        return self._state

    def __exit__(self, *_: object) -> None:
        # Not by token: a stream may be closed from another context than it was opened in.
        _entered.set(self._before)


def state() -> CallState:
    """Return the state of the running call."""
    found = _entered.get(None) or entered._latest
    if found is None:
        found = entered._latest = CallState(current())
    return found


def hosted_class(kind: type[Any]) -> type[Any]:
    """Derive the class that is made in place of a reference plugin's own; it goes by the same name."""
    members: dict[str, Any] = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "_cancel_requested": property(_is_cancelled, _set_cancelled),
        "_cancel_callbacks": property(_callbacks, _set_callbacks),
        "_progress": property(lambda self: state().fraction, _set_fraction),
        "_status_message": property(lambda self: state().message, _set_message),
        "_last_api_usage": property(
            lambda self: dict(state().usage), lambda self, value: state().report(value)
        ),
    }
    if callable(getattr(kind, "report_progress", None)):
        members["report_progress"] = _report_progress(kind)
    derived: type[Any] = type(kind)(kind.__name__, (kind,), members)  # type: ignore[misc]
    return derived


def _is_cancelled(self: Any) -> bool:
    # A plugin that starts by clearing the flag does not lose a cancel that came before.
    return state().is_cancelled()


def _set_cancelled(self: Any, value: Any) -> None:
    state().was_told = bool(value)


def _callbacks(self: Any) -> list[Callable[[], object]]:
    return state().callbacks


def _set_callbacks(self: Any, value: Any) -> None:
    found = state()
    found.callbacks = Callbacks(found)
    for each in value or ():
        found.callbacks.append(each)


def _set_fraction(self: Any, value: Any) -> None:
    found = state()
    found.fraction = value
    found.push()


def _set_message(self: Any, value: Any) -> None:
    found = state()
    found.message = value
    found.push()


def _report_progress(kind: type[Any]) -> Callable[..., None]:
    def report_progress(self: Any, progress: float, message: str = "") -> None:
        found = state()
        # The base sets fraction and message one after the other; that is one report.
        found.is_muted = True
        try:
            kind.report_progress(self, progress, message)
        finally:
            found.is_muted = False
        found.push()

    return report_progress
