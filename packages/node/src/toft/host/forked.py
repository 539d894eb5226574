"""A process that a worker forked for us: the handle of `keeper.Process` for a child of a zygote.

It lives in the namespaces of the worker it came from, so it ends with that one at the latest. Ending it
alone takes its own tree and leaves the zygote and its other children as they are. For that the child opens a
session and becomes a subreaper (`PR_SET_CHILD_SUBREAPER`) before anything else: then its daemons stay below
it, and what has no parent left but the first process of the namespace is known to come from a dead one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

from toft.host import process_tree
from toft.host.keeper import Exit, Process
from toft.kernel.errors import NotFoundError

# The parent reaps the process and tells how it ended; this is for a parent that never does.
_TOLD_WITHIN_S = 1.0
_SWEEPS = 100


class Forked:
    """A process that a worker forked, with everything it has started since.

    Attributes:
        pid: The process, in the node's PID namespace.
        started: When, in seconds since boot; with the pid it names the process for good.
        root: The process itself: what it starts descends from it.
        limits: Those of the worker it was forked from, which it shares.
    """

    def __init__(self, parent: Process, pid: int, pidfd: int) -> None:
        loop = asyncio.get_running_loop()
        self.pid = pid
        self.started = process_tree.started_s(pid)
        self.root = pid
        self.limits = parent.limits
        self._parent = parent
        self._pidfd = pidfd
        self._loop = loop
        self._told: asyncio.Future[int] = loop.create_future()
        self._exit: asyncio.Future[Exit] = loop.create_future()
        self._ending: asyncio.Task[None] | None = None
        loop.add_reader(pidfd, self._on_end)

    @classmethod
    async def find(cls, parent: Process, local_pid: int) -> Forked:
        """Take charge of a child of a worker.

        Args:
            parent: The worker that forked it.
            local_pid: The pid as the worker sees it, in its own namespace.

        Raises:
            NotFoundError: The worker has no such child (any more).
        """
        pid = await asyncio.to_thread(_find, parent.pid, local_pid)
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid) if pid > 0 else -1
            stat = process_tree.read(pid)
            if stat is not None and stat.parent == parent.pid:
                return cls(parent, pid, pidfd)
            if pidfd >= 0:
                os.close(pidfd)
        raise NotFoundError(f"the worker has no child {local_pid}", code="process.not_found", blame="plugin")

    @property
    def exit(self) -> Exit | None:
        """How it ended; None while it runs."""
        return self._exit.result() if self._exit.done() else None

    def tell(self, status: int) -> None:
        """Hand over the wait status that the worker got when it reaped the process."""
        if not self._told.done():
            self._told.set_result(status)

    async def wait(self) -> Exit:
        """Return how it ended, once it and all it started are gone.

        Cancellation: Safe, and any number may wait.
        """
        return await asyncio.shield(self._exit)

    def send_signal(self, number: int) -> None:
        """Signal the process alone; nothing happens when it has ended."""
        if not self._exit.done():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def end(self, grace_s: float = 0.0) -> Exit:
        """End the process and everything it has started.

        Args:
            grace_s: Seconds between asking (SIGTERM) and killing the tree; 0 kills at once.
        """
        if grace_s > 0 and not self._exit.done():
            self.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(self.wait(), grace_s)
        if not self._exit.done():
            await asyncio.to_thread(self._kill_tree)
        return await self.wait()

    def tree(self) -> list[int]:
        """Return the live pids, the process itself first. Reads /proc: call it in a thread from a loop."""
        found = [stat.pid for stat in process_tree.descendants(self.pid)]
        return found if self._exit.done() else [self.pid, *found]

    def _kill_tree(self) -> None:
        """Kill what descends from it now; what loses its parent meanwhile is swept up afterwards."""
        found = process_tree.descendants(self.pid)
        self.send_signal(signal.SIGKILL)
        for stat in found:
            _kill(stat.pid)

    def _on_end(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._ending = self._loop.create_task(self._finish())

    async def _finish(self) -> None:
        await asyncio.to_thread(_sweep, self._parent.root, self._parent.pid, self.pid)
        if self._parent.exit is None:
            await asyncio.wait({self._told}, timeout=_TOLD_WITHIN_S)
        status = self._told.result() if self._told.done() else None
        os.close(self._pidfd)
        self._exit.set_result(_exit_of(status))


def _find(parent: int, local_pid: int) -> int:
    """Return the node's pid of a worker's child; 0 when there is none."""
    # The newest first: it was forked a moment ago, and the kernel counts upwards.
    for pid in sorted((int(name) for name in os.listdir("/proc") if name.isdigit()), reverse=True):
        stat = process_tree.read(pid)
        if stat is not None and stat.parent == parent and _local_pid(pid) == local_pid:
            return pid
    return 0


def _local_pid(pid: int) -> int:
    """Return the pid of a process in its own namespace; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/status") as file:
            # The pids of one process, from our namespace down to its own.
            return next(int(line.split()[-1]) for line in file if line.startswith("NSpid:"))
    except (OSError, StopIteration):
        return 0


def _sweep(root: int, worker: int, dead: int) -> None:
    """Kill what a dead process of a worker left.

    In a namespace its first process has no other child than the worker, so any other is an orphan. Without
    one, orphans come to the worker, and are known by the session the dead process opened; one that opened a
    session of its own stays until the worker ends.
    """
    for _ in range(_SWEEPS):
        by_parent = process_tree.children()
        if root != worker:
            left = [stat for stat in by_parent.get(root, ()) if stat.pid != worker]
        else:
            left = [stat for stats in by_parent.values() for stat in stats if stat.session == dead]
        if not left:
            return
        for stat in left:
            for one in (stat, *process_tree.descendants(stat.pid, by_parent)):
                _kill(one.pid)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _exit_of(status: int | None) -> Exit:
    if status is None:
        return Exit(evidence={"status": "not told by its parent"})
    code = os.waitstatus_to_exitcode(status)
    return Exit(code=code) if code >= 0 else Exit(signal=-code)
