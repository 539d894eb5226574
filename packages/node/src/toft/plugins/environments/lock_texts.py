"""Locks as text: requirements with hashes, one a line, the same wherever the files lay."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from packaging.utils import canonicalize_name, parse_wheel_filename

from toft.plugins.environments import environment_errors, uv_errors

# The SDK is handed to every worker by path; an author may name it, but nothing of it is installed.
INJECTED = "toft-sdk"
_HASH_OPTION = re.compile(r"--hash=(sha\d+:[0-9a-f]+)")


def wheel_requirement(wheel: Path, extras: Sequence[str]) -> str:
    name = parse_wheel_filename(wheel.name)[0]
    wanted = f"[{','.join(extras)}]" if extras else ""
    return f"{name}{wanted} @ {wheel.as_uri()}"


def wheel_line(wheel: Path) -> str:
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{wheel_requirement(wheel, ())} --hash=sha256:{digest}\n"


def write_checked(text: str, wheels: Sequence[Path], file: Path) -> None:
    """Write a lock that was given, and wheels beside it, as what is installed; blocks."""
    file.write_text(checked(text) + "".join(map(wheel_line, wheels)))


def checked(text: str) -> str:
    """Refuse a lock that is not all hashes, or that brings options of its own."""
    for line in _logical_lines(text):
        if line.startswith("-"):
            raise environment_errors.SourceError(
                f"a lock may hold requirements with hashes only, not {line.split()[0][:200]}",
                code="environment.bad_lock",
                hint="index settings belong in uv's own configuration",
            )
        if not _HASH_OPTION.search(line):
            raise environment_errors.SourceError(
                f"the lock has no hash for {line.split()[0][:200]}",
                code="environment.bad_lock",
                hint="make it with: uv pip compile --generate-hashes",
            )
    kept = [line for line in _logical_lines(text) if _name(line) != INJECTED]
    return "".join(f"{line}\n" for line in kept)


def _logical_lines(text: str) -> list[str]:
    joined = re.sub(r"\\\r?\n", " ", text)
    lines = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in joined.splitlines())
    return [re.sub(r"\s+", " ", line) for line in lines if line]


def _name(line: str) -> str:
    return canonicalize_name(re.split(r"[\s=<>!~;@\[]", line, maxsplit=1)[0])


def portable(text: str, wheels: Sequence[Path]) -> str:
    """Return a lock as sorted lines that do not depend on where local wheels lay."""
    local = {wheel.as_uri(): parse_wheel_filename(wheel.name) for wheel in wheels}
    lines = []
    for line in _logical_lines(text):
        head = line.split(" --hash=", 1)[0]
        for uri, (name, version, *_) in local.items():
            if uri in head:
                head = f"{name}=={version}"
        hashes = " ".join(f"--hash={one}" for one in sorted(_HASH_OPTION.findall(line)))
        lines.append(uv_errors.redacted(f"{head} {hashes}"))
    return "".join(f"{line}\n" for line in sorted(lines))
