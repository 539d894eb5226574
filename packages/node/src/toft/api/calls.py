"""Calls of clients: begun by one request, whose answer is what happens, frame by frame, up to the end.

Frames are objects with a `kind`: `began` (number), `progress` (fraction, message, usage), `log` (a line),
`lost` (how many lines its reader was too slow for), `chunks` (values), `ended` (result or error, usage,
duration_s, outcome). A client that goes away cancels its call.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from toft.access.resources import Action, Kind
from toft.api import bodies, following, frames, permits, problems, schemas, service
from toft.api.service import Service
from toft.kernel import errors, traces
from toft.plugins.plugin_errors import PluginError
from toft.plugins.supervision import calls, chunks
from toft.plugins.wire.frames import LogLine

router = APIRouter(tags=["calls"])
Serves = Annotated[Service, Depends(service.of)]
_LINES = 10_000
_CHUNKS = 256


@router.post(
    "/v1/instances/{name}/calls", dependencies=[permits.needs(Action.WRITE, Kind.INSTANCE, id="name")]
)
async def begin(request: Request, serves: Serves, name: str) -> Response:
    """Run an action of an instance; the answer is a stream of frames."""
    serves.admit()
    wanted = bodies.taken(await bodies.fields(request), **schemas.CALL.kinds)
    instance = await permits.instance(request, Action.WRITE, name)
    start = instance.stream_with if wanted["stream"] else instance.start_with
    happenings = _Happenings(is_quiet=bool(wanted["quiet"]))
    with traces.within(request.headers.get(traces.HEADER)):
        begun: Any = start(
            wanted["action"],
            wanted["arguments"] or {},
            timeout_s=wanted["timeout_s"],
            grace_s=wanted["grace_s"],
            on_progress=happenings.progress,
            on_log=happenings.log,
        )
    return _Following(serves, begun, happenings)


@router.post(
    "/v1/instances/{name}/calls/{number}/cancel",
    dependencies=[permits.needs(Action.CANCEL, Kind.INSTANCE, id="name")],
)
async def cancel(request: Request, serves: Serves, name: str, number: int) -> Response:
    """Ask a call to end."""
    wanted = bodies.taken(await bodies.fields(request), **schemas.CANCEL_CALL.kinds)
    instance = await permits.instance(request, Action.CANCEL, name)
    found = serves.call(instance, number)
    did = found is not None and found.cancel(wanted["reason"] or "cancelled", grace_s=wanted["grace_s"])
    return bodies.answer({"cancelled": did})


class _Happenings:
    """What is to be told of one call; bounded, whatever its plugin says and however slow its reader is."""

    def __init__(self, *, is_quiet: bool) -> None:
        self.changed = asyncio.Event()
        self._is_quiet = is_quiet
        self._progress: tuple[float, str] | None = None
        self._lines: deque[LogLine] = deque()
        self._lost = 0

    def progress(self, fraction: float, message: str) -> None:
        """Keep the newest; older ones that nobody has read are of no use."""
        if not self._is_quiet:
            self._progress = (fraction, message)
            self.changed.set()

    def log(self, line: LogLine) -> None:
        """Keep a line, or count it."""
        if self._is_quiet:
            return
        if len(self._lines) < _LINES:
            self._lines.append(line)
        else:
            self._lost += 1
        self.changed.set()

    def take(self, call: calls.Call) -> list[dict[str, Any]]:
        """Return what is to be told now."""
        self.changed.clear()
        found: list[dict[str, Any]] = []
        while self._lines:
            found.append({"kind": "log", **_line(self._lines.popleft())})
        if self._lost:
            found.append({"kind": "lost", "count": self._lost})
            self._lost = 0
        if self._progress is not None:
            fraction, message = self._progress
            found.append(
                {"kind": "progress", "fraction": fraction, "message": message, "usage": dict(call.usage)}
            )
            self._progress = None
        return found


def _line(line: LogLine) -> dict[str, Any]:
    return {
        "time": line.time,
        "stream": line.stream,
        "call": line.call,
        "text": line.text,
        "level": line.level,
        "fields": dict(line.fields),
    }


class _Following(Response):
    """The answer that lasts as long as its call."""

    media_type = frames.MEDIA_TYPE

    def __init__(self, serves: Service, begun: calls.Call | chunks.Chunks, happenings: _Happenings) -> None:
        super().__init__()
        self._serves = serves
        self._source = begun if isinstance(begun, chunks.Chunks) else None
        self._call = begun.call if isinstance(begun, chunks.Chunks) else begun
        self._happenings = happenings
        serves.begin(self._call)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell what happens until the call has ended, or its reader is gone."""
        del self.headers["content-length"]
        gone = asyncio.create_task(following.until_gone(receive))
        telling = asyncio.create_task(self._tell(send))
        try:
            await asyncio.wait((gone, telling), return_when=asyncio.FIRST_COMPLETED)
            if telling.done():
                telling.result()
        finally:
            if self._call.is_open:
                self._call.cancel("its caller went away")
            for each in (gone, telling):
                each.cancel()
            await asyncio.gather(gone, telling, return_exceptions=True)
            self._serves.end(self._call)

    async def _tell(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await _send(send, {"kind": "began", "number": self._call.number})
        if self._source is None:
            result, error = await self._until_ended(send)
        else:
            result, error = None, await self._stream(send, self._source)
        await self._happened(send)
        call = self._call
        ended: dict[str, Any] = {
            "kind": "ended",
            "usage": dict(call.usage),
            "duration_s": call.duration_s,
            "outcome": call.outcome,
            "progress": call.progress,
            "message": call.message,
        }
        if error is not None:
            ended["error"] = problems.described(error)
        else:
            ended["result"] = result
        await _send(send, ended)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _until_ended(self, send: Send) -> tuple[Any, Exception | None]:
        happenings, future = self._happenings, self._call.future
        future.add_done_callback(lambda _: happenings.changed.set())
        while not future.done():
            await happenings.changed.wait()
            if not future.done():
                await self._happened(send)
        if future.cancelled():
            return None, errors.UnavailableError("the call was given up", code="call.cancelled")
        error = future.exception()
        if isinstance(error, Exception):
            return None, error
        return future.result(), None

    async def _stream(self, send: Send, source: chunks.Chunks) -> Exception | None:
        """Pass on chunks; what the reader does not take is not taken from the worker either."""
        taking: asyncio.Task[list[Any]] = asyncio.create_task(source.take(_CHUNKS))
        try:
            while True:
                changed = asyncio.create_task(self._happenings.changed.wait())
                try:
                    await asyncio.wait((taking, changed), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    changed.cancel()
                await self._happened(send)
                if not taking.done():
                    continue
                try:
                    values = taking.result()
                except (errors.NodeError, PluginError) as error:
                    return error
                if not values:
                    return None
                await _send(send, {"kind": "chunks", "values": values})
                taking = asyncio.create_task(source.take(_CHUNKS))
        finally:
            taking.cancel()
            with contextlib.suppress(asyncio.CancelledError, errors.NodeError, PluginError):
                await taking

    async def _happened(self, send: Send) -> None:
        for each in self._happenings.take(self._call):
            await _send(send, each)


async def _send(send: Send, value: dict[str, Any]) -> None:
    for piece in frames.frame(value):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
