"""Answers that last: as long as something happens, and no longer than their reader is there."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any, Protocol, TypeVar

from fastapi import Request
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from toft.access import gate
from toft.api import frames
from toft.kernel import errors

_AT_ONCE = 100
ENDED = "toft.ended"
"""The key of a request's scope under which stands the event that its token ended; the guard puts it there."""

T = TypeVar("T")


class Event(Protocol):
    """What is told."""

    @property
    def cursor(self) -> int | str:
        """Names the place behind it; a reader resumes there."""
        ...

    @property
    def type(self) -> str:
        """What happened."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        ...


async def until_gone(receive: Receive) -> None:
    """Return when the client is not there any more."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def while_there(receive: Receive, work: Coroutine[Any, Any, T]) -> T | None:
    """Return what work gives; None, and the work is cancelled, when the client went first."""
    working, gone = asyncio.create_task(work), asyncio.create_task(until_gone(receive))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for each in (working, gone):
            each.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def while_here(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """Return what work gives, and cancel it when nobody is there to hear it.

    Raises:
        RefusedError: Its token ended, which a client that is still there is told.
        UnavailableError: The client went away.
    """
    await request.body()
    answer = await while_there(request.receive, work)
    if answer is None:
        ended: asyncio.Event | None = request.scope.get(ENDED)
        if ended is not None and ended.is_set():
            raise gate.unauthenticated("the token has ended", "ended")
        raise errors.UnavailableError("the client went away", code="request.given_up")
    return answer


class Turnstile:
    """Lets so many through in one turn of the event loop; the others follow in later turns, in order.

    Ten thousand readers of one event would otherwise be served in one turn, and nobody else meanwhile.
    """

    def __init__(self, at_once: int = _AT_ONCE) -> None:
        self._at_once = at_once
        self._left = at_once
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_turning = False

    async def enter(self) -> None:
        """Return when it is this one's turn."""
        self._turn()
        if self._left:
            self._left -= 1
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        await waiting

    def _turn(self) -> None:
        if not self._is_turning:
            self._is_turning = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._is_turning = False
        self._left = self._at_once
        while self._waiting and self._left:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
                self._left -= 1
        if self._waiting or self._left < self._at_once:
            self._turn()


class EventStream(Response):
    """Events to one reader; what it does not take in time is not kept for it."""

    def __init__(self, source: AsyncIterator[Event], *, is_lines: bool, turnstile: Turnstile) -> None:
        self.media_type = frames.LINES_TYPE if is_lines else frames.EVENTS_TYPE
        super().__init__(headers={"Cache-Control": "no-store"})
        self._source = source
        self._is_lines = is_lines
        self._turnstile = turnstile

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell until the source ends or the reader is gone."""
        del self.headers["content-length"]
        await while_there(receive, self._tell(send))

    async def _tell(self, send: Send) -> None:
        source = self._source
        ending = source.aclose() if isinstance(source, AsyncGenerator) else None
        first = asyncio.ensure_future(anext(source))
        try:
            # The head leaves at once, but an error of the first look is still an answer of its own.
            await asyncio.wait((first,), timeout=0)
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._send(send, b"" if self._is_lines else b": events\n\n")
            with contextlib.suppress(StopAsyncIteration):
                event = await first
                while True:
                    await self._turnstile.enter()
                    await self._send(send, self._text(event))
                    event = await anext(source)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            if ending is not None:
                await ending

    async def _send(self, send: Send, data: bytes) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": True})

    def _text(self, event: Event) -> bytes:
        line = frames.text(event.to_dict())
        if self._is_lines:
            return line.encode() + b"\n"
        return f"id: {event.cursor}\nevent: {event.type}\ndata: {line}\n\n".encode()
