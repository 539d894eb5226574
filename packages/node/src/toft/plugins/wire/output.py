"""The pipes behind a worker's stdout and stderr, seen from the host.

The worker reads them itself and sends lines tagged with their call. The host keeps its own reading ends: for
what a dead worker said last, for one that is stuck in C code while the pipe is full, and for workers in other
languages that leave their output to the host.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable
from typing import Any

from toft.kernel.clock import Clock
from toft.plugins.wire.frames import LogLine

_PIPE_BYTES = 256 << 10
_READ = 64 << 10
_MAX_LINE = 8 << 10
_MAX_DRAIN = 4 << 20
_MAX_STREAMS = 8


class Output:
    """Two pipes.

    Args:
        emit: Called with the stream, the text, and whether the line goes on, for all the host takes.
    """

    def __init__(self, emit: Callable[[str, str, bool], None]) -> None:
        self._emit = emit
        self._reading: list[int] = []
        self._writing: list[int] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        for _ in range(2):
            reading, writing = os.pipe()
            self._reading.append(reading)
            self._writing.append(writing)
            os.set_blocking(reading, False)
            with contextlib.suppress(OSError):  # a limit of the user; the default size works too
                fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    @property
    def reading(self) -> list[int]:
        """The reading ends, of stdout and stderr."""
        return self._reading

    @property
    def writing(self) -> list[int]:
        """The writing ends, of stdout and stderr; empty once the worker has them."""
        return self._writing

    def close_writing(self) -> None:
        """Let go of the writing ends: the worker has its own."""
        for fd in self._writing:
            os.close(fd)
        self._writing = []

    def drain(self) -> int:
        """Take what is in the pipes now; return the number of bytes."""
        total = 0
        for index, fd in enumerate(self._reading):
            while total < _MAX_DRAIN:
                try:
                    data = os.read(fd, _READ)
                except BlockingIOError:
                    break
                if not data:
                    if self._loop is not None:
                        self._loop.remove_reader(fd)  # every writing end of this one is closed
                    break
                total += len(data)
                self._split(index, data)
        return total

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take everything from now on, for a worker that does not read the pipes itself."""
        self._loop = loop
        for fd in self._reading:
            loop.add_reader(fd, self.drain)

    def _stop(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            for fd in self._reading:
                loop.remove_reader(fd)

    def close(self) -> None:
        """Take what is left and close everything."""
        self._stop()
        try:
            self.drain()
        finally:
            self.close_writing()
            reading, self._reading = self._reading, []
            for fd in reading:
                os.close(fd)

    def _split(self, index: int, data: bytes) -> None:
        stream = "stderr" if index else "stdout"
        *lines, rest = data.split(b"\n")
        for line in lines:
            for at in range(0, max(1, len(line)), _MAX_LINE):
                self._emit(stream, line[at : at + _MAX_LINE].decode("utf-8", "backslashreplace"), False)
        for at in range(0, len(rest), _MAX_LINE):
            # Not kept here: the worker may be the one who reads the end of it.
            self._emit(stream, rest[at : at + _MAX_LINE].decode("utf-8", "backslashreplace"), True)


class Lines:
    """Puts lines together that arrive in parts, and hands them on.

    Args:
        emit: Called with every whole line.
        clock: Stamps them.
    """

    def __init__(self, emit: Callable[[LogLine], None], clock: Clock) -> None:
        self._emit = emit
        self._clock = clock
        self._open: dict[str, tuple[int, str]] = {}

    def on_log(self, header: list[Any], tail: bytearray, tagged: bool) -> None:
        """Take a frame of lines: [stream, text], with True when the line goes on, or level and fields."""
        call, now = int(header[1]), self._clock.now()
        for line in header[2]:
            stream, text, *rest = line
            if not rest:
                self.add(stream, call, str(text), now)
            elif len(rest) == 1:
                self.hold(str(stream), call, str(text))
            else:
                self._tell(LogLine(now, str(stream), call, str(text), str(rest[0]), dict(rest[1])))

    def add(self, stream: str, call: int, text: str, now: float | None = None) -> None:
        """Take the end of a line, most often all of it."""
        if self._open:
            held = self._open.pop(stream, None)
            if held is not None:
                if held[0] == call:
                    text = held[1] + text
                else:
                    self._tell(LogLine(self._clock.now(), stream, held[0], held[1]))
        self._tell(LogLine(self._clock.now() if now is None else now, str(stream), call, text))

    def hold(self, stream: str, call: int, text: str) -> None:
        """Take the beginning of a line, or more of it."""
        held_call, held = self._open.pop(stream, (call, ""))
        if held_call != call or len(held) + len(text) > _MAX_LINE:
            if held:
                self._tell(LogLine(self._clock.now(), stream, held_call, held))
            held = ""
        if len(self._open) < _MAX_STREAMS:
            self._open[stream] = (call, held + text)

    def _tell(self, line: LogLine) -> None:
        try:
            self._emit(line)
        except (ValueError, TypeError, IndexError) as failed:
            # The fault of who takes lines; further out it would be taken for a malformed frame.
            raise RuntimeError("who takes a worker's lines failed") from failed

    def close(self) -> None:
        """Hand on what was never finished: a worker's last words."""
        unfinished, self._open = self._open, {}
        for stream, (call, text) in unfinished.items():
            self._tell(LogLine(self._clock.now(), stream, call, text))
