"""Reads a wheel from a server that a document names; what comes is bounded, and trusted in nothing."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from urllib.parse import quote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore

from toft.kernel import log
from toft.kernel.version import VERSION
from toft.managed.install_errors import for_good, for_now, mismatch

_log = log.get_logger("managed.downloads")
_TIMEOUTS = {"connect": 10.0, "read": 30.0, "write": 30.0, "pool": 10.0}
_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_LATER = (408, 425, 429)
_BROKEN = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    httpcore.ProxyError,
    OSError,
)
_HEADERS = [("Accept", "*/*"), ("Accept-Encoding", "identity"), ("User-Agent", f"toft/{VERSION}")]


async def read(url: str, size_bytes: int) -> AsyncGenerator[bytes]:
    """Yield what an address has; whoever takes it counts it, hashes it, and has no more time than they want.

    Args:
        url: `http` or `https`.
        size_bytes: How long it is to be; what says that it has another length is not read.

    Raises:
        InstallError: It is not there, or not now.
    """
    where = url
    for _ in range(_MOST_REDIRECTS + 1):
        try:
            async with (
                await _pool(where) as pool,
                pool.stream(
                    "GET",
                    _written(where),
                    headers=[("Host", urlsplit(where).netloc), *_HEADERS],
                    extensions={"timeout": _TIMEOUTS},
                ) as answer,
            ):
                if answer.status in _REDIRECTS:
                    where = _next(where, answer)
                    continue
                _check(answer, where, size_bytes)
                async for piece in answer.aiter_stream():
                    yield piece
                return
        except _BROKEN as error:
            why = str(error) or type(error).__name__
            raise for_now(f"{shown(where)} cannot be read: {why}", details={"url": shown(where)}) from error
        except ValueError as error:  # somebody leads to what is no address
            raise for_good(f"{url[:300]!r} leads to no address: {error}") from error
    raise for_good(f"{shown(url)} leads from one address to the next", details={"url": shown(url)})


def shown(url: str) -> str:
    """Return an address without what may be a secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:300]


async def _pool(url: str) -> httpcore.AsyncConnectionPool:
    parts = urlsplit(url)
    found = getproxies().get(parts.scheme)
    proxy = httpcore.Proxy(found) if found and not proxy_bypass(parts.hostname or "") else None
    context = await asyncio.to_thread(ssl.create_default_context) if parts.scheme == "https" else None
    return httpcore.AsyncConnectionPool(ssl_context=context, proxy=proxy, max_connections=1)


def _written(url: str) -> str:
    """Return an address as it may stand in a request."""
    text = quote(url, safe="%/:=&?~+!$,;'@()*[]")
    if not urlsplit(url).hostname or not urlsplit(url).netloc.isascii():
        raise for_good(f"{shown(url)} is no address", details={"url": shown(url)})
    return text


def _next(url: str, answer: httpcore.Response) -> str:
    to = urljoin(url, _header(answer, b"location"))
    if urlsplit(to).scheme != urlsplit(url).scheme or "@" in urlsplit(to).netloc:
        raise for_good(
            f"{shown(url)} leads to {shown(to)}, and only the same kind of address is followed",
            details={"url": shown(url), "to": shown(to)},
        )
    return to


def _check(answer: httpcore.Response, url: str, size_bytes: int) -> None:
    if answer.status == 200:
        length = _header(answer, b"content-length")
        if length.isdecimal() and int(length) != size_bytes:
            _log.warning("another length", url=shown(url), size_bytes=int(length))
            raise mismatch(f"{shown(url)} is another file than was pinned", details={"url": shown(url)})
        return
    told = {"url": shown(url), "status": answer.status}
    text = f"{shown(url)} answers {answer.status}"
    raise for_now(text, details=told) if _is_passing(answer.status) else for_good(text, details=told)


def _is_passing(status: int) -> bool:
    return status in _LATER or status >= 500


def _header(answer: httpcore.Response, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in answer.headers if key.lower() == name), "")
