"""What happens between fork and exec: the first process of a namespace, and the worker in it.

Standard library only; runs in a fork of the keeper, which has a single thread. Nothing here returns.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import socket

from toft.host import landlock, limits, namespaces, sandbox, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` costs every keeper 0.7 MB
    from collections.abc import Iterator, Mapping, Sequence
    from typing import NoReturn, TypedDict

    class Order(TypedDict):
        """What to start, as it travels to the keeper; descriptors travel beside it."""

        argv: Sequence[str]
        env: Mapping[str, str]
        cwd: str
        streams: Sequence[bool]
        fds: int
        sandbox: sandbox.Plan | None
        memory_bytes: int | None
        processes: int | None


_DEFAULT_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGCHLD,
)


class Child:
    """Everything a fork needs to become the worker.

    Args:
        order: What to start.
        streams: Descriptors for standard output and error; None is /dev/null.
        fds: Descriptors that become 3, 4, ... in the worker.
        setup: Carries the worker's pidfd, or the step that failed; closes when the program has started.
        keeper_pidfd: Tells whether the parent of this fork is still alive.
        group: The limits.
    """

    def __init__(
        self,
        order: Order,
        streams: tuple[int | None, int | None],
        fds: Sequence[int],
        setup: socket.socket,
        keeper_pidfd: int,
        group: limits.Group,
    ) -> None:
        self.order = order
        self.streams = streams
        self.fds = fds
        self.setup = setup
        self.keeper_pidfd = keeper_pidfd
        self.group = group

    def become_init(self, status_fd: int) -> NoReturn:
        """Be process 1 of new namespaces: prepare them, start the worker, reap everything, report its end.

        Args:
            status_fd: Pipe to the keeper for the wait status of the worker.
        """
        with self._reporting():
            self._die_with_keeper()
            namespaces.set_name("toft-init")
            self.group.join()
            limits.offer_to_oom_killer()
            self._isolate()
            worker = os.fork()
            if worker == 0:
                self._become_worker()
            namespaces.forbid_inspection()
            # Holding these would keep the host from seeing the end of its pipes and of the set-up.
            os.closerange(0, status_fd)
            os.closerange(status_fd + 1, 4096)
            os.write(status_fd, str(_reap(worker)).encode())
            os._exit(0)
        os._exit(127)

    def probe_init(self) -> NoReturn:
        """Do what `become_init` does short of a worker, to learn whether this machine allows it."""
        with self._reporting():
            self._die_with_keeper()
            self._isolate()
            self.setup.send(b"{}")
            os._exit(0)
        os._exit(127)

    def become_worker(self) -> NoReturn:
        """Be the worker without namespaces of its own."""
        with self._reporting():
            self._die_with_keeper()
            self.group.join()
            limits.offer_to_oom_killer()
            namespaces.adopt_orphans()
            namespaces.forbid_new_privileges()
            namespaces.drop_capabilities()
            plan = self.order["sandbox"]
            if plan is None:
                landlock.restrict_scope()
            else:
                landlock.restrict_files(plan)
            seccomp.restrict(network=plan is None or plan["network"])
            self._become_worker()
        os._exit(127)

    def _isolate(self) -> None:
        plan = self.order["sandbox"]
        if plan is None:
            namespaces.make_mounts_private()
            sandbox.mount_proc()
        else:
            sandbox.enter(plan)
        namespaces.forbid_new_privileges()
        namespaces.drop_capabilities()
        landlock.restrict_scope()
        seccomp.restrict(network=True)  # where there is to be none, the namespace has none

    def _die_with_keeper(self) -> None:
        namespaces.die_with_parent()
        alive = select.poll()
        alive.register(self.keeper_pidfd, select.POLLIN)
        if alive.poll(0):  # it died before the call above, which then never fires
            os._exit(0)

    def _become_worker(self) -> NoReturn:
        with self._reporting():
            namespaces.die_with_parent()
            os.setsid()
            _restore_signals()
            pidfd = os.pidfd_open(os.getpid())
            socket.send_fds(self.setup, [b"{}"], [pidfd])
            self.group.limit_self()
            step = f"enter the directory {self.order['cwd']}"
            try:
                os.chdir(self.order["cwd"])
                step = "place the descriptors"
                self._place_descriptors()
                step = f"start {self.order['argv'][0]}"
                os.execve(self.order["argv"][0], list(self.order["argv"]), dict(self.order["env"]))
            except OSError as error:
                raise namespaces.SetupError(step, error.errno or 0) from error
        os._exit(127)

    def _place_descriptors(self) -> None:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        wanted = [null, *(null if fd is None else fd for fd in self.streams), *self.fds]
        # First moved up beyond all places, so that putting one in its place cannot close another.
        parked = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, len(wanted)) for fd in wanted]
        setup = fcntl.fcntl(self.setup, fcntl.F_DUPFD_CLOEXEC, len(wanted))
        for target, fd in enumerate(parked):
            os.dup2(fd, target, inheritable=True)
        self.setup.detach()
        os.closerange(len(parked), setup)
        os.closerange(setup + 1, 65536)
        self.setup = socket.socket(fileno=setup)

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Send a failed step to the keeper and end this process."""
        try:
            yield
        except namespaces.SetupError as error:
            self._fail(error.step, error.number)
        except (OSError, ValueError) as error:
            self._fail(f"prepare the process ({error})", getattr(error, "errno", None) or errno.EINVAL)

    def _fail(self, step: str, number: int) -> NoReturn:
        with contextlib.suppress(OSError):
            self.setup.send(json.dumps({"step": step, "errno": number}).encode())
        os._exit(127)


def _restore_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in _DEFAULT_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _reap(worker: int) -> int:
    """Collect every process that ends in this namespace until the worker does; return its wait status."""
    while True:
        try:
            pid, status = os.wait()
        except InterruptedError:
            continue
        if pid == worker:
            return status
