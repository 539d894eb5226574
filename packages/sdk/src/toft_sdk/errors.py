"""What an author raises, and what a caller of the plugin catches: one root, five kinds.

    PluginError            the root; also what an untyped exception of a plugin becomes
    |- InputError          the caller's arguments or configuration do not fit; names the fields
    |- TransientError      may work when tried again, perhaps after `retry_after_s`
    |- ResourceError       something was too small: memory, GPU memory, disk; says what was missing
    |- FatalError          trying again cannot help
    `- CancelledError      the call was cancelled; never retried, never counted as a failure

An error crosses a process boundary as the dictionary `to_dict` gives; `from_dict` builds the same class.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Mapping, Sequence


class PluginError(Exception):
    """The root of everything a plugin can raise on purpose.

    Attributes:
        code: Stable dotted word, such as `plugin.input`.
        category: `user_input`, `transient`, `resource`, `fatal` or `cancelled`.
        blame: Whose fault it is: `caller`, `plugin`, `environment` or `node`.
        retry: `never`, `now` or `after` (then `retry_after_s` seconds).
        details: JSON-like facts about the failure.
        trace: The text of the traceback in the worker; empty until the error has crossed.
    """

    code = "plugin.failed"
    category = "fatal"
    blame = "plugin"
    retry = "never"

    def __init__(
        self, message: str = "", *, code: str | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = dict(details or {})
        self.retry_after_s: float | None = None
        self.trace = ""
        if code is not None:
            self.code = code

    def to_dict(self) -> dict[str, Any]:
        """Return every field as JSON-like values; `kind` names the class."""
        return {
            # An author's own subclass arrives as the class of ours it derives from.
            "kind": next(each.__name__ for each in type(self).__mro__ if each in _KINDS.values()),
            "code": self.code,
            "category": self.category,
            "blame": self.blame,
            "retry": self.retry,
            "retry_after_s": self.retry_after_s,
            "message": self.message,
            "details": self.details,
            "trace": self.trace,
        }


class InputError(PluginError, ValueError):
    """The arguments or the configuration do not fit.

    Args:
        message: What does not fit.
        fields: Path of each bad field to what is wrong with it.
    """

    code = "plugin.input"
    category = "user_input"
    blame = "caller"

    def __init__(
        self,
        message: str = "",
        *,
        fields: Mapping[str, str] | Sequence[str] = (),
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, code=code, details=details)
        pairs = fields.items() if hasattr(fields, "items") else ((name, "") for name in fields)
        self.fields: dict[str, str] = dict(pairs)
        if self.fields:
            self.details.setdefault("fields", self.fields)


class TransientError(PluginError):
    """The same call may work when it is tried again.

    Args:
        message: What failed.
        retry_after_s: Seconds to wait first; None means at once.
    """

    code = "plugin.transient"
    category = "transient"
    retry = "now"

    def __init__(
        self,
        message: str = "",
        *,
        retry_after_s: float | None = None,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, code=code, details=details)
        self.retry_after_s = retry_after_s
        if retry_after_s is not None:
            self.retry = "after"


class ResourceError(PluginError):
    """Something was too small for this call.

    Args:
        message: What ran out.
        resource: `system_ram`, `gpu_ram` or `disk`.
        needed_bytes: What the call needed, when known.
        available_bytes: What there was, when known.
    """

    code = "plugin.resource"
    category = "resource"
    retry = "now"

    def __init__(
        self,
        message: str = "",
        *,
        resource: str = "system_ram",
        needed_bytes: int | None = None,
        available_bytes: int | None = None,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, code=code, details=details)
        self.details.setdefault("resource", resource)
        if needed_bytes is not None:
            self.details.setdefault("needed_bytes", needed_bytes)
        if available_bytes is not None:
            self.details.setdefault("available_bytes", available_bytes)


class FatalError(PluginError):
    """Trying again cannot help."""

    code = "plugin.fatal"


class CancelledError(PluginError):
    """The call was cancelled before it finished."""

    code = "call.cancelled"
    category = "cancelled"
    blame = "caller"


_KINDS: dict[str, type[PluginError]] = {
    kind.__name__: kind
    for kind in (PluginError, InputError, TransientError, ResourceError, FatalError, CancelledError)
}


def from_dict(fields: Mapping[str, Any]) -> PluginError:
    """Build the error that `to_dict` described; an unknown kind becomes a `PluginError`."""
    error = _KINDS.get(str(fields.get("kind")), PluginError)(str(fields.get("message", "")))
    for name in ("code", "category", "blame", "retry", "trace"):
        value = fields.get(name)
        if isinstance(value, str):
            setattr(error, name, value)
    after = fields.get("retry_after_s")
    error.retry_after_s = float(after) if isinstance(after, (int, float)) else None
    details = fields.get("details")
    error.details = dict(details) if isinstance(details, dict) else {}
    if isinstance(error, InputError) and isinstance(error.details.get("fields"), dict):
        error.fields = dict(error.details["fields"])
    return error


# First match along an exception's bases wins; anything else is fatal. OSError stands last on purpose: its
# subclasses above it say more.
_BARE = (
    (
        (
            FileNotFoundError,
            NotADirectoryError,
            IsADirectoryError,
            PermissionError,
            KeyError,
            ValueError,
            TypeError,
        ),
        InputError,
    ),
    ((TimeoutError, ConnectionError, InterruptedError, BlockingIOError), TransientError),
    ((MemoryError,), ResourceError),
    ((OSError,), TransientError),
)


def classify(error: BaseException) -> PluginError:
    """Return a typed error for any exception a plugin let escape; a typed one comes back as it is."""
    if isinstance(error, PluginError):
        return error
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    for bases, kind in _BARE:
        if isinstance(error, bases):
            # The plugin broke, not its caller: an untyped KeyError rarely means wrong arguments.
            typed = kind(text)
            typed.blame = "plugin"
            if isinstance(error, OSError) and error.errno is not None:
                typed.details.update(errno=error.errno, path=str(error.filename or ""))
            return typed
    return FatalError(text, code="plugin.exception")


def trace_text(error: BaseException) -> str:
    """Return the traceback of an exception as text."""
    import traceback  # noqa: PLC0415 - 4 ms that a worker which never fails does not pay

    kind = type(error)
    return "".join(traceback.format_exception(kind, error, error.__traceback__))


__all__ = [
    "CancelledError",
    "FatalError",
    "InputError",
    "PluginError",
    "ResourceError",
    "TransientError",
    "classify",
    "from_dict",
    "trace_text",
]
