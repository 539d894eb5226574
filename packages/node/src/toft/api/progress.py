"""Work that takes a while: one answer at its end, or a line for each step for whoever asks for lines.

Lines are JSON objects with a `kind`: `step` (text), and at the end `ended` (result, or error as a problem
document has it); an empty one says that it goes on. The work ends with whoever asked for it, and leaves what
was there before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from toft.api import bodies, following, frames, problems
from toft.plugins.environments import provisioning

_MOST = 1000
_SILENCE_S = 15.0
Work = Callable[[provisioning.Progress], Awaitable[Any]]


async def answer(request: Request, work: Work, *, status: int = 200) -> Response:
    """Return what work gives, as it was asked for; cancel it when nobody is there to hear it."""
    if frames.LINES_TYPE in request.headers.get("accept", ""):
        await request.body()
        return Steps(work, status)

    async def whole() -> Response:
        return bodies.answer(await work(provisioning.silent), status=status)

    return await following.while_here(request, whole())


class Steps(Response):
    """The answer that lasts as long as its work."""

    media_type = frames.LINES_TYPE

    def __init__(self, work: Work, status: int, *, silence_s: float = _SILENCE_S) -> None:
        super().__init__(status_code=status, headers={"Cache-Control": "no-store"})
        self._work = work
        self._path = ""
        self._silence_s = silence_s
        self._steps: deque[str] = deque(maxlen=_MOST)
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell until the work has ended, or its reader is gone."""
        self._path = str(scope.get("path", ""))
        del self.headers["content-length"]
        await following.while_there(receive, self._tell(send))

    def _step(self, text: str) -> None:
        self._steps.append(text)
        # Also from a thread.
        self._loop.call_soon_threadsafe(self._changed.set)

    async def _tell(self, send: Send) -> None:
        working = asyncio.ensure_future(self._work(self._step))
        working.add_done_callback(lambda _: self._changed.set())
        has_begun = False
        try:
            while not working.done() or self._steps:
                is_silent = not await self._hear()
                if working.done() and not self._steps and not has_begun:
                    break
                if not has_begun:
                    await self._begin(send)
                    has_begun = True
                if is_silent:
                    await self._send(send, b"\n")
                while self._steps:
                    await self._line(send, {"kind": "step", "text": self._steps.popleft()})
            await self._end(send, working, has_begun=has_begun)
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    async def _hear(self) -> bool:
        """Wait until something has happened; not so long that what is between takes it for dead."""
        try:
            async with asyncio.timeout(self._silence_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True

    async def _end(self, send: Send, working: asyncio.Future[Any], *, has_begun: bool) -> None:
        error = working.exception()
        if error is None:
            last = {"kind": "ended", "result": working.result()}
        elif has_begun and isinstance(error, Exception):
            last = {"kind": "ended", "error": problems.body_of(problems.logged(error, self._path))}
        else:
            raise error  # it is still an answer of its own
        if not has_begun:
            await self._begin(send)
        await self._line(send, last)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _begin(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})

    async def _line(self, send: Send, value: Any) -> None:
        await self._send(send, frames.text(value).encode() + b"\n")

    async def _send(self, send: Send, data: bytes) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": True})
