"""What a request may carry: so many bytes, without long silences, of one clear length."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from toft.api import operations, problems
from toft.kernel import errors

_SILENCE_S = 30.0
_BODY_S = 60.0
_SLOWEST_BYTES_S = 16 << 10
WHOLE = "toft.whole"
"""In a request's scope: whether all of it has come, so that neither its size nor its pace is open."""
SMALL_BYTES = 1 << 20
"""What a request may carry on a route that takes no data, only what to do."""
_LARGE = re.compile(
    "|".join(
        operations.pattern(each.route)
        for each in operations.OPERATIONS
        if each.brings or (each.takes is not None and each.takes.is_large)
    )
)


class Limits:
    """Refuses bodies that are too large or too slow, before a route has them.

    Args:
        app: What it guards.
        most_bytes: The most one request may carry.
        silence_s: Seconds within which more of a body must come.
        body_s: Seconds for a body of any size; a large one has one more for each 16 KiB.
        large: The routes that take so much; all others take a mebibyte.
        own: Routes that take another amount, each with that.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        most_bytes: int,
        silence_s: float = _SILENCE_S,
        body_s: float = _BODY_S,
        large: re.Pattern[str] = _LARGE,
        own: Sequence[tuple[re.Pattern[str], int]] = (),
    ) -> None:
        self._app = app
        self._most = most_bytes
        self._silence_s = silence_s
        self._body_s = body_s
        self._large = large
        self._own = own
        self._small = min(SMALL_BYTES, most_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        headers = dict(scope["headers"])
        claimed = headers.get(b"content-length", b"0")
        if b"transfer-encoding" in headers and b"content-length" in headers:
            await _refuse(_unclear(), scope, receive, send)
            return
        most = self._most
        if (length := int(claimed) if claimed.isdigit() else 0) > SMALL_BYTES:
            most = self._most_of(scope)
        if length > most:
            await _refuse(self._too_large(most), scope, receive, send)
            return
        if scope.get(WHOLE) and b"content-length" in headers:
            await self._app(scope, receive, send)
            return
        came = 0
        is_whole = False
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def receiving() -> Message:
            nonlocal came, is_whole
            if is_whole:
                return await receive()
            try:
                # A byte now and then is not silence, and would hold a request for ever.
                left = began + self._body_s + came / _SLOWEST_BYTES_S - loop.time()
                async with asyncio.timeout(min(self._silence_s, left)):
                    message = await receive()
            except TimeoutError:
                raise errors.UsageError(
                    "the rest of the request did not come", code="request.too_slow"
                ) from None
            if message["type"] == "http.request":
                came += len(message.get("body", b""))
                is_whole = not message.get("more_body", False)
                if came > SMALL_BYTES or came > self._most:
                    most = self._most_of(scope)
                    if came > most:
                        raise self._too_large(most)
            return message

        await self._app(scope, receiving, send)

    def _most_of(self, scope: Scope) -> int:
        route = f"{scope['method']} {scope['path']}"
        if self._large.fullmatch(route):
            return self._most
        return next((most for named, most in self._own if named.fullmatch(route)), self._small)

    def _too_large(self, most: int) -> errors.RefusedError:
        return errors.RefusedError(
            f"a request may carry {most} bytes here",
            code="request.too_large",
            details={"most_bytes": most},
            hint="pass a path instead of the data, or raise the setting request_bytes",
        )


def _unclear() -> errors.UsageError:
    """Return the error for a length that two readers could understand in two ways."""
    return errors.UsageError(
        "the request has both Content-Length and Transfer-Encoding", code="request.ambiguous_length"
    )


async def _refuse(error: errors.NodeError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer without reading the body; what follows on this connection is not looked at either."""
    answer = problems.response(error)
    answer.headers["Connection"] = "close"
    await answer(scope, receive, send)
