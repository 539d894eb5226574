"""The daemon's own log: one bounded, rotated file, without secrets, that also takes what would be printed."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

_SOURCES = ("toft", "uvicorn.error", "asyncio", "py.warnings")
# What the HTTP library says of a stream that was cut off. So ends one whose token has ended, and what
# ended it stands in the log already.
_CUT_OFF = "ASGI callable returned without completing response."


class LogFile(logging.Handler):
    """Writes events to a file that is rotated before it grows beyond its bound.

    Args:
        path: The file; older ones are beside it with `.1`, `.2`…
        max_bytes: Size at which it is rotated.
        files: Older files that are kept.
        takes_stderr: Descriptor 2 is this file too, for what no logger catches.
    """

    def __init__(self, path: Path, *, max_bytes: int, files: int, takes_stderr: bool) -> None:
        super().__init__()
        self.redact: Callable[[str], str] = str
        self._path = path
        self._max_bytes = max_bytes
        self._files = files
        self._takes_stderr = takes_stderr
        self._fd = -1
        self._size = 0
        self.setFormatter(logging.Formatter("%(message)s"))
        self.addFilter(lambda record: record.msg != _CUT_OFF)

    def emit(self, record: logging.LogRecord) -> None:
        """Append one event; a disk that is full stops nothing."""
        text = self.redact(self.format(record))
        data = (text if text.endswith("\n") else text + "\n").encode("utf-8", "replace")[: self._max_bytes]
        try:
            if self._fd < 0 or self._size + len(data) > self._max_bytes:
                self._open_next(len(data))
            self._size += os.write(self._fd, data)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing: there is nowhere left to say it."""

    def _open_next(self, coming: int) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        size = self._path.stat().st_size if self._path.exists() else 0
        if size and size + coming > self._max_bytes:
            self._rotate()
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        before, self._fd, self._size = self._fd, fd, os.fstat(fd).st_size
        if before >= 0:
            os.close(before)
        if self._takes_stderr:
            os.dup2(fd, 2)

    def _rotate(self) -> None:
        names = [
            self._path,
            *(self._path.with_name(f"{self._path.name}.{n + 1}") for n in range(self._files)),
        ]
        for older, newer in zip(reversed(names[:-1]), reversed(names[1:]), strict=True):
            if older.exists():
                older.replace(newer)
        if not self._files:
            self._path.unlink(missing_ok=True)

    def attach(self, level: str) -> None:
        """Take the events of the node and of the libraries below it, from this level on."""
        for name in _SOURCES:
            logger = logging.getLogger(name)
            logger.addHandler(self)
            logger.setLevel(level if name == "toft" else "WARNING")
            logger.propagate = False

    def close(self) -> None:
        """Give the file back."""
        for name in _SOURCES:
            logging.getLogger(name).removeHandler(self)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        super().close()
