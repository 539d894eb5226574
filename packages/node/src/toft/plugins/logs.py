"""One bounded, rotated log file per instance; every line says when, from where and in which call.

Lines arrive on the event loop and are written by one thread for all instances. A flood is counted, not kept:
what the disk cannot take in time is dropped, and a line says how much.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from toft.kernel import clock as clocks
from toft.kernel import log
from toft.plugins import log_reading

_log = log.get_logger("plugins.logs")
_REMEMBERED_LINES = 200
_LONGEST_LINE = 16_384
_PENDING_BYTES = 4_000_000
_OVERHEAD = 64
_BATCH = 5000
# Escape sequences of a plugin must not reach the terminal of whoever reads its log.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), 127) if code not in (9, 10)}


class Line(Protocol):
    """What a worker said."""

    @property
    def time(self) -> float:
        """Seconds since 1970."""
        ...

    @property
    def stream(self) -> str:
        """`stdout`, `stderr`, `log` or `node`."""
        ...

    @property
    def call(self) -> int:
        """The call that was running; 0 for none."""
        ...

    @property
    def text(self) -> str:
        """The line itself, or the event word of a structured one."""
        ...

    @property
    def level(self) -> str:
        """Of a structured line; empty for a printed one."""
        ...

    @property
    def fields(self) -> Mapping[str, Any]:
        """Of a structured line."""
        ...


class Sink(Protocol):
    """Where the writer's thread puts lines."""

    def write(self, lines: list[Line]) -> None:
        """Take lines; may block."""
        ...


class LogWriter:
    """The thread that writes; one per node."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[Sink, Line | None] | None] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._listeners: dict[Path, set[Callable[[], object]]] = {}
        self._thread = threading.Thread(target=self._run, name="toft-logs", daemon=True)
        self._thread.start()

    def put(self, target: Sink, line: Line | None) -> None:
        """Hand over a line; returns at once."""
        self._queue.put((target, line))

    @contextlib.contextmanager
    def listening(self, path: Path) -> Iterator[asyncio.Event]:
        """Give what is set whenever something was written to a file, while the `with` block lasts."""
        loop, stirred = asyncio.get_running_loop(), asyncio.Event()

        def stir() -> None:
            with contextlib.suppress(RuntimeError):  # its loop is closed, and with it whoever listened
                loop.call_soon_threadsafe(stirred.set)

        with self._guard:
            self._listeners.setdefault(path, set()).add(stir)
        try:
            yield stirred
        finally:
            with self._guard:
                mine = self._listeners[path]
                mine.discard(stir)
                if not mine:
                    del self._listeners[path]

    def tell(self, path: Path) -> None:
        """Tell who listens that something was written; called in the thread that did."""
        with self._guard:
            for stir in self._listeners.get(path, ()):
                stir()

    async def flush(self) -> None:
        """Return when everything handed over so far is in the files."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        self._queue.put((_Marker(lambda: loop.call_soon_threadsafe(done.set)), None))
        await done.wait()

    async def close(self) -> None:
        """Write what is left and end the thread."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            batch: dict[Sink, list[Line]] = {}
            taken = 0
            while item is not None:
                lines = batch.setdefault(item[0], [])
                if item[1] is not None:
                    lines.append(item[1])
                taken += 1
                if taken == _BATCH or self._queue.empty():
                    break
                item = self._queue.get()
            for target, lines in batch.items():
                target.write(lines)
            if item is None:
                return


class InstanceLog:
    """The log of one instance.

    Args:
        path: The current file; rotated ones are beside it with `.1`, `.2`…
        writer: The thread.
        max_bytes: Size at which a file is rotated.
        files: Rotated files that are kept.
        redact: Takes secrets out of a text.
    """

    def __init__(
        self,
        path: Path,
        writer: LogWriter,
        *,
        max_bytes: int = 4_000_000,
        files: int = 2,
        redact: Callable[[str], str] = str,
    ) -> None:
        self.path = path
        self._writer = writer
        self._max_bytes = max_bytes
        self._files = files
        self._redact = redact
        self._recent: deque[Line] = deque(maxlen=_REMEMBERED_LINES)
        self._pending = 0
        self._dropped = 0
        self._guard = threading.Lock()
        self.lines = 0

    def add(self, line: Line) -> None:
        """Take one line; returns at once."""
        self.lines += 1
        self._recent.append(line)
        if self._pending > _PENDING_BYTES:
            self._dropped += 1
            return
        with self._guard:
            self._pending += len(line.text) + _OVERHEAD
        self._writer.put(self, line)

    def recent(self, count: int = 20) -> list[str]:
        """Return the last lines of this run, from memory."""
        lines = list(self._recent)[-count:] if count > 0 else []
        return self._format(lines).splitlines()

    def _format(self, lines: Iterable[Line]) -> str:
        """Return lines as they are shown; in one go, because a flood comes in thousands."""
        shown: list[str] = []
        stamped, stamp = -1.0, ""
        for line in lines:
            if line.time != stamped:
                stamped, stamp = line.time, clocks.rfc3339(line.time)
            text = line.text[:_LONGEST_LINE]
            if line.level:
                text = " ".join(
                    (line.level, text, *(f"{name}={value}" for name, value in line.fields.items()))
                )
            if "\n" in text:
                text = text.replace("\n", "\\x0a")
            shown.append(f"{stamp} {line.stream} {line.call or '-'} {text}\n")
        return self._redact("".join(shown)).translate(_CONTROLS)

    async def tail(self, count: int = 50) -> list[str]:
        """Return the last lines, earlier runs included, from the files."""
        await self._writer.flush()
        return await asyncio.to_thread(read_tail, self.path, count, self._files)

    def listening(self) -> contextlib.AbstractContextManager[asyncio.Event]:
        """Give what is set whenever something was written, by whichever object of this log."""
        return self._writer.listening(self.path)

    async def read_after(self, after: log_reading.Place | None) -> log_reading.Piece:
        """Return what is in the files after a place; the end of the log for None."""
        return await asyncio.to_thread(log_reading.read_after, self.path, after, self._files)

    def write(self, lines: list[Line]) -> None:
        """Append to the file; runs in the writer's thread."""
        with self._guard:
            self._pending -= sum(len(line.text) + _OVERHEAD for line in lines)
            dropped, self._dropped = self._dropped, 0
        text = self._format(lines)
        if dropped:
            text += f"{clocks.rfc3339(lines[-1].time)} node - {dropped} lines dropped\n"
        data = text.encode("utf-8", "replace")
        try:
            self._rotate(len(data))
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
            try:
                os.write(fd, data[-self._max_bytes :])
            finally:
                os.close(fd)
        except OSError as error:
            # A full disk must not stop the calls whose output it cannot take.
            _log.debug("log_not_written", path=str(self.path), error=str(error))
        self._writer.tell(self.path)

    def _rotate(self, coming: int) -> None:
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return
        if size == 0 or size + coming <= self._max_bytes:
            return
        if self._files == 0:
            self.path.unlink()
            return
        for number in range(self._files - 1, 0, -1):
            older = rotated(self.path, number)
            if older.exists():
                older.replace(rotated(self.path, number + 1))
        self.path.replace(rotated(self.path, 1))


class _Marker:
    """Takes the place of a log in the queue and says when its turn has come."""

    def __init__(self, reached: Callable[[], object]) -> None:
        self._reached = reached

    def write(self, lines: list[Line]) -> None:
        self._reached()


def rotated(path: Path, number: int) -> Path:
    """Return the name of the n-th older file."""
    return path.with_name(f"{path.name}.{number}")


def read_tail(path: Path, count: int, files: int = 2) -> list[str]:
    """Return the last lines of a log and of the older files beside it."""
    lines: list[str] = []
    for candidate in (path, *(rotated(path, number) for number in range(1, files + 1))):
        try:
            text = candidate.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            continue
        lines = text.splitlines() + lines
        if len(lines) >= count:
            break
    return lines[-count:] if count > 0 else []
