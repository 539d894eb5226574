"""A worker that holds a plugin's imports, and the workers forked from it."""

from __future__ import annotations

import asyncio
import itertools
import socket
from typing import Any

from toft.host.forked import Forked
from toft.host.keeper import Process
from toft.plugins.errors import WorkerLostError
from toft.plugins.wire.connection import Connection

_FORK_S = 5.0


class Zygote:
    """A worker opened with `Welcome(is_zygote=True)` that has answered `load`.

    Args:
        process: The zygote itself; its children end with it.
        connection: To the zygote. When that is lost, end the process.
    """

    def __init__(self, process: Process, connection: Connection) -> None:
        self._process = process
        self._connection = connection
        self._tokens = itertools.count(1)
        self._births: dict[int, asyncio.Future[int]] = {}
        self._children: dict[int, Forked] = {}
        self._ended: dict[int, int] = {}
        connection.add_kind("forked", self._on_forked)
        connection.add_kind("child", self._on_child)

    async def fork(self, theirs: socket.socket) -> Forked:
        """Fork a worker that speaks on a socket; open a `Connection` on the other end as on any worker.

        Args:
            theirs: The worker's end of a pair; the caller may close it afterwards.

        Raises:
            WorkerLostError: The zygote is gone, or does not answer.
        """
        token = next(self._tokens)
        birth = self._births[token] = asyncio.get_running_loop().create_future()
        try:
            self._connection.send(["fork", token], [theirs.fileno()])
            pid = await asyncio.wait_for(birth, _FORK_S)
        except TimeoutError:
            raise WorkerLostError("the zygote does not fork", code="worker.stalled") from None
        finally:
            del self._births[token]
        child = await Forked.find(self._process, pid)
        if pid in self._ended:
            child.tell(self._ended.pop(pid))
        else:
            self._children[pid] = child
        return child

    def _on_forked(self, header: list[Any], tail: bytearray, tagged: bool) -> None:
        birth = self._births.get(int(header[1]))
        if birth is not None and not birth.done():
            birth.set_result(int(header[2]))

    def _on_child(self, header: list[Any], tail: bytearray, tagged: bool) -> None:
        pid, status = int(header[1]), int(header[2])
        child = self._children.pop(pid, None)
        if child is not None:
            child.tell(status)
        elif self._births:
            self._ended[pid] = status  # before we knew it
