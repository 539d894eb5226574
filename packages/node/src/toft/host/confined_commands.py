"""Runs a command in the sandbox of a worker: a package's own build is the author's code, not ours.

It reads what a worker may read, and writes only where it is told. The keeper ends it with the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from toft.host import commands, keeper


class ConfinedCommands:
    """Runs commands through the keeper, in namespaces.

    Args:
        kept: Starts and ends them.
        hidden: Directories that show as empty: the node's home, a person's keys.
    """

    def __init__(self, kept: keeper.Keeper, hidden: Sequence[str]) -> None:
        self._keeper = kept
        self._hidden = tuple(hidden)

    async def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        timeout_s: float,
        keep_fds: Sequence[int] = (),
        writable: Sequence[Path] = (),
    ) -> commands.Completed:
        """Run a command and wait for it; see `commands.run`.

        `keep_fds` are not passed on: through an open directory the whole file system could be reached. They
        are not needed either: should a directory be swept too early, what writes here still has the old one.
        """
        stdout, stderr = commands.Tail(), commands.Tail()
        async with _pipe() as (out, out_end), _pipe() as (err, err_end):
            spec = keeper.SpawnSpec(
                argv=tuple(argv),
                env=env,
                cwd=str(cwd),
                stdout=out_end.fileno(),
                stderr=err_end.fileno(),
                sandbox=keeper.Sandbox(hidden=self._hidden, writable=tuple(map(str, writable))),
            )
            process = await self._keeper.spawn(spec)
            out_end.close()
            err_end.close()
            try:
                async with asyncio.timeout(timeout_s):
                    _, _, ended = await asyncio.gather(stdout.read(out), stderr.read(err), process.wait())
            except TimeoutError:
                raise commands.timed_out(argv, timeout_s, stderr.text()) from None
            finally:
                # Shielded, because nothing may outlive a cancelled caller.
                await asyncio.shield(process.end())
        code = ended.code if ended.code is not None else 128 + (ended.signal or 0)
        return commands.Completed(tuple(argv), code, stdout.text(), stderr.text())


@contextlib.asynccontextmanager
async def _pipe() -> AsyncIterator[tuple[asyncio.StreamReader, IO[bytes]]]:
    """Open a pipe and give its reading end as a stream; the writing end is closed once handed on."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb", 0) as writer:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", 0)
        )
        try:
            yield reader, writer
        finally:
            transport.close()
