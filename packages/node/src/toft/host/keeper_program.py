"""The keeper: the one process that starts and reaps every worker of a node, and outlives none of them.

It has one thread, holds no state but its children, and talks to the node over one socket. When that socket
closes or the node's process ends, it kills everything it started and exits. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import select
import signal
import socket

from toft.host import landlock, launch, limits, namespaces, process_tree

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` costs every keeper 0.7 MB
    from collections.abc import Callable
    from typing import Any, NoReturn

_MAX_FDS = 250
_SANDBOX = namespaces.NEW_NAMESPACE_PID | namespaces.NEW_NAMESPACE_MOUNT | namespaces.NEW_NAMESPACE_IPC


class _Started:
    """One child of the keeper: the first process of a namespace, or a worker itself."""

    def __init__(
        self, number: int, root: int, root_pidfd: int, setup: socket.socket, status: int, group: limits.Group
    ) -> None:
        self.number = number
        self.group = group
        self.root = root
        self.root_pidfd = root_pidfd
        self.setup = setup
        self.status = status
        self.worker_pidfd = -1
        self.failure: dict[str, Any] | None = None
        self.is_running = False


class _Keeper:
    def __init__(self, host: socket.socket, *, with_control_groups: bool) -> None:
        self._host = host
        self._started: dict[int, _Started] = {}
        self._ended: list[tuple[_Started, int]] = []
        self._pidfd = os.pidfd_open(os.getpid())
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._is_closing = False
        self._with_namespaces = False
        self._groups = limits.Groups(is_allowed=with_control_groups)

    def run(self, isolation: str, parent: int) -> None:
        wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._watch(wake_read, lambda: self._drain(wake_read))
        self._watch(self._host.fileno(), self._on_host)
        # The socket alone is not enough: a fork of the node would hold a copy of its end.
        with contextlib.suppress(ProcessLookupError):
            self._watch(os.pidfd_open(parent), self._close)
        mode, reason = self._choose(isolation)
        self._with_namespaces = mode == "namespaces"
        self._groups.remove_stale()
        ready = {"op": "ready", "isolation": mode, "reason": reason, "landlock": landlock.version()}
        self._send(ready)
        gc.collect()
        gc.freeze()  # a collection in a fork would copy every page it touches
        while not (self._is_closing and not self._started and not self._ended):
            for fd, _ in self._poll.poll():
                handler = self._handlers.get(fd)
                if handler is not None:
                    handler()
            self._reap()
        self._groups.close()

    # -- the node's requests

    def _on_host(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._host, 4096, _MAX_FDS, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            data, fds = b"", []
        if not data:
            self._close()
            return
        request = json.loads(data)
        try:
            self._spawn(int(request["id"]), fds)
        finally:
            for fd in fds:
                os.close(fd)

    def _close(self) -> None:
        """Kill everything; the loop ends when it is gone."""
        self._is_closing = True
        for fd in list(self._handlers):
            if fd == self._host.fileno() or self._handlers[fd] == self._close:
                self._unwatch(fd)
        for started in self._started.values():
            _kill(started)

    def _spawn(self, number: int, fds: list[int]) -> None:
        group, ours, theirs = None, None, None
        try:
            order, streams, rest = _read_order(fds)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            processes = order["processes"]
            if processes is not None and self._with_namespaces:
                processes += 1  # the first process of the namespace is counted as well
            group = self._groups.make(number, order["memory_bytes"], processes)
            child = launch.Child(order, streams, rest, theirs, self._pidfd, group)
            started = self._fork(number, child, ours)
        except (namespaces.SetupError, OSError) as error:
            if ours is not None:
                ours.close()
            if group is not None:
                self._groups.remove(group)
            step = getattr(error, "step", f"prepare to fork ({error})")
            reason = getattr(error, "number", None) or getattr(error, "errno", None) or errno.EAGAIN
            self._send({"op": "failed", "id": number, "step": step, "errno": reason})
            return
        finally:
            if theirs is not None:
                theirs.close()
        self._started[started.root] = started
        self._watch(ours.fileno(), lambda: self._on_setup(started))

    def _fork(self, number: int, child: launch.Child, ours: socket.socket) -> _Started:
        if not self._with_namespaces:
            pid = os.fork()
            if pid == 0:
                child.become_worker()
            try:
                return _Started(number, pid, os.pidfd_open(pid), ours, -1, child.group)
            except OSError:
                os.kill(pid, signal.SIGKILL)
                raise
        plan = child.order["sandbox"]
        flags = _SANDBOX
        if plan is not None and not plan["network"]:
            flags |= namespaces.NEW_NAMESPACE_NET
        status_read, status_write = os.pipe2(os.O_CLOEXEC)
        try:
            pid, pidfd = namespaces.clone(flags)
            if pid == 0:
                child.become_init(status_write)
        except namespaces.SetupError:
            os.close(status_read)
            raise
        finally:
            os.close(status_write)
        return _Started(number, pid, pidfd, ours, status_read, child.group)

    # -- what the children say

    def _on_setup(self, started: _Started) -> None:
        data, fds, _, _ = socket.recv_fds(
            started.setup, 4096, 1, socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
        )
        if fds:
            started.worker_pidfd = fds[0]
        elif data:
            # Without a step it was the pidfd, for which this process had no room: then nobody could end it.
            lost = {"step": "take the process's handle", "errno": errno.EMFILE}
            started.failure = json.loads(data) or lost
            _kill(started)
        else:
            self._finish_setup(started)

    def _finish_setup(self, started: _Started) -> None:
        """The set-up channel is closed: the program runs, or never will."""
        self._unwatch(started.setup.fileno())
        started.setup.close()
        if started.failure is not None or started.worker_pidfd < 0:
            return  # reported once it has been reaped, so that a refused spawn leaves nothing behind
        started.is_running = True
        pid = process_tree.pid_of(started.worker_pidfd)
        message = {
            "op": "started",
            "id": started.number,
            "pid": pid,
            "root": started.root,
            "started": process_tree.started_s(pid),
            "limits": started.group.mechanisms,
        }
        self._send(message, [started.worker_pidfd, started.root_pidfd])

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            started = self._started.pop(pid, None)
            if started is not None:
                self._ended.append((started, status))
        if self._ended and not self._kill_orphans():
            for started, status in self._ended:
                self._report(started, status)
            self._ended.clear()

    def _kill_orphans(self) -> bool:
        """Kill what a dead worker left behind; true when there was something.

        Only without namespaces: whatever is a child of the keeper and was not started by it has lost its
        worker. Each kill raises SIGCHLD, so this is called again until nothing is left.
        """
        if self._with_namespaces:
            return False
        # Dead ones count until they are reaped, so that nothing of a worker is left when its end is told.
        by_parent = process_tree.children(with_dead=True)
        me = os.getpid()
        orphans = [stat for stat in by_parent.get(me, ()) if stat.pid not in self._started]
        for orphan in orphans:
            for stat in (orphan, *process_tree.descendants(orphan.pid, by_parent)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(stat.pid, signal.SIGKILL)
        return bool(orphans)

    def _report(self, started: _Started, status: int) -> None:
        while started.setup.fileno() >= 0:  # what it said before it ended
            self._on_setup(started)
        told = b""
        if started.status >= 0:
            told = os.read(started.status, 32)
            os.close(started.status)
            # Nothing told: the namespace was ended from outside, and the worker with it by the same signal.
            status = int(told) if told else status
        if started.is_running:
            # With a status told by the first process of its namespace it was not that one which was killed.
            evidence = started.group.evidence()
            exited = {"op": "exited", "id": started.number, "status": status, "alone": bool(told)}
            self._send({**exited, "evidence": evidence})
        else:
            failure = started.failure or {"step": f"start (wait status {status})", "errno": errno.ECHILD}
            self._send({"op": "failed", "id": started.number, **failure})
        self._groups.remove(started.group)
        for fd in (started.worker_pidfd, started.root_pidfd):
            if fd >= 0:
                os.close(fd)

    # -- the loop's own

    def _choose(self, wanted: str) -> tuple[str, str]:
        """Find out, by doing it, whether this machine lets us make namespaces."""
        if wanted == "plain":
            return "plain", "asked for"
        if os.geteuid() != 0:
            try:
                namespaces.enter_user_namespace()
            except namespaces.SetupError as error:
                return "plain", str(error)
        failure = self._probe()
        return ("plain", failure) if failure else ("namespaces", "")

    def _probe(self) -> str:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        plan = {"hidden": [], "read_only": [], "writable": [], "network": True}
        order: Any = {"argv": ["/proc/self/exe", "-c", ""], "env": {}, "cwd": "/", "sandbox": plan}
        child = launch.Child(order, (None, None), [], theirs, self._pidfd, limits.Group())
        try:
            pid, pidfd = namespaces.clone(_SANDBOX)
        except namespaces.SetupError as error:
            ours.close()
            theirs.close()
            return str(error)
        if pid == 0:
            child.probe_init()
        os.close(pidfd)
        theirs.close()
        said = ours.recv(4096)  # reaped by the loop: taking the namespaces down takes longer than making them
        ours.close()
        failure = json.loads(said or '{"step": "probe for namespaces", "errno": 1}')
        return f"{failure['step']}: {os.strerror(failure['errno'])}" if failure else ""

    def _send(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        if self._is_closing:
            return
        try:
            socket.send_fds(self._host, [json.dumps(message).encode()], fds or [])
        except (BrokenPipeError, ConnectionError):
            self._close()

    def _watch(self, fd: int, handler: Callable[[], None]) -> None:
        self._handlers[fd] = handler
        self._poll.register(fd, select.POLLIN)

    def _unwatch(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def _drain(self, fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(fd, 512):
                pass


def _kill(started: _Started) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(started.root_pidfd, signal.SIGKILL)


def _read_order(fds: list[int]) -> tuple[launch.Order, tuple[int | None, int | None], list[int]]:
    """Return the order, the output streams and the descriptors to pass.

    Raises:
        SetupError: Some did not arrive: the kernel drops those for which this process has no room.
    """
    if fds:
        with open(fds[0], "rb", closefd=False) as file:
            file.seek(0)
            order: launch.Order = json.loads(file.read())
        if len(fds) == 1 + sum(order["streams"]) + order["fds"]:
            rest = iter(fds[1:])
            stdout, stderr = (next(rest) if given else None for given in order["streams"])
            return order, (stdout, stderr), list(rest)
    raise namespaces.SetupError("pass the descriptors", errno.EMFILE)


def run(fd: int, isolation: str, *, with_control_groups: bool) -> NoReturn:
    """Serve the node at the other end of a socket until it goes away."""
    parent = os.getppid()
    os.setsid()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the node may have blocked what is needed here
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    namespaces.adopt_orphans()
    namespaces.set_name("toft-keeper")
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)  # a failure of the keeper itself may be seen on standard error
    os.closerange(3, fd)
    os.closerange(fd + 1, 4096)  # what the node left inheritable would else reach every namespace
    host = socket.socket(fileno=fd)
    os.set_inheritable(fd, False)
    _Keeper(host, with_control_groups=with_control_groups).run(isolation, parent)
    os._exit(0)
