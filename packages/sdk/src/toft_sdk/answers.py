"""How a call that failed, and a worker that is asked where it is, are described to the host."""

from __future__ import annotations

import sys
from _thread import get_ident

from toft_sdk.calls import WorkerCall, jsonable
from toft_sdk.codec import EncodeError
from toft_sdk.errors import FatalError, PluginError, classify, trace_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX_TRACE = 64 << 10
MAIN_THREAD = get_ident()  # whoever imports this first is the main thread


def unencodable(refused: EncodeError) -> PluginError:
    return FatalError(
        f"the plugin returned a value that cannot cross: {refused.path}: {refused.reason}",
        code="result.unencodable",
        details={"path": refused.path, "reason": refused.reason},
    )


def described(call: WorkerCall, error: BaseException) -> dict[str, Any]:
    """Return the error a call ended with, as it travels."""
    # What a cancelled call dies of, be it a helper process that was killed, is the cancel.
    return failure(error, None if call.reason is None else call.cancelled_error())


def failure(error: BaseException, typed: PluginError | None = None) -> dict[str, Any]:
    """Return an error as it travels; `typed` says what it counts as."""
    try:
        return _told(error, classify(error) if typed is None else typed)
    except BaseException:  # noqa: BLE001 - the worker loop: what a plugin raises may raise when it is read
        # The plain representation is the only one that a plugin cannot replace.
        name = object.__repr__(error).lstrip("<").partition(" object at ")[0]
        unsayable = FatalError(f"{name}, which cannot be put into words", code="plugin.exception")
        return unsayable.to_dict()


def _told(error: BaseException, typed: PluginError) -> dict[str, Any]:
    fields = typed.to_dict()
    fields["details"] = jsonable(fields["details"])
    fields = jsonable(fields)
    fields["trace"] = str(typed.trace or trace_text(error))[-_MAX_TRACE:]
    fields["message"] = str(fields["message"])[:_MAX_TRACE]
    return fields


def stacks() -> list[Any]:
    """Return where each thread is, innermost first: [thread, [file:line function, ...]]."""
    mine = []
    main = MAIN_THREAD
    for ident, frame in sys._current_frames().items():
        lines: list[str] = []
        while frame is not None and len(lines) < 40:
            code = frame.f_code
            lines.append(f"{code.co_filename}:{frame.f_lineno} {code.co_name}")
            frame = frame.f_back  # type: ignore[assignment]
        mine.append(["main" if ident == main else str(ident), lines])
    return sorted(mine, key=lambda each: each[0] != "main")
