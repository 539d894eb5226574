"""Values as bytes: a strong tag, pieces of them, and going on where a download broke off."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO

from fastapi.responses import Response
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from toft.api import following, problems
from toft.kernel import errors
from toft.store import blobs

_PIECE = 1 << 20
_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))", re.ASCII)


class Download(Response):
    """Bytes with the headers by which a client can get them piece by piece.

    What asks for several pieces at once, or cannot be read, is answered whole, as HTTP allows.

    Args:
        source: The bytes, or the file that holds them.
        digest: Their sha256 in hex; taken of the bytes when it is not known.
        media_type: Of what kind they are.

    Raises:
        NotFoundError: The file went with the job it belonged to.
    """

    def __init__(self, source: bytes | BinaryIO, *, media_type: str, digest: str = "") -> None:
        super().__init__(media_type=media_type)
        self._source = source
        self.size = len(source) if isinstance(source, bytes) else source.seek(0, 2)
        if isinstance(source, bytes) and not digest:
            digest = hashlib.sha256(source).hexdigest()
        self._tag = f'"{digest}"'

    @classmethod
    async def of_file(cls, path: Path, *, digest: str, media_type: str) -> Download:
        """Open a file that holds what has this digest."""
        try:
            file = await asyncio.to_thread(path.open, "rb")
        except FileNotFoundError:
            raise blobs.not_found(digest) from None
        return cls(file, media_type=media_type, digest=digest)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what was asked for, for as long as somebody takes it."""
        try:
            await self._answer(Headers(scope=scope), scope, receive, send)
        finally:
            if not isinstance(self._source, bytes):
                self._source.close()

    async def _answer(self, asked: Headers, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers.update(
            {"etag": self._tag, "accept-ranges": "bytes", "cache-control": "private, no-cache"}
        )
        if _names(asked.get("if-none-match", ""), self._tag):
            del self.headers["content-length"]
            await self._start(send, 304)
            await send({"type": "http.response.body", "body": b""})
            return
        first, last, status = 0, self.size - 1, 200
        wanted = self._wanted(asked)
        if wanted is not None:
            first, last = wanted
            if first > last:
                await self._refuse(scope, receive, send)
                return
            self.headers["content-range"] = f"bytes {first}-{last}/{self.size}"
            status = 206
        self.headers["content-length"] = str(last - first + 1)
        await self._start(send, status)
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        await following.while_there(receive, self._send(send, first, last + 1))

    def _wanted(self, asked: Headers) -> tuple[int, int] | None:
        """Return the first and the last byte that are asked for; None for all of them."""
        found = _RANGE.fullmatch(asked.get("range", "").strip())
        condition = asked.get("if-range")
        if found is None or (condition is not None and condition.strip() != self._tag):
            return None
        first, last, suffix = found.groups()
        if suffix is not None:
            return (max(0, self.size - int(suffix)) if int(suffix) else self.size), self.size - 1
        if last and int(last) < int(first):
            return None
        return int(first), min(int(last), self.size - 1) if last else self.size - 1

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = problems.response(
            errors.UsageError(
                f"there are {self.size} bytes, and none where they are asked for",
                code="request.range",
                details={"size_bytes": self.size},
            )
        )
        answer.headers["content-range"] = f"bytes */{self.size}"
        await answer(scope, receive, send)

    async def _start(self, send: Send, status: int) -> None:
        await send({"type": "http.response.start", "status": status, "headers": self.raw_headers})

    async def _send(self, send: Send, first: int, end: int) -> None:
        async for piece in self._pieces(first, end):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pieces(self, first: int, end: int) -> AsyncIterator[bytes]:
        source = self._source
        if isinstance(source, bytes):
            yield source[first:end]
            return
        await asyncio.to_thread(source.seek, first)
        for size in _sizes(end - first):
            yield await asyncio.to_thread(source.read, size)


def _sizes(left: int) -> Iterator[int]:
    while left > 0:
        yield min(_PIECE, left)
        left -= _PIECE


def _names(header: str, tag: str) -> bool:
    return (
        any(each.strip().removeprefix("W/") in (tag, "*") for each in header.split(",")) if header else False
    )
