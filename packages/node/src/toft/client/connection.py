"""One client's connection to a daemon: requests with exact values, errors as the classes they were."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpcore

from toft.api import frames
from toft.client import place as places
from toft.jobs import errors as _job_errors
from toft.kernel import errors
from toft.plugins import plugin_errors

# Whoever defines errors that may come back must have been imported before one does.
from toft.plugins.environments import environment_errors as _environment_errors

_CONNECT_S = 10.0
_FRESH_S = 5.0
_KEPT = 16
_IDLE_S = 30.0
_BROKEN = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    httpcore.ConnectionNotAvailable,
)
_FOREIGN = (_environment_errors, _job_errors)


class Connection:
    """A session with the daemon of one home; an async context manager.

    Args:
        socket_path: Where it is asked.
    """

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path
        self._stack = AsyncExitStack()
        self._pool: httpcore.AsyncConnectionPool
        self._is_open = False
        self._headers: dict[str, str] = {}
        self.pid = 0
        self.version = ""
        self.settings: Mapping[str, Any] = {}
        self._actions: dict[str, tuple[float, Mapping[str, Any]]] = {}

    async def __aenter__(self) -> Connection:
        try:
            address = self._stack.enter_context(places.address(self._path))
            await asyncio.to_thread(_check_peer, address)
            pool = httpcore.AsyncConnectionPool(
                uds=address,
                max_connections=None,
                max_keepalive_connections=_KEPT,
                keepalive_expiry=_IDLE_S,
            )
            self._pool = await self._stack.enter_async_context(pool)
            self._is_open = True
            lifeline = self.stream("POST", "/v1/sessions")
            self._stack.push_async_callback(lifeline.aclose)
            told = await anext(lifeline)
            self._headers[frames.SESSION_HEADER] = told["session"]
            self.pid, self.version = told["pid"], told["version"]
            self.settings = told["settings"]
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the session."""
        self._is_open = False
        await self._stack.aclose()

    async def ask(
        self,
        method: str,
        route: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, Any] | None = None,
    ) -> Any:
        """Send a request and return its answer.

        Raises:
            NodeError: As the daemon raised it; `UnavailableError` when it is gone.
            PluginError: As the plugin raised it.
        """
        content = None if body is None else frames.pack(dict(body))
        async with self._asking(method, _url(route, query), content) as answer:
            data = bytearray()
            async for piece in answer.aiter_stream():
                data += piece
        if 200 <= answer.status < 300:
            return frames.unpack(data)
        raise problem(answer.status, bytes(data))

    async def stream(
        self, method: str, route: str, body: Mapping[str, Any] | None = None
    ) -> AsyncGenerator[Any, None]:
        """Send a request and yield the frames of its answer as they come."""
        content = None if body is None else frames.pack(dict(body))
        async with self._asking(method, _url(route), content) as answer:
            await _check(answer)
            arriving = frames.Frames()
            async for data in answer.aiter_stream():
                for value in arriving.feed(data):
                    yield value

    async def lines(self, route: str, query: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """Yield the JSON objects of an answer that has one a line, as they come."""
        headers = {"Accept": "application/x-ndjson"}
        async with self._asking("GET", _url(route, query), None, headers) as answer:
            await _check(answer)
            rest = b""
            async for data in answer.aiter_stream():
                *whole, rest = (rest + data).split(b"\n")
                for line in filter(None, whole):
                    yield json.loads(line)

    @contextlib.asynccontextmanager
    async def _asking(
        self, method: str, url: str, content: bytes | None, headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[httpcore.Response, None]:
        """Send a request; what is wrong with the connection is told in our own words."""
        if not self._is_open:
            raise closed()
        told = {"Host": "localhost", **self._headers, **(headers or {})}
        if content is not None or method != "GET":
            told["Content-Length"] = str(len(content or b""))
        try:
            async with self._pool.stream(
                method,
                url,
                headers=list(told.items()),
                content=content,
                extensions={"timeout": {"connect": _CONNECT_S}},
            ) as answer:
                yield answer
        except _BROKEN as error:
            raise gone(error) from error

    async def signature(self, plugin: str, action: str | None) -> Mapping[str, Any] | None:
        """Return the input schema of a plugin's action, at most some seconds old; None for what has none."""
        now = asyncio.get_running_loop().time()
        at, actions = self._actions.get(plugin, (float("-inf"), {}))
        if now - at > _FRESH_S:
            try:
                manifest = await self.ask("GET", path("plugins", plugin))
            except errors.NotFoundError:
                return None  # whoever is asked next says so
            actions = (manifest.get("runtime") or {}).get("actions") or {}
            self._actions[plugin] = (now, actions)
        described = actions.get(action or "execute")
        found = described.get("input") if isinstance(described, Mapping) else None
        return found if isinstance(found, Mapping) else None


def _url(route: str, query: Mapping[str, Any] | None = None) -> str:
    given = {name: value for name, value in (query or {}).items() if value is not None}
    return f"http://localhost{route}" + (f"?{urlencode(given, doseq=True)}" if given else "")


async def _check(answer: httpcore.Response) -> None:
    if not 200 <= answer.status < 300:
        raise problem(answer.status, await answer.aread())


def path(*parts: str) -> str:
    """Return a route of parts that may hold anything."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def gone(error: Exception) -> errors.UnavailableError:
    """Return the error for a daemon that is not there any more."""
    return errors.UnavailableError(
        f"the daemon went away: {error or type(error).__name__}",
        code="daemon.gone",
        hint="toft status says whether it runs; a job goes on when it is started again, a call does not",
    )


def closed() -> errors.UnavailableError:
    """Return the error for a session that its own program has closed."""
    return errors.UnavailableError("the node was closed", code="node.closed")


def problem(status: int, content: bytes) -> Exception:
    """Return the error that a problem document describes."""
    with contextlib.suppress(ValueError):
        fields = json.loads(content)
        if isinstance(fields, dict) and "code" in fields:
            return error_of(fields)
    return errors.UnavailableError(
        f"the daemon answered {status} and no reason", code="daemon.no_answer", hint="toft logs shows more"
    )


def error_of(fields: Mapping[str, Any]) -> Exception:
    """Return an error as the class it was."""
    if fields.get("family") == "plugin":
        return plugin_errors.from_dict(fields)
    return errors.from_dict(fields)


def _check_peer(address: str) -> None:
    """Refuse a socket that somebody else serves."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.closing(sock):
        sock.settimeout(_CONNECT_S)
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
