"""How a central is asked, and who counts as one; `connections` does it.

What is trusted is settled before a byte of a request leaves: plain HTTP only to this machine itself, TLS only
with a certificate that an authority or a pin vouches for.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from toft.kernel.errors import RefusedError, UnavailableError

DEADLINE_S = 30.0
"""Over the name, the connection, the headers and the body of one question."""
MOST_BYTES = 1 << 20


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


class Speaks(Protocol):
    """Whoever asks a central in the name of this node; see `toft.managed.enrolling.Credentials`."""

    @property
    def is_enrolled(self) -> bool:
        """Say whether there is a credential."""
        ...

    async def ask(
        self,
        method: str,
        url: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        deadline_s: float = DEADLINE_S,
    ) -> Answer:
        """Send one request with the credential of this node.

        Raises:
            NodeError: As `Asks.ask`; or there is no credential, or it is not shown there.
        """
        ...


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
        f"{shown(url)} is plain HTTP to another machine: everybody on the way would read the credential",
        code="control.plain_http",
        details={"url": shown(url)},
        hint="use https; or toft join --insecure-http where the network itself is trusted",
    )


def _is_here(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def shown(url: str) -> str:
    """Return an address as it may be told: without a password, and whatever it is."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return repr(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
