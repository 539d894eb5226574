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

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> NodeError:
        """Build an error of this class from what `to_dict` returned, without its constructor's own words."""
        error = cls.__new__(cls)
        Exception.__init__(error, str(fields.get("message", "")))
        error.message = str(fields.get("message", ""))
        for name in ("code", "category", "blame", "retry", "hint"):
            setattr(error, name, str(fields.get(name) or getattr(cls, name, "")))
        details = fields.get("details")
        error.details = dict(details) if isinstance(details, Mapping) else {}
        after = fields.get("retry_after_s")
        error.retry_after_s = float(after) if isinstance(after, (int, float)) else None
        return error


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


class DeclaredError(ConflictError):
    """The document of the node says how this is; nobody else changes it."""

    code = "generation.declared"

    @classmethod
    def of(cls, kind: str, name: str, etag: str) -> DeclaredError:
        """Say what it is, and how it is changed.

        Args:
            kind: What it is, such as `instance`.
            name: Its name.
            etag: Of the document.
        """
        return cls(
            f"{kind} {name} is declared by the document of this node, {etag[:19]}, and is changed there",
            details={"kind": kind, "name": name, "etag": etag},
            hint="toft config show --document prints it; change it, then toft config apply FILE",
        )


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


def from_dict(fields: Mapping[str, Any]) -> NodeError:
    """Build the error that `to_dict` described.

    Args:
        fields: With `kind`, the name of its class, and `bases`, those above it, the nearest first; the first
            one that is known here is taken.
    """
    known = _kinds()
    names = [fields.get("kind"), *(fields.get("bases") or ())]
    kind = next((known[each] for each in names if isinstance(each, str) and each in known), NodeError)
    return kind.from_fields(fields)


def _kinds() -> dict[str, type[NodeError]]:
    """Return every class of the family that some room has defined, by name."""
    found: dict[str, type[NodeError]] = {}
    waiting: list[type[NodeError]] = [NodeError]
    while waiting:
        kind = waiting.pop()
        found[kind.__name__] = kind
        waiting.extend(kind.__subclasses__())
    return found
