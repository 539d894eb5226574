"""A process that was started: what it is started with, how it is watched and ended, how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toft.host import process_tree


@dataclass(frozen=True)
class Sandbox:
    """What a worker sees of the file system and the network; everything not named is read-only.

    Attributes:
        hidden: Directories that show as empty.
        read_only: Shown again inside a hidden directory, read-only.
        writable: Directories (or devices) the worker may write.
        network: False gives an empty network of its own.
    """

    hidden: tuple[str, ...] = ()
    read_only: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    network: bool = True


@dataclass(frozen=True)
class Limits:
    """What a worker and everything it starts may use together; None is no limit."""

    memory_bytes: int | None = None
    processes: int | None = None


@dataclass(frozen=True)
class SpawnSpec:
    """A process to start.

    Attributes:
        argv: Absolute path of the program, and its arguments.
        env: The whole environment.
        cwd: Directory it starts in, as seen inside the sandbox.
        fds: Descriptors that become 3, 4, ... in it; the caller keeps and closes its own copies. Never one of
            a directory: the whole file system could be reached through it.
        stdout: Descriptor for its output; None is /dev/null.
        stderr: Descriptor for its errors; None is /dev/null.
        sandbox: None leaves the file system as it is.
        limits: Memory and number of processes.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    fds: tuple[int, ...] = ()
    stdout: int | None = None
    stderr: int | None = None
    sandbox: Sandbox | None = None
    limits: Limits = Limits()


@dataclass(frozen=True)
class Exit:
    """How a process ended; exactly one of `code` and `signal` is set, neither when the keeper was lost.

    Attributes:
        code: Exit code.
        signal: Number of the signal that killed it.
        out_of_memory: True only with evidence.
        evidence: What the claim rests on.
    """

    code: int | None = None
    signal: int | None = None
    out_of_memory: bool = False
    evidence: dict[str, Any] = field(default_factory=dict)


class Process:
    """A process that was started, with everything it has started since.

    Attributes:
        pid: The process itself, in the node's PID namespace.
        started: When, in seconds since boot; with the pid it names the process for good.
        was_killed: Whether we killed it.
        root: What everything it starts descends from: the first process of its namespace, or itself.
        limits: What enforces `memory` and `pids`: `cgroup v1`, `cgroup v2` or (each process alone) `rlimit`.
    """

    def __init__(self, message: Mapping[str, Any], pidfd: int, root_pidfd: int) -> None:
        self.pid: int = message["pid"]
        self.started: float = message["started"]
        self.limits: dict[str, str] = message["limits"]
        self.root: int = message["root"]
        self.was_killed = False
        self._pidfd = pidfd
        self._root_pidfd = root_pidfd
        self._exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    @property
    def exit(self) -> Exit | None:
        """How it ended; None while it runs."""
        return self._exit.result() if self._exit.done() else None

    async def wait(self) -> Exit:
        """Return how it ended, once it and all it started are gone.

        Cancellation: Safe, and any number may wait.
        """
        return await asyncio.shield(self._exit)

    def send_signal(self, number: int) -> None:
        """Signal the process alone; nothing happens when it has ended."""
        self._signal(self._pidfd, number)

    async def end(self, grace_s: float = 0.0) -> Exit:
        """End the process and everything it has started.

        Args:
            grace_s: Seconds between asking (SIGTERM) and killing the tree; 0 kills at once.
        """
        if grace_s > 0 and not self._exit.done():
            self.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(self.wait(), grace_s)
        self.kill()
        return await self.wait()

    def kill(self) -> None:
        """Kill the process and everything it has started; nothing happens when it has ended."""
        self.was_killed = self.was_killed or not self._exit.done()
        self._signal(self._root_pidfd, signal.SIGKILL)

    def tree(self) -> list[int]:
        """Return the live pids, the process itself first. Reads /proc: call it in a thread from a loop."""
        found = [stat.pid for stat in process_tree.descendants(self.root)]
        if self.root == self.pid and self.exit is None:
            found.insert(0, self.pid)
        return found

    def _signal(self, pidfd: int, number: int) -> None:
        if not self._exit.done():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, number)

    def finish(self, exit_: Exit) -> None:
        if not self._exit.done():
            self._exit.set_result(exit_)
            os.close(self._pidfd)
            os.close(self._root_pidfd)
