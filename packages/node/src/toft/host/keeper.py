"""Starts, watches and ends worker processes; the only place of the node that spawns.

The work is done by one small process, the keeper (`keeper_program.py`), so that a worker has a parent that
reaps it, kills its whole tree, and does so even when the node itself is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from toft.host.processes import Exit, Limits, Process, Sandbox, SpawnSpec
from toft.kernel.errors import NodeError, UnavailableError

__all__ = ["Exit", "Isolation", "Keeper", "Limits", "Mode", "Process", "Sandbox", "SpawnSpec"]

_PROGRAM = str(Path(__file__).with_name("keeper_main.py"))
_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 10.0

Mode = Literal["namespaces", "plain"]


@dataclass(frozen=True)
class Isolation:
    """What separates a worker from the rest of the machine.

    Attributes:
        mode: `namespaces` (own processes, mounts, IPC, no capabilities) or `plain` (own session, tree ended).
        reason: Why it is not `namespaces`; empty when it is.
        landlock: Version of the kernel's Landlock, which holds back signals, traces and abstract sockets, and
            in `plain` also writes; 0 when there is none.
    """

    mode: Mode
    reason: str = ""
    landlock: int = 0


class _Link:
    """The socket to one keeper process; ends when either side does."""

    def __init__(self, sock: socket.socket, pid: int, pidfd: int) -> None:
        loop = asyncio.get_running_loop()
        self.pid = pid
        self.ready: asyncio.Future[Isolation] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self.processes: dict[int, Process] = {}
        self._loop = loop
        self._sock = sock
        self._pidfd = pidfd
        self._asked: dict[int, asyncio.Future[Process]] = {}
        self._outbox: list[tuple[bytes, list[int]]] = []
        self._number = 0
        sock.setblocking(False)
        loop.add_reader(sock, self._on_readable)
        loop.add_reader(pidfd, self._on_keeper_gone)

    @classmethod
    def open(cls, isolation: str, *, with_control_groups: bool) -> _Link:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            groups = "groups" if with_control_groups else "none"
            argv = [sys.executable, "-I", "-S", _PROGRAM, "3", isolation, groups]
            # Nothing of the node's environment: the first process of each sandbox inherits the keeper's.
            pid = os.posix_spawn(
                sys.executable,
                argv,
                {"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 3)],
            )
        return cls(ours, pid, os.pidfd_open(pid))

    def spawn(self, spec: SpawnSpec) -> asyncio.Future[Process]:
        self._number += 1
        answer: asyncio.Future[Process] = self._loop.create_future()
        order = {
            "argv": spec.argv,
            "env": dict(spec.env),
            "cwd": spec.cwd,
            "streams": [spec.stdout is not None, spec.stderr is not None],
            "fds": len(spec.fds),
            "sandbox": None if spec.sandbox is None else asdict(spec.sandbox),
            "memory_bytes": spec.limits.memory_bytes,
            "processes": spec.limits.processes,
        }
        given = [fd for fd in (spec.stdout, spec.stderr, *spec.fds) if fd is not None]
        try:
            fds = _hold(json.dumps(order).encode(), given)
        except OSError as error:
            raise _spawn_failed({"step": "hold the descriptors to pass", "errno": error.errno}) from error
        self._asked[self._number] = answer
        self._outbox.append((json.dumps({"id": self._number}).encode(), fds))
        self._flush()
        return answer

    def close(self) -> None:
        """Hang up; the keeper kills everything and exits."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()

    def kill(self) -> None:
        if not self.gone.done():
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _flush(self) -> None:
        while self._outbox and self._sock.fileno() >= 0:
            data, fds = self._outbox[0]
            try:
                socket.send_fds(self._sock, [data], fds)
            except BlockingIOError:
                self._loop.add_writer(self._sock, self._flush)
                return
            except ConnectionError:
                return  # the reader sees the end, and fails what was asked
            self._outbox.pop(0)
            for fd in fds:
                os.close(fd)
        if self._sock.fileno() >= 0:
            self._loop.remove_writer(self._sock)

    def _on_readable(self) -> None:
        while self._sock.fileno() >= 0:
            try:
                data, fds, _, _ = socket.recv_fds(self._sock, 65536, 2, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except ConnectionError:
                data, fds = b"", []
            if not data:
                self.close()
                self.kill()
                return
            self._on_message(json.loads(data), fds)

    def _on_message(self, message: dict[str, Any], fds: list[int]) -> None:
        op = message["op"]
        if op == "ready":
            self.ready.set_result(Isolation(message["isolation"], message["reason"], message["landlock"]))
        elif op == "started":
            process = Process(message, fds[0], fds[1])
            self.processes[message["id"]] = process
            answer = self._asked.pop(message["id"])
            if answer.cancelled():
                process.kill()
            else:
                answer.set_result(process)
        elif op == "failed":
            answer = self._asked.pop(message["id"])
            if not answer.cancelled():
                answer.set_exception(_spawn_failed(message))
        elif op == "exited":
            process = self.processes.pop(message["id"])
            process.finish(_exit_of(message, ended_by_us=process.was_killed))

    def _on_keeper_gone(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._on_readable()
        self.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        os.close(self._pidfd)
        lost = UnavailableError("the keeper process has ended", code="process.keeper_lost")
        waiters: list[asyncio.Future[Any]] = [self.ready, *self._asked.values()]
        for waiting in waiters:
            if not waiting.done():
                waiting.set_exception(lost)
        for _, fds in self._outbox:
            for fd in fds:
                os.close(fd)
        for process in self.processes.values():
            # The kernel kills a process whose keeper died; how it would have ended nobody knows.
            process.kill()
            process.finish(Exit(evidence={"keeper": "lost"}))
        self._asked.clear()
        self._outbox.clear()
        self.processes.clear()
        self.gone.set_result(None)


@dataclass(frozen=True)
class _Settings:
    isolation: str
    with_control_groups: bool


class Keeper:
    """Spawns processes that end with the node.

    One per node; used from the loop it was started in.
    """

    def __init__(self, link: _Link, settings: _Settings, isolation: Isolation) -> None:
        self._link = link
        self._settings = settings
        self._is_closed = False
        self._restarting = asyncio.Lock()
        self.isolation = isolation

    @classmethod
    async def start(
        cls, isolation: Literal["auto", "namespaces", "plain"] = "auto", *, with_control_groups: bool = True
    ) -> Keeper:
        """Start the keeper process.

        Args:
            isolation: `auto` takes namespaces where the machine allows them.
            with_control_groups: False holds limits by resource limits alone.

        Raises:
            UnavailableError: It did not start, or cannot give the isolation asked for.
        """
        settings = _Settings(isolation, with_control_groups)
        link, found = await _open(settings)
        return cls(link, settings, found)

    @property
    def pid(self) -> int:
        """The keeper process itself."""
        return self._link.pid

    async def spawn(self, spec: SpawnSpec) -> Process:
        """Start a process; a keeper that was lost is started again first.

        Raises:
            NodeError: `process.spawn_failed`; the details name the step and the reason, and nothing is left.
            UnavailableError: `process.keeper_lost` while it was starting.

        Cancellation: Safe; what was started nevertheless is killed.
        """
        async with self._restarting:
            if self._is_closed:
                raise UnavailableError("the keeper is closed", code="process.keeper_closed")
            if self._link.gone.done():
                self._link, self.isolation = await _open(self._settings)
        return await self._link.spawn(spec)

    async def close(self) -> None:
        """End every process it has spawned, and the keeper process."""
        self._is_closed = True
        ending = [process.end() for process in self._link.processes.values()]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*ending), _STOP_TIMEOUT_S)
        self._link.close()
        try:
            await asyncio.wait_for(asyncio.shield(self._link.gone), _STOP_TIMEOUT_S)
        except TimeoutError:
            self._link.kill()
            await self._link.gone


async def _open(settings: _Settings) -> tuple[_Link, Isolation]:
    wanted = settings.isolation
    try:
        link = _Link.open(wanted, with_control_groups=settings.with_control_groups)
    except OSError as error:
        raise UnavailableError(
            f"the keeper process cannot be started: {error}", code="process.keeper_lost"
        ) from error
    try:
        found = await asyncio.wait_for(asyncio.shield(link.ready), _START_TIMEOUT_S)
    except TimeoutError as error:
        link.kill()
        await link.gone
        raise UnavailableError("the keeper process did not start", code="process.keeper_lost") from error
    if wanted == "namespaces" and found.mode != wanted:
        link.close()
        await link.gone
        raise UnavailableError(
            f"this machine does not allow namespaces: {found.reason}",
            code="process.isolation_unavailable",
            hint="toft doctor",
        )
    return link, found


def _hold(order: bytes, given: list[int]) -> list[int]:
    """Return descriptors to send, the first of a file with the order.

    In a file, because an environment may be larger than a packet; duplicates, because the caller may close
    its descriptors before a full socket takes them.
    """
    held: list[int] = []
    try:
        held.append(os.memfd_create("toft-spawn"))
        os.set_blocking(held[0], False)
        os.write(held[0], order)
        held.extend(map(os.dup, given))
    except OSError:
        for fd in held:
            os.close(fd)
        raise
    return held


def _spawn_failed(message: Mapping[str, Any]) -> NodeError:
    reason = os.strerror(message["errno"])
    return NodeError(
        f"the process could not be started: {message['step']}: {reason}",
        code="process.spawn_failed",
        details={"step": message["step"], "errno": message["errno"], "reason": reason},
    )


def _exit_of(message: Mapping[str, Any], *, ended_by_us: bool) -> Exit:
    code = os.waitstatus_to_exitcode(message["status"])
    evidence = message["evidence"]
    # The counter alone is not enough: it also rises for a child that the process survived.
    killed = code == -signal.SIGKILL and (message["alone"] or not ended_by_us)
    return Exit(
        code=code if code >= 0 else None,
        signal=-code if code < 0 else None,
        out_of_memory=killed and evidence.get("oom_kills", 0) > 0,
        evidence=evidence,
    )
