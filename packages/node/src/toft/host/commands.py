"""Runs a command to its end: an argv list, bounded output, a time limit, and nothing left running afterwards.

For programs that do one thing and exit (uv, a package manager, git); workers go through the keeper.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from toft.kernel import errors

_MAIN = str(Path(__file__).with_name("command_main.py"))
_OUTPUT_BYTES = 1_000_000
_READ_BYTES = 64 * 1024


@dataclass(frozen=True)
class Completed:
    """What a command left behind.

    Attributes:
        code: Its exit code; 128 + number when a signal ended it, 126 when it could not be started.
        stdout: The last megabyte of what it printed.
        stderr: The last megabyte of what it complained.
    """

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str


class Run(Protocol):
    """How a command is run; `run` is one way, `confined_commands.py` another."""

    async def __call__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        timeout_s: float,
        keep_fds: Sequence[int] = (),
        writable: Sequence[Path] = (),
    ) -> Completed:
        """Run a command and wait for it; see `run`."""
        ...


class CommandTimeoutError(errors.UnavailableError):
    """A command took longer than it was given; it was ended with everything it had started."""

    code = "command.timed_out"


async def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    timeout_s: float,
    keep_fds: Sequence[int] = (),
    writable: Sequence[Path] = (),
) -> Completed:
    """Run a command and wait for it.

    Args:
        argv: The program and its arguments; no shell sees them.
        env: Its whole environment.
        cwd: Its working directory.
        timeout_s: Seconds after which it is ended.
        keep_fds: Open files that it and its children keep open until they end, such as a lock.
        writable: The only directories it may write, where it can be confined; nothing confines it here.

    Raises:
        CommandTimeoutError: It was ended; `details` carry the last lines.
        NodeError: It could not be started (`process.spawn_failed`).

    Cancellation: Ends the command and everything it started before returning.
    """
    # What has begun to start is there soon: whoever gives it up meanwhile ends it then.
    starting = asyncio.ensure_future(_started(argv, env, cwd, keep_fds))
    stdout, stderr = Tail(), Tail()
    try:
        async with asyncio.timeout(timeout_s):
            process, _ = await asyncio.shield(starting)
            await asyncio.gather(stdout.read(process.stdout), stderr.read(process.stderr), process.wait())
    except TimeoutError:
        raise timed_out(argv, timeout_s, stderr.text()) from None
    finally:
        # Shielded, because nothing may outlive a cancelled caller.
        await asyncio.shield(_ended(starting))
    return Completed(tuple(argv), process.returncode or 0, stdout.text(), stderr.text())


async def _started(
    argv: Sequence[str], env: Mapping[str, str], cwd: Path, keep_fds: Sequence[int]
) -> tuple[asyncio.subprocess.Process, int]:
    """Start a command; it lasts, with all that it starts, as long as the descriptor is open."""
    lifeline, held = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", _MAIN, str(lifeline), *argv),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
            pass_fds=(lifeline, *keep_fds),
        )
    except OSError as error:
        os.close(held)
        raise errors.NodeError(
            f"{argv[0]} could not be started: {error.strerror}", code="process.spawn_failed"
        ) from error
    finally:
        os.close(lifeline)
    return process, held


async def _ended(starting: asyncio.Future[tuple[asyncio.subprocess.Process, int]]) -> None:
    try:
        process, held = await starting
    except errors.NodeError:
        return  # there is none, as whoever waits for it is told
    # Closing the lifeline ends the tree.
    os.close(held)
    await _reaped(process)


async def _reaped(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def timed_out(argv: Sequence[str], timeout_s: float, said: str) -> CommandTimeoutError:
    """Return the error for a command that took too long."""
    return CommandTimeoutError(
        f"{Path(argv[0]).name} was ended after {timeout_s:g} s",
        details={"argv": list(argv), "last_lines": said[-2000:]},
    )


class Tail:
    """The end of a stream."""

    def __init__(self) -> None:
        self._kept = bytearray()

    async def read(self, stream: asyncio.StreamReader | None) -> None:
        """Take everything a stream gives until it ends."""
        assert stream is not None
        while data := await stream.read(_READ_BYTES):
            self._kept += data
            del self._kept[:-_OUTPUT_BYTES]

    def text(self) -> str:
        """Return the last megabyte."""
        return self._kept.decode(errors="replace")
