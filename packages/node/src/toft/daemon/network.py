"""A TCP port for this node: where it may be, with which certificate, and what it is then called."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path

from toft.kernel import errors, log
from toft.kernel.settings import Settings

_log = log.get_logger("daemon.network")
_BACKLOG = 4096
LOOPBACK = "127.0.0.1:0"


@dataclass(frozen=True)
class Where:
    """A host and a port; port 0 is any that is free."""

    host: str
    port: int

    @property
    def is_public(self) -> bool:
        """Say whether other machines may reach it; a name counts as public unless it is `localhost`."""
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host != "localhost"


def parse(text: str) -> Where:
    """Return what `HOST:PORT` says; an IPv6 address stands in brackets.

    Raises:
        UsageError: It says nothing of the kind.
    """
    host, colon, port = text.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    if colon and host and port.isdigit() and int(port) < 65536 and (is_bracketed or ":" not in host):
        return Where(host.strip("[]"), int(port))
    raise errors.UsageError(
        f"{text[:100]!r} is not HOST:PORT",
        code="daemon.listen",
        hint="such as 127.0.0.1:8700, [::1]:8700, or 0.0.0.0:8700 for every network of the machine",
    )


def check(settings: Settings) -> Where | None:
    """Return where to listen; None for the socket alone.

    Raises:
        UsageError: The settings do not fit each other, or would show tokens to the network.
    """
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise errors.UsageError(
            "a certificate needs its key, and a key its certificate",
            code="daemon.tls",
            hint="give both --tls-cert and --tls-key",
        )
    if not settings.listen:
        return None
    where = parse(settings.listen)
    if where.is_public and settings.tls_cert is None and not settings.insecure_public:
        raise errors.UsageError(
            f"{settings.listen} can be reached from other machines, and without TLS everybody between them"
            " and this one can read each token",
            code="daemon.insecure_listen",
            details={"listen": settings.listen},
            hint="give --tls-cert and --tls-key, or listen on 127.0.0.1, or say --insecure-public",
        )
    return where


def context(settings: Settings) -> ssl.SSLContext | None:
    """Return what TLS is spoken with; None without a certificate; blocks.

    Raises:
        UsageError: The certificate or the key cannot be used.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    _warn_of_readers(settings.tls_key)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    try:
        made.load_cert_chain(settings.tls_cert, settings.tls_key, password="")
    except (OSError, ValueError) as error:
        raise errors.UsageError(
            f"TLS cannot use {settings.tls_cert} with {settings.tls_key}: {error}",
            code="daemon.tls",
            hint="both are PEM files, the key without a passphrase, and they belong together",
        ) from error
    return made


def bind(where: Where) -> socket.socket:
    """Return a listening socket; blocks.

    Raises:
        UnavailableError: Somebody else has the port, or the machine has no such address.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            sock.listen(_BACKLOG)
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        raise errors.UnavailableError(
            f"{where.host}:{where.port} cannot be listened on: {error.strerror or error}",
            code="daemon.port",
            details={"host": where.host, "port": where.port},
            hint="ss -ltnp shows who has a port; port 0 takes a free one",
        ) from error
    return sock


def url(sock: socket.socket, where: Where, settings: Settings, *, is_tls: bool) -> str:
    """Return the address of a listening socket as a browser takes it."""
    host = settings.allowed_hosts[0] if settings.allowed_hosts and settings.listen else where.host
    with contextlib.suppress(ValueError):
        found = ipaddress.ip_address(host)
        if found.is_unspecified:
            host = "127.0.0.1" if found.version == 4 else "::1"
    scheme = "https" if is_tls else "http"
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}:{sock.getsockname()[1]}"


def _warn_of_readers(key: Path) -> None:
    with contextlib.suppress(OSError):
        found = os.stat(key)
        if found.st_mode & (stat.S_IRGRP | stat.S_IROTH):
            _log.warning("key_readable_by_others", path=str(key), mode=oct(stat.S_IMODE(found.st_mode)))
