"""A worker for tests: a real process on one end of a socket pair, a `Connection` on the other."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.waiting import eventually_async

import toft_sdk
from toft.plugins.errors import WireError
from toft.plugins.wire.connection import Connection
from toft.plugins.wire.frames import Beat, LogLine, Welcome
from toft.plugins.wire.segments import SegmentPool

BOOT = str(Path(toft_sdk.__file__).with_name("boot.py"))
PROBES = str(Path(__file__).with_name("fixtures"))


def interpreter_argv(fd: int = 3) -> tuple[str, ...]:
    """Return the command of a worker on a descriptor, with this interpreter."""
    return (sys.executable, "-I", BOOT, str(fd))


@dataclass
class Running:
    """A worker with its process and what it told the host."""

    connection: Connection
    process: subprocess.Popen[bytes]
    lines: list[LogLine] = field(default_factory=list)
    ends: list[WireError | None] = field(default_factory=list)

    async def call(self, action: str, _options: dict[str, Any] | None = None, **arguments: Any) -> Any:
        wanted = {"action": action, "arguments": arguments}
        return await self.connection.request("call", wanted, **(_options or {}))

    def stream(self, action: str, _options: dict[str, Any] | None = None, **arguments: Any) -> Any:
        wanted = {"action": action, "arguments": arguments}
        return self.connection.stream("stream", wanted, **(_options or {}))

    async def until_it_runs(self, number: int | None = None) -> Beat:
        """Wait until the worker is inside a call, and return what it says of itself then."""

        async def beat() -> Beat | None:
            said = await self.connection.ping(stacks=True)
            return said if said.calls and number in (None, *said.calls) else None

        found = await eventually_async(beat, 10)
        assert found is not None
        return found

    def texts(self, call: int | None = None) -> list[str]:
        return [line.text for line in self.lines if call is None or line.call == call]


def spawn(argv: list[str], theirs: socket.socket, **options: Any) -> subprocess.Popen[bytes]:
    """Start a process that inherits one end of a pair; `FD` in its arguments becomes the number."""
    with theirs:
        fd = theirs.fileno()
        argv = [str(fd) if each == "FD" else each for each in argv]
        return subprocess.Popen(argv, pass_fds=[fd], stdin=subprocess.DEVNULL, **options)


@contextlib.asynccontextmanager
async def worker(
    class_name: str | None = "Probe",
    *,
    module: str = "probes",
    python: str = sys.executable,
    load: bool = True,
    argv: list[str] | None = None,
    segments: SegmentPool | None = None,
    **welcome: Any,
) -> AsyncIterator[Running]:
    """Run a worker; its process is ended afterwards whatever happened."""
    lines: list[LogLine] = []
    ends: list[WireError | None] = []
    ours, theirs = socket.socketpair()
    connection = Connection(
        ours, segments=segments or SegmentPool(), on_log=lines.append, on_lost=ends.append
    )
    stdout, stderr = connection.output_fds
    process = spawn(argv or [python, "-I", BOOT, "FD"], theirs, stdout=stdout, stderr=stderr)
    running = Running(connection, process, lines, ends)
    try:
        welcome.setdefault("paths", (PROBES,))
        await connection.open(Welcome(module=module, class_name=class_name, **welcome))
        if load:
            await connection.request("load")
            await connection.request("initialize", {"config": {}})
        yield running
    finally:
        connection.close()
        try:
            await asyncio.to_thread(process.wait, 5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
