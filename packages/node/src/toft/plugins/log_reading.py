"""Reads a log from where a reader stands: across rotations and restarts, never more than a reader can take.

A place is the moment at the head of a file and how much of it was read. That moment goes with the file when
it is rotated, and the next file has another one; numbers that the file system gives to files come back.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MOST_BYTES = 64 << 10
_HEAD_BYTES = 40


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reader stands.

    Attributes:
        file: The moment of the file's first line; empty before there is one.
        offset: Bytes of it that were read.
    """

    file: str = ""
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.file}/{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Place | None:
        """Return the place that a text names; None when it names none."""
        file, slash, offset = text.rpartition("/")
        if not slash or not (offset.isascii() and offset.isdigit()) or len(text) > 2 * _HEAD_BYTES:
            return None
        return cls(file, int(offset))


@dataclass(frozen=True, slots=True)
class Piece:
    """What was read.

    Attributes:
        lines: Whole ones.
        place: Where the reader stands now.
        is_cut: Something between the place before and these lines was left out.
    """

    lines: list[str]
    place: Place
    is_cut: bool = False


def read_after(path: Path, after: Place | None, files: int = 2, most_bytes: int = MOST_BYTES) -> Piece:
    """Return what was written after a place; blocks.

    Args:
        path: The current file; older ones are beside it with `.1`, `.2`...
        after: Where the reader stood; None for the end of the log.
        files: How many older files there may be.
        most_bytes: The most that is read; of more, the last.
    """
    found: list[bytes] = []
    stands: Place | None = None
    left = most_bytes
    is_cut = after is not None and bool(after.file)
    for file in _newest_first(path, files):
        with file:
            head = file.read(_HEAD_BYTES).partition(b" ")[0].decode("ascii", "replace")
            size = file.seek(0, os.SEEK_END)
            is_met = after is not None and head == after.file and after.offset <= size
            begin = after.offset if after is not None and is_met else 0
            first = max(begin, size - left)
            file.seek(first)
            data = file.read(size - first)
        whole = data.rfind(b"\n") + 1  # what is being written now is read when it is there
        stands = stands or Place(head, first + whole)
        if first > begin:
            found.append(data[data.find(b"\n") + 1 : whole])
            is_cut = after is not None
            break
        found.append(data[:whole])
        left -= whole
        if is_met:
            is_cut = False
            break
    text = b"".join(reversed(found)).decode("utf-8", "replace")
    return Piece(text.split("\n")[:-1], stands or Place(), is_cut)


def _newest_first(path: Path, files: int) -> Iterator[BinaryIO]:
    for candidate in (path, *(path.with_name(f"{path.name}.{number}") for number in range(1, files + 1))):
        with contextlib.suppress(FileNotFoundError):
            if candidate.stat().st_size:
                yield candidate.open("rb")
