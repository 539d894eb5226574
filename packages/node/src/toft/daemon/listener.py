"""Takes connections on a Unix socket or a TCP port and gives each request to the application.

uvicorn's protocol without its server: that one looks ten times a second whether it should stop, takes over
the signals, and knows no time limit for a request that never comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from functools import partial
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from toft.api import limits as api_limits
from toft.daemon import gathering, peers
from toft.host import process_tree
from toft.kernel import log

_log = log.get_logger("daemon.listener")
_BACKLOG = 4096
_AT_ONCE = 64
_KNOWN = 1024
_HEADER_BYTES = 64 << 10
_KEEP_ALIVE_S = 75
_HEADERS_S = 10.0
_CONNECTIONS = 20_000


class Connection(H11Protocol):
    """One connection: of the owner, and with a request that comes in time."""

    def __init__(self, *arguments: Any, limits: Limits, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._limits = limits
        self._head_timer: asyncio.TimerHandle | None = None

    # asyncio names the widest kind of transport; uvicorn's protocol and this one are only given sockets.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Look who it is before a byte of theirs is read."""
        super().connection_made(gathering.Gathering(transport))
        reason = self._limits.refuse(transport, len(self.connections))
        if reason:
            _log.warning("connection_refused", because=reason)
            transport.abort()
            return
        self._head_timer = self.loop.call_later(self._limits.headers_s, self._give_up)

    def data_received(self, data: bytes) -> None:
        """Take bytes; the time a request's head may take starts with its first."""
        if self.transport.is_closing():
            return
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            # The application looks at it when its turn comes: nobody has to wait for more of this request.
            scope: Any = self.cycle.scope
            scope[api_limits.WHOLE] = not self.cycle.more_body
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None
        elif (
            self._head_timer is None and self.conn.their_state is h11.IDLE and not self.transport.is_closing()
        ):
            # Only for a head that is not whole yet: most come in one piece, and need none.
            self._head_timer = self.loop.call_later(self._limits.headers_s, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().connection_lost(exc)

    def _give_up(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            _log.debug("request_too_slow")
            self.transport.abort()


class Limits:
    """What a connection must keep to.

    Args:
        owner: The uid that may connect.
        headers_s: Seconds within which a request's head must be there.
        connections: How many there may be.
    """

    def __init__(self, *, owner: int, headers_s: float = _HEADERS_S, connections: int = _CONNECTIONS) -> None:
        self.headers_s = headers_s
        self._owner = owner
        self._connections = connections
        self._known: dict[tuple[int, int], None] = {}

    def refuse(self, transport: asyncio.BaseTransport, count: int) -> str:
        """Return why a new connection is not taken; empty when it is."""
        sock: socket.socket = transport.get_extra_info("socket")
        if count > self._connections:
            return f"more than {self._connections} connections"
        try:
            peer = peers.of(sock)
        except OSError as error:
            return f"the peer is gone: {error}"
        stat = process_tree.read(peer.pid) if peer.uid == self._owner else None
        key = (peer.pid, stat.started_ticks if stat is not None else 0)
        if stat is not None and key in self._known:
            return ""
        reason = peers.refusal(peer, owner=self._owner)
        if not reason:
            # A process that was started by nobody of ours never becomes one of ours.
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[key] = None
        return reason


class OpenLimits(Limits):
    """What a connection must keep to where anybody may connect: who it is, each request must say."""

    def __init__(self, *, headers_s: float = _HEADERS_S, connections: int = _CONNECTIONS) -> None:
        super().__init__(owner=-1, headers_s=headers_s, connections=connections)

    def refuse(self, transport: asyncio.BaseTransport, count: int) -> str:
        """Return why a new connection is not taken; empty when it is."""
        return f"more than {self._connections} connections" if count > self._connections else ""


class Listener:
    """A socket and its connections.

    Args:
        app: The ASGI application.
        limits: What a connection must keep to; that it is the owner's by default.
        tls: What is spoken on a TCP port; None for nothing.
    """

    def __init__(self, app: Any, limits: Limits | None = None, *, tls: ssl.SSLContext | None = None) -> None:
        self._config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            # Where a request comes from is where it comes from, not what it says.
            proxy_headers=False,
            date_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            h11_max_incomplete_event_size=_HEADER_BYTES,
            http=Connection,
            ws="none",
        )
        self._config.load()
        self._state = ServerState()
        self._limits = limits or Limits(owner=os.geteuid())
        self._server: asyncio.Server | None = None
        self._tls = tls

    async def start(self, sock: socket.socket) -> None:
        """Begin to take connections."""
        make = partial(
            Connection, config=self._config, server_state=self._state, app_state={}, limits=self._limits
        )
        loop = asyncio.get_running_loop()
        if sock.family == socket.AF_UNIX:
            self._server = await loop.create_unix_server(make, sock=sock, backlog=_AT_ONCE)
        else:
            self._server = await loop.create_server(
                make,
                sock=sock,
                backlog=_AT_ONCE,
                ssl=self._tls,
                ssl_handshake_timeout=None if self._tls is None else self._limits.headers_s,
            )
        # asyncio takes as many connections in one turn as may wait; nobody else would have a turn meanwhile.
        sock.listen(_BACKLOG)

    @property
    def connections(self) -> int:
        """Return how many there are."""
        return len(self._state.connections)

    async def close(self, grace_s: float = 1.0) -> None:
        """Take no more, let answers that are under way leave, then cut what is left."""
        if self._server is None:
            return
        self._server.close()
        for each in list(self._state.connections):
            each.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                while self._state.tasks:
                    await asyncio.wait(self._state.tasks)
        for task in list(self._state.tasks):
            task.cancel()
        for each in list(self._state.connections):
            transport = getattr(each, "transport", None)
            if transport is not None:
                transport.abort()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=grace_s)
        await asyncio.sleep(0)


def bind(address: str) -> socket.socket:
    """Return a listening socket at a path that nobody else may open; whatever was there is replaced.

    Only for the holder of the home's lock: a socket that is there is then one of a daemon that was killed.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(address)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)
    try:
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock
