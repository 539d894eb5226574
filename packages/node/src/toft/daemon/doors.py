"""The ways in: the owner's socket, a TCP port when there is to be one, else one for a browser when asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from toft.access.gate import Gate
from toft.access.hosts import Hosts
from toft.api import app as applications
from toft.api import guard
from toft.daemon import listener, network
from toft.kernel import log
from toft.kernel.settings import Settings

_log = log.get_logger("daemon.doors")


class Doors:
    """The listeners of a daemon.

    Args:
        built: The routes.
        gate: Who may come in by TCP.
        settings: Where to listen.
        opened: Called with the address of each TCP port that is opened.
    """

    def __init__(
        self,
        built: applications.Built,
        gate: Gate,
        settings: Settings,
        opened: Callable[[str], None] = lambda url: None,
    ) -> None:
        self._built = built
        self._gate = gate
        self._settings = settings
        self._opened = opened
        self._listeners: list[listener.Listener] = []
        self._opening = asyncio.Lock()
        self.url = ""

    async def open_socket(self, address: str) -> None:
        """Let the owner in at a path."""
        served = listener.Listener(self._built.behind())
        await served.start(await asyncio.to_thread(listener.bind, address))
        self._listeners.append(served)

    async def open_network(self) -> None:
        """Listen where the settings say, if they do.

        Raises:
            UsageError: The settings do not fit.
            UnavailableError: Nobody can listen there.
        """
        where = network.check(self._settings)
        if where is not None:
            await self._open(where)

    async def open_for_browser(self) -> str:
        """Return the address for a browser; on this machine alone when the node listens nowhere yet."""
        async with self._opening:
            if not self.url:
                await self._open(network.parse(network.LOOPBACK))
        return self.url

    async def close(self) -> None:
        """Let nobody in any more, and let answers that are under way leave."""
        await asyncio.gather(*(each.close() for each in self._listeners))

    async def _open(self, where: network.Where) -> None:
        is_own = bool(self._settings.listen)
        tls = await asyncio.to_thread(network.context, self._settings) if is_own else None
        sock = await asyncio.to_thread(network.bind, where)
        door = guard.NetworkDoor(self._gate, Hosts((where.host, *self._settings.allowed_hosts)))
        served = listener.Listener(self._built.behind(door), listener.OpenLimits(), tls=tls)
        await served.start(sock)
        self._listeners.append(served)
        self.url = network.url(sock, where, self._settings, is_tls=tls is not None)
        self._built.service.listen = self.url
        _log.info("listening", url=self.url)
        await asyncio.to_thread(self._opened, self.url)
