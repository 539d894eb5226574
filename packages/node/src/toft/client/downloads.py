"""A value that comes piece by piece: it goes on where it broke off, and is what its tag says or an error.

The tag of a result is the sha256 of its bytes, so going on with something else is noticed before it happens
(`If-Range`), and bytes that were changed on the way afterwards.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

_DIGEST = re.compile(rb'"([0-9a-f]{64})"')
_RANGE = re.compile(rb"bytes (\d{1,18})-\d{1,18}/(\d{1,18})")


class Download:
    """What has come of a value so far.

    Attributes:
        data: The bytes.
        furthest: The most that ever were here; whoever tries again sees whether it was of use.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.furthest = 0
        self._size: int | None = None
        self._digest = b""
        self._hash = hashlib.sha256()

    def wanted(self) -> Mapping[str, str]:
        """Return the headers that ask for what is missing."""
        if not self.data or not self._digest:
            return {}
        return {"Range": f"bytes={len(self.data)}-", "If-Range": f'"{self._digest.decode()}"'}

    def begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Take the head of an answer.

        Returns:
            False when it goes on with something else than what is here: that is forgotten, and is asked for
            anew.
        """
        if status == 416:
            self.forget()
            return False
        told = {name.lower(): value for name, value in headers}
        tag = _DIGEST.fullmatch(told.get(b"etag", b"").strip())
        digest = tag[1] if tag else b""
        if status == 206:
            there = _RANGE.fullmatch(told.get(b"content-range", b"").strip())
            if there is None or int(there[1]) != len(self.data) or digest != self._digest:
                self.forget()
                return False
            self._size = int(there[2])
            return True
        # The whole: there was nothing here yet, it is another value now, or ranges are not known there.
        self.forget()
        self._digest = digest
        length = told.get(b"content-length", b"")
        self._size = int(length) if length.isdigit() else None
        return True

    def take(self, piece: bytes) -> None:
        """Take what comes."""
        self.data += piece
        self._hash.update(piece)
        self.furthest = max(self.furthest, len(self.data))

    def forget(self) -> None:
        """Begin anew."""
        self.data.clear()
        self._size, self._digest = None, b""
        self._hash = hashlib.sha256()

    @property
    def is_whole(self) -> bool:
        """Say whether nothing is missing, as far as it was said how much there is."""
        return self._size in (None, len(self.data))

    @property
    def is_right(self) -> bool:
        """Say whether it is what its tag says; what has no such tag is believed."""
        return not self._digest or self._hash.hexdigest().encode() == self._digest
