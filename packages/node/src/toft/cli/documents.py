"""Documents that people write by hand: JSON, YAML or TOML, in a file or on standard input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from toft.kernel import authored

LONGEST = 64 << 20


def read(name: str) -> Any:
    """Return what a document says.

    Args:
        name: A file, read by its ending and as JSON or YAML without a known one; `-` is standard input.

    Raises:
        UsageError: It is not there, too long, or not in its language; says where.
    """
    return authored.parse(read_bytes(name), name, longest=LONGEST)


def read_bytes(name: str) -> bytes:
    """Return the bytes of a file, or of standard input for `-`; at most one more than `LONGEST`.

    Raises:
        UsageError: It cannot be read.
    """
    if name == "-":
        stream = getattr(sys.stdin, "buffer", None)
        return stream.read(LONGEST + 1) if stream is not None else sys.stdin.read().encode()
    try:
        with Path(name).open("rb") as file:
            return file.read(LONGEST + 1)
    except OSError as error:
        raise authored.unreadable(name, f"cannot be read: {error.strerror}") from None
