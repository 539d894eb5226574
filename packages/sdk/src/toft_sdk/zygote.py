"""A process that has imported a plugin and forks workers from it: a worker is ready in a few milliseconds.

It starts no thread and never makes the plugin, so a child finds nothing but imported modules. It serves the
same protocol with other requests: `load` once, then `fork` frames that bring the socket of a new worker.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys

from toft_sdk.answers import failure, stacks
from toft_sdk.errors import FatalError
from toft_sdk.link import above
from toft_sdk.wire import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    from toft_sdk.link import Link

_PR_SET_CHILD_SUBREAPER = 36


class Zygote:
    """One connection, one imported plugin, any number of children.

    Args:
        link: The socket to the host.
        welcome: What the host said.
        load: Imports the plugin and returns what hosts it.
        born: Serves a new worker's socket; never returns.
        leave: Ends the process.
    """

    def __init__(
        self,
        link: Link,
        welcome: dict[str, Any],
        *,
        load: Callable[[str, str | None], Any],
        born: Callable[[int], None],
        leave: Callable[[int], None],
    ) -> None:
        self._link = link
        self._welcome = welcome
        self._load = load
        self._born = born
        self._leave = leave
        self._children: set[int] = set()
        self._become_subreaper: Callable[[], None] = lambda: None
        reading, writing = os.pipe()
        self._wake, self._rouse = above(reading), above(writing)
        for fd in (self._wake, self._rouse):
            os.set_blocking(fd, False)

    def serve(self) -> None:
        """Answer until the host goes."""
        signal.set_wakeup_fd(self._rouse)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        poller = select.poll()
        poller.register(self._link.fileno(), select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        while True:
            self._take_frames()
            for fd, _ in poller.poll():
                if fd == self._wake:
                    self._reap()
                elif not self._link.receive():
                    self._leave(0)

    def _take_frames(self) -> None:
        try:
            while True:
                frame = self._link.take()
                if frame is None:
                    return
                self._on_frame(frame[0])
        except (ProtocolError, ValueError, TypeError, IndexError) as error:
            self._link.send(["protocol_error", 0, str(error)[:1000]])
            self._leave(3)

    def _on_frame(self, header: list[Any]) -> None:
        kind = header[0]
        if kind == "fork":
            self._fork(header[1])
        elif kind == "ping":
            beat: dict[str, Any] = {"op": "", "quiet_s": 0.0, "calls": [], "waiting": 0}
            if header[2]:
                beat["stacks"] = stacks()
            self._link.send(["pong", header[1], beat])
        elif kind == "request":
            self._answer(header[1], header[2], header[4])
        elif kind not in ("cancel", "credit"):
            raise ProtocolError(f"a zygote does not know the kind {ascii(kind)[:60]}")

    def _answer(self, number: int, op: str, arguments: Any) -> None:
        try:
            if op != "load":
                raise FatalError(f"a zygote does not answer {op!r}", code="worker.op_unknown")
            value = self._import(bool((arguments or {}).get("describe", True)))
        except BaseException as error:  # noqa: BLE001 - the worker loop: whatever an import raises is an answer
            self._link.send(["error", number, failure(error)])
        else:
            self._link.send(["result", number, value])

    def _import(self, describe: bool) -> Any:
        hosted = self._load(self._welcome["module"], self._welcome.get("class"))
        if not hosted.fork_safe:
            raise FatalError(
                "the plugin does not say that it may be forked after its import (fork_safe = True)",
                code="plugin.not_fork_safe",
            )
        # What a child imports to read its configuration, so that no child pays for it.
        from toft_sdk import schema  # noqa: F401, PLC0415

        self._become_subreaper = _subreaper()
        gc.collect()
        gc.freeze()  # a collection in a child must not copy all pages
        if describe:
            return hosted.describe()
        return {"main_thread": hosted.main_thread, "concurrency": hosted.concurrency}

    def _fork(self, token: int) -> None:
        socket = self._link.fds.pop(0)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        pid = os.fork()
        if pid == 0:
            self._be_born(socket)
        os.close(socket)
        self._children.add(pid)
        self._link.send(["forked", token, pid])

    def _be_born(self, socket: int) -> None:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            self._become_subreaper()
            self._link.detach()
            os.close(self._wake)
            os.close(self._rouse)
            self._born(socket)
        finally:
            os._exit(1)  # never back into the zygote's loop

    def _reap(self) -> None:
        try:
            os.read(self._wake, 4096)
        except BlockingIOError:
            return
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._children:  # else one that lost its parent and came to us
                self._children.discard(pid)
                self._link.send(["child", pid, status])


def _subreaper() -> Callable[[], None]:
    """Return what makes a child keep its own orphans; looked up here, so that children need not."""
    try:
        import ctypes  # noqa: PLC0415 - 10 ms, in the zygote alone

        prctl = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return lambda: None
    return lambda: prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
