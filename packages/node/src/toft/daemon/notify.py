"""Tells a service manager how the daemon is: ready, stopping, alive; nothing where there is none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping

from toft.kernel import log

_log = log.get_logger("daemon.notify")


class Notifier:
    """One end of the manager's socket, as `NOTIFY_SOCKET` names it.

    Args:
        environ: `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` are read.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._watchdog_s = _watchdog_s(environ)

    def tell(self, *lines: str) -> None:
        """Send what changed, such as `READY=1`; a manager that does not listen changes nothing here."""
        if not self._address:
            return
        # A leading @ stands for a name that is in no file system.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
            sock.setblocking(False)
            try:
                sock.sendto("\n".join(lines).encode(), address)
            except OSError as error:
                _log.debug("not_notified", error=str(error))

    async def keep_alive(self) -> None:
        """Tell a watchdog at half its interval that the event loop turns; returns at once without one."""
        while self._watchdog_s:
            self.tell("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_s / 2)


def _watchdog_s(environ: Mapping[str, str]) -> float:
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    try:
        return int(environ.get("WATCHDOG_USEC", "0")) / 1e6
    except ValueError:
        return 0.0
