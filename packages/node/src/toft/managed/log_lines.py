"""Reads a node's own log on, through its rotations, from where a central has it up to, as rows for that.

A file of the log is known by its number on the disk and by its first line, whatever its name is by now.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from toft.kernel import log
from toft.managed import protocol, telemetry
from toft.managed.telemetry import Batch, Mark

_log = log.get_logger("managed.log_lines")

LEVELS = protocol.LEVELS
_EVENT = re.compile(r"timestamp='([^']{1,40})' level='(\w{1,10})' (.*)", re.DOTALL)
# What no logger wrote is from a library or from the interpreter, and rarely good news.
_PRINTED = "warning"
_LONGEST = 16 << 10
_FIRST_LINE = 4096
Row = dict[str, str | None]


@dataclass(frozen=True, kw_only=True)
class _File:
    fd: int
    partition: str
    size: int


class LogLines:
    """The rows of a log.

    Args:
        path: The file that is written; older ones are beside it with `.1`, `.2`…
        files: How many of these there are at most.
        level: The least that is of interest, of `LEVELS`.
        begins: From where on a central that has nothing yet is told; see `end`.
        redact: Takes out of a text what must not leave the machine.
    """

    signal = protocol.LOGS

    def __init__(
        self, path: Path, files: int, level: str, begins: Mark, redact: Callable[[str], str] = str
    ) -> None:
        self._names = [path, *(path.with_name(f"{path.name}.{n}") for n in range(1, files + 1))]
        self._level = level
        self._begins = begins
        self._redact = redact

    async def begin(self) -> Mark:
        """Return where the log ended when this process started."""
        return self._begins

    async def read(self, mark: Mark) -> Batch | None:
        """Return what was logged after a mark; see `telemetry.Source`."""
        return await asyncio.to_thread(self._read, mark)

    def _read(self, mark: Mark) -> Batch | None:
        with contextlib.ExitStack() as opened:
            found = _open(self._names, opened)
            if not found:
                return None
            place = next((n for n, each in enumerate(found) if each.partition == mark.partition), None)
            if place is None:
                if mark.partition:
                    _log.warning("log lines lost: rotated away before a central had them")
                place, mark = 0, Mark()
            while mark.at >= found[place].size and place + 1 < len(found):
                place, mark = place + 1, Mark()
            batch = self._batch(found[place], mark, is_newest=place + 1 == len(found))
            return batch and replace(batch, is_last=batch.is_last and place + 1 == len(found))

    def _batch(self, file: _File, mark: Mark, *, is_newest: bool) -> Batch | None:
        how = mark.how if mark.until else self._level
        most = mark.until - mark.at if mark.until else telemetry.CHUNK_BYTES
        data = os.pread(file.fd, most, mark.at)
        if not mark.until:
            data = _whole_lines(data, is_ended=not is_newest and mark.at + len(data) >= file.size)
        if not data:
            return None
        rows = list(self._rows(data, how))
        until = mark.at + len(data)
        return Batch(
            mark=Mark(partition=file.partition, at=mark.at, until=until, how=how),
            rows=rows,
            is_last=until >= file.size,
        )

    def _rows(self, data: bytes, how: str) -> Iterator[Row]:
        wanted = LEVELS[LEVELS.index(how) if how in LEVELS else 0 :]
        at: str | None = None
        printed: list[str] = []

        def gathered() -> Iterator[Row]:
            if printed and _PRINTED in wanted:
                yield self._row(at, _PRINTED, "\n".join(printed))
            printed.clear()

        for line in data.removesuffix(b"\n").decode("utf-8", "replace").split("\n"):
            event = _EVENT.fullmatch(line)
            if event is None:
                printed.append(line)
                continue
            yield from gathered()
            at = event[1]
            if event[2] in wanted or event[2] not in LEVELS:
                yield self._row(at, event[2], event[3])
        yield from gathered()

    def _row(self, at: str | None, level: str, text: str) -> Row:
        text = self._redact(text)
        cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"
        return {"at": at, "level": level, "text": cut}


def end(path: Path) -> Mark:
    """Return where a log ends now; blocks."""
    with contextlib.ExitStack() as opened:
        found = _open([path], opened)
        return Mark(partition=found[0].partition, at=found[0].size) if found else Mark()


def _open(names: list[Path], opened: contextlib.ExitStack) -> list[_File]:
    """Open the files of a log; return them, the oldest first.

    The newest is opened first: what is rotated meanwhile is seen twice then, and never missed.
    """
    found: dict[str, _File] = {}
    for name in names:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue
        opened.callback(os.close, fd)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            continue
        first, newline, _ = os.pread(fd, _FIRST_LINE, 0).partition(b"\n")
        if newline or len(first) == _FIRST_LINE:
            named = hashlib.sha256(b"%d\n%s" % (status.st_ino, first)).hexdigest()[:32]
            found.setdefault(named, _File(fd=fd, partition=named, size=status.st_size))
    return list(reversed(found.values()))


def _whole_lines(data: bytes, *, is_ended: bool) -> bytes:
    """Return as many whole lines as a chunk takes; a part of one where no more comes, or it is too long."""
    ends = list(itertools.islice(re.finditer(rb"\n", data), telemetry.CHUNK_ROWS))
    if len(ends) < telemetry.CHUNK_ROWS and (is_ended or (not ends and len(data) >= telemetry.CHUNK_BYTES)):
        return data
    return data[: ends[-1].end()] if ends else b""
