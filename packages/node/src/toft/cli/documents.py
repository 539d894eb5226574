"""Documents that people write by hand: JSON, YAML or TOML, in a file or on standard input."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

from toft.kernel.errors import UsageError

LONGEST = 64 << 20


def read(name: str) -> Any:
    """Return what a document says.

    Args:
        name: A file, read by its ending and as JSON or YAML without a known one; `-` is standard input.

    Raises:
        UsageError: It is not there, too long, or not in its language; says where.
    """
    data = _bytes(name)
    if len(data) > LONGEST:
        raise _unreadable(name, f"is longer than {LONGEST} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unreadable(name, f"is not UTF-8 text: byte {error.start}") from None
    if name.endswith(".toml"):
        return _parsed(name, "TOML", tomllib.loads, text, (tomllib.TOMLDecodeError, RecursionError))
    if name.endswith(".json") or text.lstrip()[:1] in ("{", "["):
        return _parsed(name, "JSON", json.loads, text, (ValueError, RecursionError))
    import yaml  # noqa: PLC0415 - 25 ms that only YAML pays

    return _parsed(name, "YAML", yaml.safe_load, text, (yaml.YAMLError, RecursionError, ValueError))


def _bytes(name: str) -> bytes:
    if name == "-":
        stream = getattr(sys.stdin, "buffer", None)
        return stream.read(LONGEST + 1) if stream is not None else sys.stdin.read().encode()
    try:
        with Path(name).open("rb") as file:
            return file.read(LONGEST + 1)
    except OSError as error:
        raise _unreadable(name, f"cannot be read: {error.strerror}") from None


def _parsed(name: str, language: str, parse: Any, text: str, errors: tuple[type[Exception], ...]) -> Any:
    try:
        return parse(text)
    except errors as error:
        raise _unreadable(name, f"is not {language}: {error}", hint="Mend it there.") from None


_KINDS = "Give a file that ends with .json, .yaml or .toml, or - for standard input."


def _unreadable(name: str, problem: str, *, hint: str = _KINDS) -> UsageError:
    shown = "standard input" if name == "-" else name
    return UsageError(
        f"{shown} {problem}",
        code="request.document",
        details={"path": name},
        hint=hint,
    )
