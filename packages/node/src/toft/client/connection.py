"""One client's connection to a daemon: requests with exact values, errors as the classes they were."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote, urlencode

import httpcore

from toft.api import frames
from toft.client import downloads, faults
from toft.client.origins import CONNECT_S, Origin
from toft.jobs import errors as _job_errors
from toft.kernel import errors, traces
from toft.plugins import plugin_errors

# Whoever defines errors that may come back must have been imported before one does.
from toft.plugins.environments import environment_errors as _environment_errors

_FRESH_S = 5.0
_AGAIN_S = (0.1, 0.5, 2.0)
"""Pauses before a question is asked again: only of a node elsewhere, and only one that changes nothing."""

_BROKEN = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    httpcore.ConnectionNotAvailable,
)
_FOREIGN = (_environment_errors, _job_errors)
BROKEN = ("remote.gone", "remote.no_answer")
"""Codes of what may be over in a moment."""


class Connection:
    """A session with a node; an async context manager.

    Args:
        origin: Where it is asked.
    """

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
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
            self._pool = await self.origin.open(self._stack)
            self._is_open = True
            lifeline = self.stream("POST", "/v1/sessions")
            self._stack.push_async_callback(lifeline.aclose)
            try:
                told = await anext(lifeline)
            except errors.NotFoundError as error:
                # A central speaks as nodes do, and has no sessions.
                raise self.origin.strange(404) from error
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
        tries: int | None = None,
    ) -> Any:
        """Send a request and return its answer.

        What changes nothing is asked again when the connection to another machine broke, so many times as
        `tries` says.

        Raises:
            NodeError: As the daemon raised it; `UnavailableError` when it is gone.
            PluginError: As the plugin raised it.
        """
        content = None if body is None else frames.pack(dict(body))
        url = self._url(route, query)
        pauses = iter(_AGAIN_S[: tries and tries - 1] if method == "GET" and not self.origin.is_here else ())
        while True:
            try:
                return await self._ask(method, url, content)
            except errors.UnavailableError as error:
                pause = next(pauses, None) if error.code in BROKEN else None
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    async def _ask(self, method: str, url: str, content: bytes | None) -> Any:
        async with self._asking(method, url, content) as answer:
            data = bytearray()
            async for piece in answer.aiter_stream():
                data += piece
        if not 200 <= answer.status < 300:
            raise self._problem(answer.status, bytes(data))
        try:
            return frames.unpack(data)
        except errors.UsageError:
            raise self.origin.strange(answer.status) from None

    async def fetch(self, route: str) -> Any:
        """Return a value that may be large; from another machine it goes on where it broke off.

        Raises:
            UnavailableError: It got no further, or is not what its digest says (`remote.damaged`).
        """
        coming, is_second = downloads.Download(), False
        url, pauses = self._url(route), list(_AGAIN_S)
        while True:
            furthest = coming.furthest
            broken: errors.NodeError = self.origin.broken(ConnectionError("its answers changed"))
            try:
                if await self._fetch(url, coming):
                    if coming.is_right:
                        return frames.unpack(coming.data)
                    if is_second:
                        raise faults.damaged(self.origin.base + route)
                    is_second = True
                    coming.forget()
                    continue
            except errors.UnavailableError as error:
                if error.code not in BROKEN:
                    raise
                broken = error
            if coming.furthest > furthest:
                pauses = list(_AGAIN_S)
            if not pauses:
                raise broken
            await asyncio.sleep(pauses.pop(0))

    async def _fetch(self, url: str, coming: downloads.Download) -> bool:
        """Get what is missing; False when it has to be asked for again."""
        async with self._asking("GET", url, None, coming.wanted()) as answer:
            if answer.status not in (200, 206, 416):
                raise self._problem(answer.status, await answer.aread())
            if not coming.begin(answer.status, answer.headers):
                return False
            async for piece in answer.aiter_stream():
                coming.take(piece)
        return coming.is_whole

    async def stream(
        self, method: str, route: str, body: Mapping[str, Any] | None = None
    ) -> AsyncGenerator[Any, None]:
        """Send a request and yield the frames of its answer as they come."""
        content = None if body is None else frames.pack(dict(body))
        async with self._asking(method, self._url(route), content) as answer:
            await self._check(answer, frames.MEDIA_TYPE)
            arriving = frames.Frames()
            async for data in answer.aiter_stream():
                for value in arriving.feed(data):
                    yield value

    async def lines(
        self,
        route: str,
        query: Mapping[str, Any] | None = None,
        *,
        method: str = "GET",
        body: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[Any, None]:
        """Yield the JSON objects of an answer that has one a line, as they come."""
        headers = {"Accept": frames.LINES_TYPE}
        content = None if body is None else frames.pack(dict(body))
        async with self._asking(method, self._url(route, query), content, headers) as answer:
            await self._check(answer, headers["Accept"])
            rest = b""
            async for data in answer.aiter_stream():
                *whole, rest = (rest + data).split(b"\n")
                for line in filter(None, whole):
                    yield json.loads(line)

    async def work(
        self, route: str, body: Mapping[str, Any] | None = None, *, on_step: Callable[[str], None]
    ) -> Any:
        """Ask for something that takes a while, tell its steps, and return its result.

        Raises:
            NodeError: As the node raised it; `remote.gone` when the connection broke and it was given up.
            PluginError: As the plugin raised it.
        """
        try:
            async with contextlib.aclosing(self.lines(route, method="POST", body=body)) as happening:
                async for each in happening:
                    if each["kind"] == "step":
                        on_step(each["text"])
                    elif "error" in each:
                        raise error_of(each["error"])
                    else:
                        return each["result"]
            raise self.origin.broken(ConnectionError("its answer broke off"))
        except errors.UnavailableError as error:
            if error.code in BROKEN:
                error.hint = "what was begun is given up; toft plugin list shows what is there"
            raise

    async def upload(self, route: str, size: int, pieces: Callable[[], AsyncIterator[bytes]]) -> Any:
        """Send bytes under a name that says what they are; from the beginning when the connection broke.

        Args:
            route: Where to.
            size: How many there are.
            pieces: Gives them, once for each try.
        """
        headers = {"Content-Type": frames.BYTES_TYPE, "Content-Length": str(size)}
        pauses = iter(() if self.origin.is_here else _AGAIN_S)
        while True:
            try:
                async with self._asking("PUT", self._url(route), pieces(), headers) as answer:
                    data = await answer.aread()
                break
            except errors.UnavailableError as error:
                pause = next(pauses, None) if error.code in BROKEN else None
                if pause is None:
                    raise
            await asyncio.sleep(pause)
        if not 200 <= answer.status < 300:
            raise self._problem(answer.status, data)
        try:
            return json.loads(data)
        except ValueError:
            # A proxy in between may say anything, and be content with it.
            raise self.origin.strange(answer.status) from None

    @contextlib.asynccontextmanager
    async def _asking(
        self,
        method: str,
        url: str,
        content: bytes | AsyncIterator[bytes] | None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[httpcore.Response, None]:
        """Send a request; what is wrong with the connection is told in our own words."""
        if not self._is_open:
            raise faults.closed()
        told = {**self.origin.headers, **self._headers, **(headers or {})}
        if (parent := traces.current()) is not None:
            told[traces.HEADER] = parent
        if (
            "Content-Length" not in told
            and not isinstance(content, AsyncIterator)
            and (content or method != "GET")
        ):
            told["Content-Length"] = str(len(content or b""))
        try:
            async with self._pool.stream(
                method,
                url,
                headers=list(told.items()),
                content=content,
                extensions={"timeout": {"connect": CONNECT_S}},
            ) as answer:
                yield answer
        except _BROKEN as error:
            raise self.origin.broken(error) from error

    async def _check(self, answer: httpcore.Response, media_type: str) -> None:
        if not 200 <= answer.status < 300:
            raise self._problem(answer.status, await answer.aread())
        kind = next((value for name, value in answer.headers if name.lower() == b"content-type"), b"")
        if not kind.startswith(media_type.encode()):
            raise self.origin.strange(answer.status)

    def _problem(self, status: int, content: bytes) -> Exception:
        return problem(content) or self.origin.strange(status)

    def _url(self, route: str, query: Mapping[str, Any] | None = None) -> str:
        given = {name: value for name, value in (query or {}).items() if value is not None}
        return self.origin.base + route + (f"?{urlencode(given, doseq=True)}" if given else "")

    async def signature(self, plugin: str, action: str | None) -> Mapping[str, Any] | None:
        """Return the input schema of a plugin's action, at most some seconds old; None for what has none."""
        now = asyncio.get_running_loop().time()
        at, actions = self._actions.get(plugin, (float("-inf"), {}))
        if now - at > _FRESH_S:
            try:
                manifest = await self.ask("GET", path("plugins", plugin))
            except (errors.NotFoundError, errors.RefusedError):
                return None  # whoever is asked next says so; who may submit need not be allowed to look
            actions = (manifest.get("toft") or {}).get("actions") or {}
            self._actions[plugin] = (now, actions)
        described = actions.get(action or "execute")
        found = described.get("input") if isinstance(described, Mapping) else None
        return found if isinstance(found, Mapping) else None


_NONE_OF = {"jobs": ("job", "toft job list"), "sequences": ("sequence", "toft sequence list")}
"""What a route is about, where what has another kind of name is told as what is not there."""


def path(*parts: str) -> str:
    """Return a route of parts.

    Raises:
        NotFoundError: One can name no job or no sequence: on its way it would become another path.
        UsageError: One can name nothing else, for the same reason.
    """
    for part in parts:
        if part in ("", ".", "..") or "/" in part:
            raise _nameless(parts[0], part)
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def _nameless(kind: str, part: str) -> errors.NodeError:
    if kind in _NONE_OF:
        word, hint = _NONE_OF[kind]
        return errors.NotFoundError(
            f"no {word} {part[:80]!r}",
            code=f"{word}.not_found",
            details={word: part[:80]},
            hint=f"{hint} shows what is there",
        )
    return errors.UsageError(
        f"{part[:80]!r} can be no name",
        code="name.invalid",
        details={"name": part[:80]},
        hint="toft plugin list",
    )


def problem(content: bytes) -> Exception | None:
    """Return the error that a problem document describes; None when it is none."""
    with contextlib.suppress(ValueError):
        fields = json.loads(content)
        if isinstance(fields, dict) and "code" in fields:
            return error_of(fields)
    return None


def error_of(fields: Mapping[str, Any]) -> Exception:
    """Return an error as the class it was."""
    if fields.get("family") == "plugin":
        return plugin_errors.from_dict(fields)
    return errors.from_dict(fields)
