"""One question to a central after the other, for commands; each has a connection of its own."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpcore

from toft.client import connection
from toft.client.origins import CONNECT_S, NodeOrigin
from toft.client.target import Target
from toft.kernel.errors import UsageError

_ANSWER_S = 120.0
_PIECE = 1 << 20
_BROKEN = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException)


def ask(
    target: Target,
    method: str,
    route: str,
    body: Mapping[str, Any] | None = None,
    *,
    query: Mapping[str, Any] | None = None,
) -> Any:
    """Return what a central answers.

    Raises:
        UsageError: The body holds what JSON has not, such as the date of a TOML file.
        UnavailableError: Nobody answers there.
        NodeError: As the central raised it.
    """
    content = None if body is None else _json(body)
    headers = {} if content is None else {"Content-Type": "application/json"}
    return asyncio.run(_ask(target, method, _url(route, query), content, headers))


def upload(target: Target, route: str, file: Path, *, query: Mapping[str, Any] | None = None) -> Any:
    """Send a file as it is, and return the answer.

    Raises:
        UnavailableError: Nobody answers there.
        NodeError: As the central raised it.
    """
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(file.stat().st_size)}
    return asyncio.run(_ask(target, "PUT", _url(route, query), _pieces(file), headers))


def digest(file: Path) -> str:
    """Return the sha256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def path(root: str, *parts: str) -> str:
    """Return a route below another one, whatever stands in its parts.

    Raises:
        UsageError: A part can be no name: a central would see another route.
    """
    for each in parts:
        if not each or "/" in each or each in (".", ".."):
            raise UsageError(
                f"{each[:80]!r} can be no name or id",
                code="name.invalid",
                hint="the list of that kind shows which there are, such as toft central node list",
            )
    return "/".join((root, *(quote(part, safe="") for part in parts)))


def _json(body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"what is to be sent is no JSON: {error}",
            code="request.not_json",
            hint="write dates as text in quotes, and only numbers that end",
        ) from None


def _url(route: str, query: Mapping[str, Any] | None) -> str:
    given = {name: value for name, value in (query or {}).items() if value is not None}
    return route + (f"?{urlencode(given)}" if given else "")


async def _ask(
    target: Target,
    method: str,
    url: str,
    content: bytes | AsyncIterator[bytes] | None,
    headers: Mapping[str, str],
) -> Any:
    origin = NodeOrigin(target)
    told = {**origin.headers, **headers}
    async with AsyncExitStack() as stack:
        pool = await origin.open(stack)
        try:
            answer = await pool.request(
                method,
                origin.base + url,
                headers=list(told.items()),
                content=content,
                extensions={"timeout": {"connect": CONNECT_S, "read": _ANSWER_S}},
            )
        except _BROKEN as error:
            raise origin.broken(error) from error
        data = answer.content
    if not 200 <= answer.status < 300:
        raise connection.problem(data) or origin.strange(answer.status)
    try:
        return json.loads(data) if data else None
    except ValueError:
        raise origin.strange(answer.status) from None


async def _pieces(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as opened:
        while piece := await asyncio.to_thread(opened.read, _PIECE):
            yield piece
