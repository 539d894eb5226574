"""Asks a central over HTTP/1.1: one deadline over everything, bodies bounded, nobody followed elsewhere.

Importing this loads `httpcore`, 50 ms of a start: a node that belongs nowhere goes without.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import re
import ssl
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpcore

from toft.kernel import clock as clocks
from toft.managed import transport

_CONNECTIONS = 8
_KEPT = 2
# Shorter than any pause between two polls but the shortest: a connection that a server has closed meanwhile
# would cost one.
_IDLE_S = 4.0
_PIN = re.compile(r"[0-9a-f]{64}", re.ASCII)
_BROKEN = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    httpcore.ConnectionNotAvailable,
    OSError,
    ValueError,  # a host that cannot be one
)


class Connections:
    """The connections of one node to its centrals.

    Args:
        trust: Who counts as one.
        clock: For how long an answer took.
    """

    def __init__(self, trust: transport.Trust, clock: clocks.Clock = clocks.SYSTEM) -> None:
        self._trust = trust
        self._clock = clock
        self._pool: httpcore.AsyncConnectionPool | None = None
        self._opening = asyncio.Lock()

    async def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes = b"",
        deadline_s: float = transport.DEADLINE_S,
    ) -> transport.Answer:
        """Send one request and return the whole answer; see `Asks.ask`."""
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(deadline_s):
                async with self._open(method, url, headers, body) as answer:
                    found = _headers(answer.headers)
                    content = await _read(answer, found, transport.MOST_BYTES)
        except TimeoutError as error:
            raise transport.UnreachableError(
                f"{transport.shown(url)} did not answer to the end within {deadline_s:g} s",
                code="control.deadline",
                details={"url": transport.shown(url), "deadline_s": deadline_s},
            ) from error
        return transport.Answer(
            status=answer.status, headers=found, body=content, latency_s=self._clock.monotonic() - began
        )

    @contextlib.asynccontextmanager
    async def stream(
        self, url: str, *, headers: Mapping[str, str], idle_s: float = transport.DEADLINE_S
    ) -> AsyncGenerator[tuple[int, Mapping[str, str], AsyncIterator[bytes]]]:
        """Ask for something large, whose length the caller bounds; silence for `idle_s` ends it.

        Raises:
            UnreachableError: As for `ask`; also while the parts come.
            TrustError: As for `ask`.
        """
        async with contextlib.AsyncExitStack() as stack:
            opened = self._open("GET", url, headers, b"")
            try:
                async with asyncio.timeout(idle_s):
                    answer = await stack.enter_async_context(opened)
            except TimeoutError as error:
                raise _silent(url, idle_s) from error
            yield answer.status, _headers(answer.headers), _parts(answer, url, idle_s)

    async def close(self) -> None:
        """End all connections."""
        if self._pool is not None:
            await self._pool.aclose()
            self._pool = None

    @contextlib.asynccontextmanager
    async def _open(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> AsyncGenerator[httpcore.Response]:
        try:
            transport.check(url, self._trust)
            pool = await self._connections()
            sent = {"Host": urlsplit(url).netloc, "Accept-Encoding": "gzip", **headers}
            if body or method != "GET":
                sent["Content-Length"] = str(len(body))
            async with pool.stream(method, url, headers=list(sent.items()), content=body) as answer:
                yield answer
        except _BROKEN as error:
            raise _unreachable(url, error) from error

    async def _connections(self) -> httpcore.AsyncConnectionPool:
        async with self._opening:
            if self._pool is None:
                context = await asyncio.to_thread(_context, self._trust)
                self._pool = httpcore.AsyncConnectionPool(
                    ssl_context=context,
                    max_connections=_CONNECTIONS,
                    max_keepalive_connections=_KEPT,
                    keepalive_expiry=_IDLE_S,
                    network_backend=_Backend(self._trust.pin_sha256),
                )
            return self._pool


def check_trust(trust: transport.Trust) -> None:
    """Refuse what cannot say who counts as the central; reads the file of the authorities.

    Raises:
        TrustError: The file has no certificates, or the pin is none.
    """
    _context(trust)
    _Backend(trust.pin_sha256)


def _context(trust: transport.Trust) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=trust.ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise transport.TrustError(
            f"{trust.ca_file} has no certificates that can be read: {error}",
            code="control.ca_file",
            details={"path": trust.ca_file},
            hint="it must be PEM: the certificate of whoever signed the central's; then toft join again",
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if trust.pin_sha256 and not trust.ca_file:
        # The pin says more than any authority; what it pins is signed by itself, as a rule.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class _Backend(httpcore.AsyncNetworkBackend):
    """Opens connections, and looks at who is there before anything is said."""

    def __init__(self, pin_sha256: str) -> None:
        self._pin = pin_sha256.lower().replace(":", "")
        if pin_sha256 and not _PIN.fullmatch(self._pin):
            raise transport.TrustError(
                "the pin is no SHA-256 of a certificate: 64 hexadecimal digits",
                code="control.pin",
                hint="openssl x509 -in FILE -outform der | sha256sum",
            )
        self._system = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is the library's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        stream = await self._system.connect_tcp(host, port, timeout, local_address, socket_options)
        return _PinnedStream(stream, self._pin) if self._pin else stream

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _PinnedStream(httpcore.AsyncNetworkStream):
    """A connection whose other end must show one certificate."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, pin: str) -> None:
        self._stream = stream
        self._pin = pin

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - as above
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as above
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> httpcore.AsyncNetworkStream:
        stream = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        shown = stream.get_extra_info("ssl_object").getpeercert(binary_form=True) or b""
        found = hashlib.sha256(shown).hexdigest()
        if not hmac.compare_digest(found, self._pin):
            await stream.aclose()
            raise transport.TrustError(
                f"the other end shows the certificate {found}, and {self._pin} is pinned",
                code="control.other_certificate",
                details={"found": found, "pinned": self._pin},
                hint="if the central has a new certificate, join again with its --pin-sha256",
            )
        return stream

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


async def _read(answer: httpcore.Response, headers: Mapping[str, str], most: int) -> bytes:
    """Return the whole body, unpacked; give up at the first byte too many."""
    said = headers.get("content-length", "")
    if said.isascii() and said.isdigit() and (len(said) > 15 or int(said) > most):
        raise _too_large(most, said=said)
    unpack = _unpacker(headers.get("content-encoding", "").strip().lower())
    found = bytearray()
    async for part in answer.aiter_stream():
        try:
            found += unpack(part, most + 1 - len(found))
        except zlib.error as error:
            raise transport.AnswerError(
                f"the answer cannot be unpacked: {error}", code="control.bad_answer"
            ) from error
        if len(found) > most:
            raise _too_large(most)
    return bytes(found)


def _unpacker(encoding: str) -> Any:
    if encoding in ("", "identity"):
        return lambda part, room: part[:room]
    if encoding not in ("gzip", "x-gzip"):
        raise transport.AnswerError(
            f"the answer is packed as {encoding[:40]!r}, which nobody asked for", code="control.bad_answer"
        )
    # What is packed beyond the room stays packed: the bound is on what it unfolds into.
    machine = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    return lambda part, room: machine.decompress(part, max(room, 1))


async def _parts(answer: httpcore.Response, url: str, idle_s: float) -> AsyncIterator[bytes]:
    parts = answer.aiter_stream().__aiter__()
    while True:
        try:
            async with asyncio.timeout(idle_s):
                part = await anext(parts, None)
        except TimeoutError as error:
            raise _silent(url, idle_s) from error
        except _BROKEN as error:
            raise _unreachable(url, error) from error
        if part is None:
            return
        yield part


def _headers(given: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in given}


def _too_large(most: int, said: str = "") -> transport.AnswerError:
    size = f"{said[:20]} bytes" if said else f"more than {most} bytes"
    return transport.AnswerError(
        f"the answer has {size}, and {most} is the most",
        code="control.too_large",
        details={"most": most},
    )


def _silent(url: str, idle_s: float) -> transport.UnreachableError:
    return transport.UnreachableError(
        f"{transport.shown(url)} said nothing for {idle_s:g} s",
        code="control.deadline",
        details={"url": transport.shown(url), "deadline_s": idle_s},
    )


def _unreachable(url: str, error: Exception) -> transport.UnreachableError:
    why = str(error) or type(error).__name__
    return transport.UnreachableError(
        f"{transport.shown(url)} cannot be asked: {why}",
        details={"url": transport.shown(url), "why": why[:500]},
    )
