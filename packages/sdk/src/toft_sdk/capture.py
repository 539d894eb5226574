"""What the plugin prints, line by line, with the call that printed it.

Descriptors 1 and 2 are pipes before the plugin is imported: C libraries and child processes are caught too.
The host made the pipes and keeps their reading ends as well: what a dying worker said last is not lost.
"""

from __future__ import annotations

import os
import select
import sys
from _thread import allocate_lock

from toft_sdk import context
from toft_sdk.calls import WorkerCall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    from toft_sdk.link import Link

_MAX_LINE = 8 << 10
_READ = 64 << 10


class Capture:
    """The reading ends of the two pipes, used by whoever gets there first.

    Args:
        link: Where lines go.
        fds: Reading ends of the pipes behind the descriptors 1 and 2, not blocking.
        tag: Returns the number of the call that a line belongs to.
    """

    def __init__(self, link: Link, fds: list[int], tag: Callable[[], int]) -> None:
        self.fds = tuple(fds)
        self._link = link
        self._tag = tag
        self._lock = allocate_lock()
        self._partial = dict.fromkeys(fds, b"")
        self._is_unfinished = False
        self._flush: Callable[[], object] | None = None
        self._open: set[int] = set()  # the host holds the beginning of a line
        poller = select.poll()
        for fd in fds:
            poller.register(fd, select.POLLIN)
        self._poll = poller.poll

    def take_in(self) -> None:
        """Send on what is there, an unfinished line as far as it goes: a crash must not swallow it."""
        with self._lock:
            number = self._tag()
            self._drain(number)
            for fd, rest in self._partial.items():
                end = _whole_characters(rest)
                if end:
                    self._partial[fd] = rest[end:]
                    self._open.add(fd)
                    self._link.send(["log", number, [[self._name(fd), _text(rest[:end]), True]]])

    def finish(self, number: int) -> None:
        """Send on all that a call printed, an unfinished line as well; a microsecond when that is nothing."""
        try:  # noqa: SIM105 - contextlib costs a worker 3 ms
            sys.stdout.flush()
        except (OSError, ValueError, AttributeError):
            pass  # the plugin closed or replaced it
        try:  # noqa: SIM105 - as above
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):
            pass
        if "ctypes" in sys.modules:
            self._flush_libc()
        with self._lock:
            if self._poll(0):
                self._drain(number)
            elif not self._is_unfinished:
                return
            for fd, rest in self._partial.items():
                if rest or fd in self._open:
                    self._partial[fd] = b""
                    self._emit(fd, number, [rest])
            self._is_unfinished = False

    def _flush_libc(self) -> None:
        """Write out what C code left in libc's buffer of stdout; only where somebody loaded ctypes anyway."""
        if self._flush is None:
            import ctypes  # noqa: PLC0415 - loaded already

            try:
                library = ctypes.CDLL(None)
                # Not all streams: that would wait for a thread that reads from one.
                stdout = ctypes.c_void_p.in_dll(library, "stdout")
                flush = library.fflush
                self._flush = lambda: flush(stdout)
            except (OSError, ValueError, AttributeError):
                self._flush = lambda: None
        self._flush()

    def _drain(self, number: int) -> None:
        while True:
            ready = self._poll(0)
            if not ready:
                return
            idle = True
            for fd, _ in ready:
                try:
                    data = os.read(fd, _READ)
                except OSError:
                    continue  # the host took it
                if data:
                    idle = False
                    self._split(fd, number, data)
            if idle:
                return

    def _split(self, fd: int, number: int, data: bytes) -> None:
        lines = (self._partial[fd] + data).split(b"\n")
        rest = lines.pop()
        while len(rest) > _MAX_LINE:
            lines.append(rest[:_MAX_LINE])
            rest = rest[_MAX_LINE:]
        self._partial[fd] = rest
        self._is_unfinished = True
        if lines:
            self._emit(fd, number, lines)

    def _emit(self, fd: int, number: int, lines: list[bytes]) -> None:
        self._open.discard(fd)
        name = self._name(fd)
        self._link.send(["log", number, [[name, text] for line in lines for text in bounded(line)]])

    def _name(self, fd: int) -> str:
        return "stdout" if fd == self.fds[0] else "stderr"


def bounded(line: bytes) -> list[str]:
    """Return one line as text, cut where it is too long."""
    if len(line) <= _MAX_LINE:
        return [_text(line)]
    return [_text(line[at : at + _MAX_LINE]) for at in range(0, len(line), _MAX_LINE)]


def _whole_characters(part: bytes) -> int:
    """Return how many bytes of the beginning of a line do not end within a character."""
    for short in range(min(4, len(part))):
        if part[len(part) - 1 - short] & 0xC0 != 0x80:  # the first byte of the last character
            lead = part[len(part) - 1 - short]
            length = 1 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            return len(part) if length <= short + 1 else len(part) - 1 - short
    return len(part)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "backslashreplace")


class TaggedStream:
    """Stands in for `sys.stdout` or `sys.stderr` while calls run side by side: each line gets its own call.

    Where no call is entered, it passes everything to the stream behind it.
    """

    def __init__(self, stream: Any, name: str, link: Link) -> None:
        self._stream = stream
        self._name = name
        self._link = link
        self.is_active = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Take text; whole lines go out at once, with the call of this context."""
        call = context.current() if self.is_active else None
        if not isinstance(call, WorkerCall) or call.is_done or not isinstance(text, str):
            return int(self._stream.write(text) or 0)
        held = call.held.get(self._name, "") + text
        *lines, rest = held.split("\n")
        if len(rest) > _MAX_LINE:
            lines.append(rest)
            rest = ""
        call.held[self._name] = rest
        if lines:
            self._send(call.number, lines)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each of them."""
        for line in lines:
            self.write(line)

    def finish(self, call: WorkerCall) -> None:
        """Send the unfinished line of a call that ends."""
        rest = call.held.pop(self._name, "")
        if rest:
            self._send(call.number, [rest])

    def _send(self, number: int, lines: list[str]) -> None:
        texts = [line[at : at + _MAX_LINE] for line in lines for at in range(0, max(1, len(line)), _MAX_LINE)]
        self._link.send(["log", number, [[self._name, text] for text in texts]])
