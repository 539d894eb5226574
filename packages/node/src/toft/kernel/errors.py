"""The node's errors: one root, each with a stable code, someone to blame, and what to do next.

    NodeError              the root
    |- UsageError          the request itself is wrong (exit code 2 on the command line)
    |- NotFoundError       no such plugin, instance, environment, secret
    |- ConflictError       it exists already, or is in the wrong state
    |- RefusedError        a limit, a permission or a policy said no
    |- UnavailableError    not now: busy, restarting, locked
    `- IntegrityError      something on disk or on the wire is not what it must be

Rooms add subclasses where a caller has to tell them apart; a new *code* needs no class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class NodeError(Exception):
    """The root of what the node itself raises.

    Args:
        message: Names the thing and the step that failed.
        code: Stable dotted word; the class gives the default.
        details: Evidence as JSON-like values.
        hint: The next command or step, for a person.
        retry_after_s: Seconds to wait before the same request may work.
    """

    code: str = "node.failed"
    category: str = "fatal"
    blame: str = "node"
    retry: str = "never"
    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        blame: str | None = None,
        details: Mapping[str, Any] | None = None,
        hint: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.blame = blame or self.blame
        self.details = dict(details or {})
        self.hint = hint
        self.retry_after_s = retry_after_s
        if retry_after_s is not None:
            self.retry = "after"

    def to_dict(self) -> dict[str, Any]:
        """Return what a script or another process needs: code, blame, category, message, details, hint."""
        return {
            "code": self.code,
            "blame": self.blame,
            "category": self.category,
            "retry": self.retry,
            "retry_after_s": self.retry_after_s,
            "message": self.message,
            "details": self.details,
            "hint": self.hint,
        }


class UsageError(NodeError):
    """The request itself is wrong; trying it again unchanged cannot help."""

    code = "request.invalid"
    category = "user_input"
    blame = "caller"
    exit_code = 2


class NotFoundError(NodeError):
    """There is no such thing."""

    code = "not_found"
    category = "user_input"
    blame = "caller"


class ConflictError(NodeError):
    """It exists already, or is in a state that does not allow this."""

    code = "conflict"
    category = "user_input"
    blame = "caller"


class RefusedError(NodeError):
    """A limit, a permission or a policy said no."""

    code = "refused"
    category = "user_input"
    blame = "caller"


class UnavailableError(NodeError):
    """Not now; the same request may work later."""

    code = "unavailable"
    category = "transient"
    retry = "now"


class IntegrityError(NodeError):
    """Something on disk or on the wire is not what it must be."""

    code = "integrity"
