"""Where a node is asked, and how: the socket of a home on this machine, or an address of another one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpcore

from toft.client import faults, paths
from toft.client import place as places
from toft.client.target import Target
from toft.kernel import errors

CONNECT_S = 10.0
_KEPT = 16
_IDLE_S = 30.0
# A machine that went away without a word is noticed after half a minute, also while an answer is waited for.
_WATCHED = tuple(
    (level, getattr(socket, name), value)
    for level, name, value in (
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 15),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 5),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", 30_000),
    )
    if hasattr(socket, name)  # not every system that a client runs on has them all
)


class Origin(Protocol):
    """Where a node is asked.

    Attributes:
        base: What every route is put behind.
        headers: Sent with every request.
        is_here: It is this machine, with these files, and its daemon is this user's.
    """

    base: str
    headers: Mapping[str, str]
    is_here: bool

    async def open(self, stack: AsyncExitStack) -> httpcore.AsyncConnectionPool:
        """Return connections, which end with the stack."""
        ...

    def arguments(self, schema: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments in which a path means the same to the node as to whoever wrote it."""
        ...

    def options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return options of an instance in which a directory does."""
        ...

    def broken(self, error: Exception) -> errors.NodeError:
        """Return the error for a connection that failed or broke."""
        ...

    def strange(self, status: int) -> errors.NodeError:
        """Return the error for an answer that no node gives."""
        ...


class HomeOrigin:
    """The daemon of a home.

    Args:
        socket_path: Where it is asked.
    """

    base = "http://localhost"
    is_here = True

    def __init__(self, socket_path: Path) -> None:
        self.headers: Mapping[str, str] = {"Host": "localhost"}
        self._path = socket_path

    async def open(self, stack: AsyncExitStack) -> httpcore.AsyncConnectionPool:
        """Return connections to the socket, whose other end must be this user's."""
        address = stack.enter_context(places.address(self._path))
        await asyncio.to_thread(_check_peer, address)
        pool = httpcore.AsyncConnectionPool(
            uds=address, max_connections=None, max_keepalive_connections=_KEPT, keepalive_expiry=_IDLE_S
        )
        return await stack.enter_async_context(pool)

    def arguments(self, schema: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        """Make relative paths start at the root."""
        return paths.absolute(schema, given)

    def options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Make relative directories start at the root."""
        found = dict(given)
        if isinstance(found.get("writable"), (list, tuple)):
            found["writable"] = [os.path.abspath(each) for each in found["writable"]]
        return found

    def broken(self, error: Exception) -> errors.NodeError:
        """Return the error for a daemon that is not there any more."""
        return faults.gone(error)

    def strange(self, status: int) -> errors.NodeError:
        """Return the error for an answer without a reason."""
        return errors.UnavailableError(
            f"the daemon answered {status} and no reason",
            code="daemon.no_answer",
            hint="toft logs shows more",
        )


class NodeOrigin:
    """A node that listens at an address.

    Args:
        target: Its address, and what is shown to it.
    """

    is_here = False

    def __init__(self, target: Target) -> None:
        self.target = target
        self.base = target.url
        self.headers: Mapping[str, str] = {"Host": urlsplit(target.url).netloc}
        if target.token:
            self.headers = {**self.headers, "Authorization": f"Bearer {target.token}"}

    async def open(self, stack: AsyncExitStack) -> httpcore.AsyncConnectionPool:
        """Return connections to the address; on TLS only to who can show that it is it."""
        context = await asyncio.to_thread(self._trust) if self.base.startswith("https:") else None
        pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=None,
            max_keepalive_connections=_KEPT,
            keepalive_expiry=_IDLE_S,
            socket_options=_WATCHED,
        )
        return await stack.enter_async_context(pool)

    def _trust(self) -> ssl.SSLContext:
        file = self.target.ca_file
        try:
            return ssl.create_default_context(cafile=file)
        except (OSError, ssl.SSLError) as error:
            raise errors.UsageError(
                f"{file} has no certificates that can be read: {error}",
                code="remote.ca_file",
                details={"path": str(file)},
                hint="it must be PEM: the certificate of whoever signed the node's",
            ) from error

    def arguments(self, schema: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        """Refuse what is a path of this machine."""
        return paths.of_the_node(schema, given, where=self.base)

    def options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Refuse directories that say nothing without this machine's working directory."""
        found = dict(given)
        if isinstance(found.get("writable"), (list, tuple)):
            found["writable"] = paths.of_the_node(
                {"parameters": {"writable": {"items": {"x-toft-type": "path"}}}},
                {
                    "writable": [
                        each if isinstance(each, os.PathLike) else str(each) for each in found["writable"]
                    ]
                },
                where=self.base,
            )["writable"]
        return found

    def broken(self, error: Exception) -> errors.NodeError:
        """Return the error for a node that cannot be reached, or not any more."""
        return faults.unreachable(self.base, error)

    def strange(self, status: int) -> errors.NodeError:
        """Return the error for an answer that no node gives."""
        return faults.no_node(self.base, status)


def _check_peer(address: str) -> None:
    """Refuse a socket that somebody else serves."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.closing(sock):
        sock.settimeout(CONNECT_S)
        try:
            sock.connect(address)
        except OSError as error:
            raise errors.UnavailableError(
                f"the daemon does not answer on {address}: {error}", code="daemon.no_answer"
            ) from error
        _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if uid != os.geteuid():
        raise errors.RefusedError(
            f"the daemon runs as uid {uid}, and this is uid {os.geteuid()}",
            code="daemon.other_user",
            details={"uid": uid},
            hint="run toft as the user who owns that home: sudo -u USER toft ...",
        )
