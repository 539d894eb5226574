"""Goes on with a log file that another process writes, over its rotations."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

_PAUSE_S = 0.2


def lines(path: Path, *, pause: Callable[[float], None] = time.sleep) -> Iterator[str]:
    """Yield each whole line that is written from now on; ends only with its reader.

    Args:
        path: The file; it may come later, and be rotated away at any time.
        pause: Waits between two looks; nothing tells a process that another one wrote to a file.
    """
    with contextlib.ExitStack() as kept:
        file = _open(path)
        if file is not None:
            kept.enter_context(file).seek(0, os.SEEK_END)
        rest = b""
        while True:
            following = _successor(path, file)
            # Read after the look: what was written before a rotation is then read whole.
            *whole, rest = (rest + (file.read() if file is not None else b"")).split(b"\n")
            yield from (line.decode("utf-8", "replace") for line in whole)
            if following is None:
                pause(_PAUSE_S)
                continue
            kept.close()
            file, rest = kept.enter_context(following), b""


def _open(path: Path) -> BinaryIO | None:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        return None


def _successor(path: Path, file: BinaryIO | None) -> BinaryIO | None:
    """Return the file that has the name now, when it is another one."""
    following = _open(path)
    if following is None or file is None:
        return following
    if (
        os.path.sameopenfile(following.fileno(), file.fileno())
        and os.fstat(file.fileno()).st_size >= file.tell()
    ):
        following.close()
        return None
    return following
