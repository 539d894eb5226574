"""What each job printed: a bounded file for each that printed anything, and bounded in all."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from toft.kernel import ids
from toft.plugins import logs

_FILE_BYTES = 1_000_000
_OLDER_FILES = 1
_TOTAL_BYTES = 256_000_000
_SWEEP_EVERY = 256


class JobLogs:
    """The logs of jobs.

    Args:
        directory: Where they are, by job.
        writer: The thread that writes.
        redact: Takes secrets out of a text.
        total_bytes: The most all of them take; the oldest go first.
    """

    def __init__(
        self,
        directory: Path,
        writer: logs.LogWriter,
        *,
        redact: Callable[[str], str] = str,
        total_bytes: int = _TOTAL_BYTES,
    ) -> None:
        self._directory = directory
        self._writer = writer
        self._redact = redact
        self._total_bytes = total_bytes
        self._made = 0
        self._sweeping: asyncio.Future[None] | None = None

    def open(self, job_id: str) -> logs.InstanceLog:
        """Return the log of a job, to be written to; its file is made with the first line."""
        self._made += 1
        if self._made % _SWEEP_EVERY == 0 and (self._sweeping is None or self._sweeping.done()):
            self._sweeping = asyncio.ensure_future(asyncio.to_thread(self.sweep))
        return logs.InstanceLog(
            self._path(job_id), self._writer, max_bytes=_FILE_BYTES, files=_OLDER_FILES, redact=self._redact
        )

    async def tail(self, job_id: str, count: int) -> list[str]:
        """Return the last lines of a job; none when it printed nothing, or so long ago that they are gone."""
        await self._writer.flush()
        return await asyncio.to_thread(logs.read_tail, self._path(job_id), count, _OLDER_FILES)

    def sweep(self) -> None:
        """Remove the oldest files until the rest fits; blocks."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self._directory):
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    found.append((status.st_mtime, status.st_size, entry.path))
        left = sum(size for _, size, _ in found) - self._total_bytes
        for _, size, path in sorted(found):
            if left <= 0:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
                left -= size

    async def close(self) -> None:
        """Wait for a sweep that is on its way."""
        if self._sweeping is not None:
            await asyncio.wait({self._sweeping})

    def _path(self, job_id: str) -> Path:
        # An id becomes a path, so it is checked like every name.
        return self._directory / f"{ids.check_name(job_id.lower(), 'job id')}.log"
