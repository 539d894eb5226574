"""Turns what uv printed into one typed error with a short reason; the whole text stays in `details`."""

from __future__ import annotations

import re
from pathlib import Path

from toft.host import commands
from toft.kernel import errors
from toft.plugins.environments import environment_errors

_REASON_CHARS = 600
_SIGXFSZ = 128 + 25
_NO_SPACE = ("No space left on device", "os error 28", "os error 27", "Disk quota exceeded", "os error 122")
_NETWORK = (
    "Failed to fetch",
    "error sending request",
    "dns error",
    "Request failed after",
    "Failed to download",
    "operation timed out",
)
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


def explain(result: commands.Completed, step: str, disk: Path) -> errors.NodeError:
    """Return the error for a uv command that failed.

    Args:
        result: What it printed.
        step: What was being done, as the start of a sentence.
        disk: Where it wrote, for what is left of the disk.
    """
    text = redacted(result.stderr or result.stdout).strip()
    details = {"output": text[-20_000:], "exit_code": result.code}
    if result.code == _SIGXFSZ or any(mark in text for mark in _NO_SPACE):
        return environment_errors.disk_full(disk, _first_line_with(text, _NO_SPACE))
    if "Hash mismatch" in text:
        return environment_errors.HashMismatchError(
            f"{step}: {_reason(text)}",
            details=details,
            hint="the file on the index is not the one that was locked; resolve again only if you trust it",
        )
    if "network was disabled" in text:
        return environment_errors.DownloadError(
            f"{step}: offline, and not everything is in the cache or a wheelhouse: {_reason(text)}",
            code="environment.offline_missing",
            details=details,
            hint="work online once, or put the missing wheels into a directory named in `wheelhouses`",
        )
    if "No solution found" in text:
        return environment_errors.UnsatisfiableError(
            f"{step}: {_reason(text)}", details=details, hint=_unsatisfiable_hint(text)
        )
    if any(mark in text for mark in _NETWORK):
        return environment_errors.DownloadError(
            f"{step}: {_reason(text)}",
            details=details,
            hint="try again; offline, use a wheelhouse or the cache",
        )
    if "Failed to build" in text or "build backend" in text:
        return environment_errors.BuildError(
            f"{step}: {_build_reason(text)}",
            details=details,
            hint="no wheel fitted this Python, and its own build failed; try another Python or version",
        )
    return errors.NodeError(
        f"{step}: {_reason(text) or f'uv ended with exit code {result.code}'}",
        code="environment.failed",
        blame="environment",
        details=details,
    )


def redacted(text: str) -> str:
    """Return a text without the user names and passwords of its addresses."""
    return _CREDENTIALS.sub("", text)


def _reason(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    start = next((i for i, line in enumerate(lines) if line.startswith("error:")), 0)
    kept = []
    for line in lines[start:]:
        if line.startswith("hint:"):
            break
        kept.append(re.sub(r"^(error|cause):\s*", "", line))
    reason = re.sub(r"\s+", " ", " ".join(kept))
    reason = reason.replace("No solution found when resolving dependencies ", "")
    reason = reason.replace(", we can conclude that your requirements are unsatisfiable", "")
    return _shortened(reason)


def _build_reason(text: str) -> str:
    """Return what could not be built and the last thing its build said, wherever uv put that."""
    named = re.search(r"Failed to build `([^`]+)`", text)
    before, _, summary = text.partition("error: Failed to build")
    said = summary.partition("[stderr]")[2].partition("\nhint:")[0] or before
    last = [line.strip() for line in said.splitlines() if line.strip()][-1:]
    what = f"{named.group(1)} could not be built" if named else _reason(text)
    return _shortened(": ".join((what, *last)))


def _shortened(text: str) -> str:
    return text if len(text) <= _REASON_CHARS else text[: _REASON_CHARS - 1] + "…"


def _unsatisfiable_hint(text: str) -> str:
    if "current Python version" in text or "does not satisfy Python" in text:
        return "another Python may do: --python VERSION"
    if "was not found in the package registry" in text:
        return "check the name, and the index settings uv uses"
    return (
        "change one of the named versions; plugins do not share an environment unless they ask for the same"
    )


def _first_line_with(text: str, marks: tuple[str, ...]) -> str:
    for line in text.splitlines():
        if any(mark in line for mark in marks):
            return line.strip()[:300]
    return "a file grew beyond its limit"
