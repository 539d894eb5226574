"""What a process writes on its standard output and error, line by line, from a pipe the host holds.

The host's end outlives the process, so its last words are not lost with it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

_READ_BYTES = 65_536
_LONGEST_LINE = 65_536


class LinePipe:
    """One pipe; give `write_fd` to the process, then call `start`.

    Args:
        on_line: Called with each line, without its end.
    """

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read_fd, False)
        self._loop = asyncio.get_running_loop()
        self._rest = b""
        self.ended = asyncio.Event()

    def start(self) -> None:
        """Close the writing end here and read what comes."""
        self._close_write()
        self._loop.add_reader(self._read_fd, self._on_readable)

    def _on_readable(self) -> None:
        try:
            data = os.read(self._read_fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._say(line)
        while len(self._rest) > _LONGEST_LINE:
            self._say(self._rest[:_LONGEST_LINE])
            self._rest = self._rest[_LONGEST_LINE:]

    def _say(self, line: bytes) -> None:
        self._on_line(line.decode("utf-8", "replace").rstrip("\r"))

    def close(self) -> None:
        """Stop reading; what stands in the pipe is taken first."""
        self._close_write()
        if self._read_fd < 0:
            return
        fd, self._read_fd = self._read_fd, -1
        self._loop.remove_reader(fd)
        os.close(fd)
        if self._rest:
            rest, self._rest = self._rest, b""
            self._say(rest)
        self.ended.set()

    def _close_write(self) -> None:
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1
