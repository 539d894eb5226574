"""What a request may carry: so many bytes, without long silences."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from toft.api import problems
from toft.kernel import errors

_SILENCE_S = 30.0


class Limits:
    """Refuses bodies that are too large or too slow, before a route has them.

    Args:
        app: What it guards.
        most_bytes: The most one request may carry.
        silence_s: Seconds within which more of a body must come.
    """

    def __init__(self, app: ASGIApp, *, most_bytes: int, silence_s: float = _SILENCE_S) -> None:
        self._app = app
        self._most = most_bytes
        self._silence_s = silence_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        claimed = dict(scope["headers"]).get(b"content-length", b"0")
        if claimed.isdigit() and int(claimed) > self._most:
            await problems.response(self._too_large())(scope, receive, send)
            return
        came = 0
        is_whole = False

        async def receiving() -> Message:
            nonlocal came, is_whole
            if is_whole:
                return await receive()
            try:
                async with asyncio.timeout(self._silence_s):
                    message = await receive()
            except TimeoutError:
                raise errors.UsageError(
                    f"nothing more of the request came for {self._silence_s:g} s", code="request.too_slow"
                ) from None
            if message["type"] == "http.request":
                came += len(message.get("body", b""))
                is_whole = not message.get("more_body", False)
                if came > self._most:
                    raise self._too_large()
            return message

        await self._app(scope, receiving, send)

    def _too_large(self) -> errors.RefusedError:
        return errors.RefusedError(
            f"a request may carry {self._most} bytes",
            code="request.too_large",
            details={"most_bytes": self._most},
            hint="pass a path instead of the data, or raise the setting request_bytes",
        )
