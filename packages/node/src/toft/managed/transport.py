"""Asks a central over HTTP/1.1: one deadline over everything, bodies bounded, nobody followed elsewhere.

What is trusted is settled before a byte of a request leaves: plain HTTP only to this machine itself, TLS only
with a certificate that an authority or a pin vouches for.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import re
import ssl
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpcore

from toft.kernel import clock as clocks
from toft.kernel.errors import RefusedError, UnavailableError

DEADLINE_S = 30.0
"""Over the name, the connection, the headers and the body of one question."""
MOST_BYTES = 1 << 20
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


class UnreachableError(UnavailableError):
    """A central could not be asked, or broke off; the next time it may work."""

    code = "control.unreachable"
    blame = "environment"


class AnswerError(UnavailableError):
    """A central answered what nobody could use: too much, or not what it said it would be."""

    code = "control.bad_answer"
    blame = "environment"


class TrustError(RefusedError):
    """The other end may not be told a credential."""

    code = "control.not_trusted"
    blame = "environment"


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Who counts as the central.

    Attributes:
        ca_file: PEM of the authorities that count in place of the machine's own.
        pin_sha256: Of the one certificate that counts; without `ca_file` it needs nobody else's word.
        insecure_http: Plain HTTP is allowed to other machines than this one.
    """

    ca_file: str = ""
    pin_sha256: str = ""
    insecure_http: bool = False


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back.

    Attributes:
        status: Of HTTP.
        headers: By names in lower case.
        body: Unpacked.
        latency_s: From the question to the last byte.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    latency_s: float = 0.0


class Asks(Protocol):
    """Whoever can ask a central; the seam that tests stand in for."""

    async def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes = b"",
        deadline_s: float = DEADLINE_S,
    ) -> Answer:
        """Send one request and return the whole answer, whatever its status.

        Raises:
            UnreachableError: Nobody answered, or not to the end, or not in time.
            AnswerError: The answer is too large or cannot be unpacked; the rest of it is not read.
            TrustError: The address is none that a credential may be sent to; nothing was sent.
        """
        ...


class Transport:
    """The connections of one node to its centrals.

    Args:
        trust: Who counts as one.
        clock: For how long an answer took.
    """

    def __init__(self, trust: Trust, clock: clocks.Clock = clocks.SYSTEM) -> None:
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
        deadline_s: float = DEADLINE_S,
    ) -> Answer:
        """Send one request and return the whole answer; see `Asks.ask`."""
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(deadline_s):
                async with self._open(method, url, headers, body) as answer:
                    found = _headers(answer.headers)
                    content = await _read(answer, found, MOST_BYTES)
        except TimeoutError as error:
            raise UnreachableError(
                f"{_shown(url)} did not answer to the end within {deadline_s:g} s",
                code="control.deadline",
                details={"url": _shown(url), "deadline_s": deadline_s},
            ) from error
        return Answer(
            status=answer.status, headers=found, body=content, latency_s=self._clock.monotonic() - began
        )

    @contextlib.asynccontextmanager
    async def stream(
        self, url: str, *, headers: Mapping[str, str], idle_s: float = DEADLINE_S
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
            check(url, self._trust)
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


def check(url: str, trust: Trust) -> None:
    """Refuse an address that nobody may send a credential to.

    Raises:
        TrustError: It is plain HTTP to another machine, and nobody has allowed that.
    """
    parts = urlsplit(url)
    if parts.scheme == "https" or (
        parts.scheme == "http" and (trust.insecure_http or _is_here(parts.hostname))
    ):
        return
    raise TrustError(
        f"{_shown(url)} is plain HTTP to another machine: everybody on the way would read the credential",
        code="control.plain_http",
        details={"url": _shown(url)},
        hint="use https; or toft join --insecure-http where the network itself is trusted",
    )


def check_trust(trust: Trust) -> None:
    """Refuse what cannot say who counts as the central; reads the file of the authorities.

    Raises:
        TrustError: The file has no certificates, or the pin is none.
    """
    _context(trust)
    _Backend(trust.pin_sha256)


def _is_here(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _context(trust: Trust) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=trust.ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise TrustError(
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
            raise TrustError(
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
            raise TrustError(
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
            raise AnswerError(f"the answer cannot be unpacked: {error}", code="control.bad_answer") from error
        if len(found) > most:
            raise _too_large(most)
    return bytes(found)


def _unpacker(encoding: str) -> Any:
    if encoding in ("", "identity"):
        return lambda part, room: part[:room]
    if encoding not in ("gzip", "x-gzip"):
        raise AnswerError(
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


def _too_large(most: int, said: str = "") -> AnswerError:
    size = f"{said[:20]} bytes" if said else f"more than {most} bytes"
    return AnswerError(
        f"the answer has {size}, and {most} is the most",
        code="control.too_large",
        details={"most": most},
    )


def _silent(url: str, idle_s: float) -> UnreachableError:
    return UnreachableError(
        f"{_shown(url)} said nothing for {idle_s:g} s",
        code="control.deadline",
        details={"url": _shown(url), "deadline_s": idle_s},
    )


def _unreachable(url: str, error: Exception) -> UnreachableError:
    why = str(error) or type(error).__name__
    return UnreachableError(
        f"{_shown(url)} cannot be asked: {why}", details={"url": _shown(url), "why": why[:500]}
    )


def _shown(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return repr(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
