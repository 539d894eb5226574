"""A request that is too long, too slow or of two lengths is refused before a route has it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from toft.api import limits, problems


async def reads(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await PlainTextResponse(str(len(body)))(scope, receive, send)


async def ask(
    app: ASGIApp, pieces: Iterable[bytes | float], *headers: tuple[bytes, bytes], path: str = "/v1/jobs"
) -> tuple[int, Any]:
    """Send pieces of a body; a number is a silence of so many seconds."""
    sent: list[Message] = []
    coming = [*pieces]

    async def receive() -> Message:
        if isinstance(coming[0], float):
            await asyncio.sleep(float(coming.pop(0)))
        body = coming.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(coming)}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
    await problems.Faults(app)(scope, receive, send)
    text = b"".join(each.get("body", b"") for each in sent[1:])
    return sent[0]["status"], json.loads(text) if b"{" in text else int(text)


async def test_a_body_is_whole_or_refused_for_its_size() -> None:
    app = limits.Limits(reads, most_bytes=3 << 20)
    large = b"x" * (1 << 20)
    assert await ask(app, [large, large]) == (200, 2 << 20)
    assert (await ask(app, [large] * 4))[1]["code"] == "request.too_large"
    assert (await ask(app, [large, b"x"], path="/v1/jobs/job_1/cancel"))[1]["details"] == {
        "most_bytes": limits.SMALL_BYTES
    }
    told = await ask(app, [b""], (b"content-length", b"%d" % (4 << 20)))
    assert told[0] == 413


async def test_two_lengths_are_none() -> None:
    app = limits.Limits(reads, most_bytes=1 << 20)
    told = await ask(app, [b"x"], (b"content-length", b"1"), (b"transfer-encoding", b"chunked"))
    assert (told[0], told[1]["code"]) == (400, "request.ambiguous_length")


@pytest.mark.parametrize(
    "pieces",
    [[b"x", 5.0, b"x"], [each for _ in range(50) for each in (b"x", 0.01)] + [b"x"]],
    ids=["silence", "drip"],
)
async def test_a_body_that_does_not_come_is_given_up(pieces: list[bytes | float]) -> None:
    app = limits.Limits(reads, most_bytes=1 << 20, silence_s=0.05, body_s=0.1)
    began = asyncio.get_running_loop().time()
    told = await ask(app, pieces)
    assert (told[0], told[1]["code"]) == (408, "request.too_slow")
    assert asyncio.get_running_loop().time() - began < 2
