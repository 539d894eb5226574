"""How a failure is told: cause, evidence, next command; as one JSON object for scripts; with an exit status.

0 is success, 1 a failure, 2 a command line that cannot be right, 130 a cancel with Ctrl-C.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from toft.cli import hints, rendering
from toft.cli.terminal import Terminal
from toft.kernel.errors import NodeError
from toft.kernel.quantities import duration
from toft.kernel.visible import one_line, visible
from toft.plugins.plugin_errors import PluginError
from toft.secrets.redaction import Redactor

OK = 0
FAILED = 1
USAGE = 2
CANCELLED = 130
BROKEN_PIPE = 141

_SHOWN_LINES = 12
_FIELDS = ("code", "blame", "category", "message", "details", "hint")


def describe(error: NodeError | PluginError, subject: str | None = None) -> dict[str, Any]:
    """Return the fields a script relies on: code, blame, category, message, details, hint."""
    fields = error.to_dict()
    told: dict[str, Any] = {name: fields.get(name) for name in _FIELDS}
    told["details"] = dict(fields.get("details") or {})
    told["hint"] = fields.get("hint") or hints.of(str(told["code"]), told["details"], subject)
    if fields.get("retry_after_s") is not None:
        told["retry_after_s"] = fields["retry_after_s"]
    return told


def exit_status(error: NodeError | PluginError) -> int:
    """Return the exit status for an error that was told."""
    if isinstance(error, PluginError):
        return CANCELLED if error.category == "cancelled" else FAILED
    return error.exit_code


def from_os_error(error: OSError) -> NodeError:
    """Turn what the operating system refused into cause, evidence and next step."""
    reason = error.strerror or str(error)
    if error.errno == errno.ENOENT and error.filename is None:
        return NodeError(
            "The working directory is not there any more",
            code="os.no_directory",
            blame="caller",
            hint="cd to a directory that exists",
        )
    if error.errno == errno.EBADF and error.filename is None:
        reason = "Standard output is closed, so nothing takes the results"
    hints = {
        errno.ENOENT: "Look at the name: nothing is there.",
        errno.EISDIR: "Name a file: that is a directory.",
        errno.ENOTDIR: "Name a directory: that is a file.",
        errno.ENOSPC: "Free some space; toft env gc removes environments that nothing uses.",
        errno.EDQUOT: "Your quota on this file system is used up; toft env gc frees what nothing uses.",
        errno.EACCES: "Run toft as the user who owns it, or point TOFT_HOME at a directory of your own.",
        errno.EPERM: "Run toft as the user who owns it, or point TOFT_HOME at a directory of your own.",
        errno.EBADF: "Send them somewhere: > FILE, or > /dev/null.",
        errno.EROFS: "Point TOFT_HOME at a file system that can be written.",
        errno.EMFILE: "Raise the limit on open files: ulimit -n 4096.",
    }
    return NodeError(
        f"{error.filename}: {reason}" if error.filename else reason,
        code=f"os.{errno.errorcode.get(error.errno or 0, 'error').lower()}",
        blame="environment",
        details={"errno": error.errno, "path": str(error.filename) if error.filename else None},
        hint=hints.get(error.errno or 0, "toft doctor looks at the machine and says what is wrong."),
    )


def tell(
    terminal: Terminal,
    error: NodeError | PluginError,
    *,
    as_json: bool,
    redactor: Redactor | None = None,
    subject: str | None = None,
) -> int:
    """Write a failure on stderr, without any secret in it, and return the exit status.

    Args:
        terminal: Where.
        error: What failed.
        as_json: As one object for a script.
        redactor: Takes the secrets out.
        subject: The plugin that the command was about.
    """
    redactor = redactor or Redactor()
    fields = redactor.value(describe(error, subject))
    if as_json:
        told: dict[str, Any] = {"error": fields}
        if terminal.warnings:
            told["warnings"] = terminal.warnings
        terminal.err.write(json.dumps(rendering.to_json(told), allow_nan=False) + "\n")
        terminal.err.flush()
    else:
        terminal.fail(f"error: {fields['message']}")
        for line in evidence(fields, redactor.text(getattr(error, "trace", ""))):
            terminal.note(f"  {line}")
        if fields.get("retry_after_s"):
            terminal.note(f"  may work again in: {duration(fields['retry_after_s'])}")
        if fields["hint"]:
            terminal.note(f"next: {fields['hint']}")
    return exit_status(error)


def evidence(fields: Mapping[str, Any], trace: str = "") -> Iterator[str]:
    """Yield what is known beyond the message, shortest first, nothing twice."""
    message = str(fields["message"])
    details = fields["details"]
    if isinstance(details.get("fields"), Mapping) and not all(key in message for key in details["fields"]):
        for path, problem in details["fields"].items():
            yield f"{path}: {one_line(str(problem))}"
    blocks: list[tuple[str, Any]] = []
    for name, value in details.items():
        if name == "fields" or value in (None, "", [], {}):
            continue
        if isinstance(value, (list, tuple)) and _is_said(value, message):
            continue
        if isinstance(value, Mapping):
            blocks.append((name, [f"{key}: {_told(item)}" for key, item in value.items()]))
        elif isinstance(value, (list, tuple)) or (isinstance(value, str) and "\n" in value):
            blocks.append((name, value))
        elif str(value) not in message:
            yield f"{name.replace('_', ' ')}: {one_line(str(value))}"
    for name, value in blocks:
        yield from _block(name, value if isinstance(value, str) else [_told(item) for item in value])
    if trace:
        yield from _block("traceback in the plugin", trace)


def _block(name: str, value: str | list[str]) -> Iterator[str]:
    lines = value.splitlines() if isinstance(value, str) else value
    if len(lines) <= 3 and all(len(line) < 40 for line in lines):
        yield f"{name.replace('_', ' ')}: {', '.join(map(visible, lines))}"
        return
    yield f"{name.replace('_', ' ')}:"
    if len(lines) > _SHOWN_LINES:
        yield f"  ... {len(lines) - _SHOWN_LINES} lines above"
    for line in lines[-_SHOWN_LINES:]:
        yield f"  {visible(line)}"


def _is_said(items: Sequence[Any], message: str) -> bool:
    """Say whether a message has all of a list in it already."""
    return all(
        str(each) in message
        for item in items
        for name, each in (item.items() if isinstance(item, Mapping) else [("", item)])
        if name != "keyword"  # which rule of a schema it was, for programs
    )


def _told(value: Any) -> str:
    return one_line(value if isinstance(value, str) else json.dumps(rendering.to_json(value)))
