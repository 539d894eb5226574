"""The address of a node elsewhere, and what is shown to it: read and checked before anything is sent."""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from toft.kernel import errors, log

_log = log.get_logger("client.target")
LONGEST_TOKEN = 4096
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a node is, and who asks it.

    Attributes:
        url: Scheme, host and port; nothing more.
        token: Shown with every request; empty shows none.
        ca_file: Trusted instead of the authorities of this machine.
    """

    url: str
    token: str = field(default="", repr=False)
    ca_file: Path | None = None


def read(
    url: str,
    *,
    token: str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    ca_file: str | os.PathLike[str] | None = None,
    insecure: bool = False,
    on_warning: Callable[[str], object] = lambda text: _log.warning("target", text=text),
) -> Target:
    """Return the target that was named; blocks for its token file.

    Args:
        url: Such as `https://gpu1.example:7433`.
        token: What `toft token create` printed.
        token_file: A file that has it.
        ca_file: Trusted instead of the authorities of this machine.
        insecure: Send the token to another machine without TLS, where everybody on the way can read it.
        on_warning: Told of what works and should not stay so.

    Raises:
        UsageError: One of them cannot be right.
        RefusedError: The token would cross the network unprotected.
    """
    chosen = _url(url)
    if token is not None and token_file is not None:
        raise errors.UsageError("token and token_file both say the token; give one", code="remote.token")
    shown = _checked(token, "the token") if token is not None else ""
    if token_file is not None:
        shown = _from_file(Path(token_file).expanduser(), on_warning)
    if shown and chosen.startswith("http:") and not insecure and not _is_loopback(chosen):
        raise errors.RefusedError(
            f"{chosen} has no TLS: everybody on the way could read the token",
            code="remote.plain",
            details={"url": chosen},
            hint="use https:// (toft up --listen HOST:PORT --tls-cert FILE --tls-key FILE on that machine), "
            "or a tunnel to 127.0.0.1; on a network that is trusted, --insecure says so",
        )
    return Target(url=chosen, token=shown, ca_file=Path(ca_file).expanduser() if ca_file else None)


def _url(text: str) -> str:
    problem = ""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
        if parts.scheme not in _PORTS:
            problem = "must start with https:// or http://"
        elif not host or not host.isascii() or not re.fullmatch(r"[A-Za-z0-9._:%-]+", host):
            problem = "names no host"
        elif parts.username is not None or parts.password is not None:
            problem = "must not have a user or a password in it"
        elif parts.path not in ("", "/") or parts.query or parts.fragment:
            problem = "must end with the port: a node has no path"
    except ValueError as error:
        problem, host, port, parts = str(error), None, None, urlsplit("")
    if problem or host is None:
        shown = re.sub(r"//[^/@]*@", "//...@", text[:200])
        raise errors.UsageError(
            f"{shown!r} is no address of a node: it {problem}",
            code="remote.url",
            hint="such as https://gpu1.example:7433",
        )
    name = f"[{host}]" if ":" in host else host
    is_usual = port is None or port == _PORTS[parts.scheme]
    return f"{parts.scheme}://{name}" + ("" if is_usual else f":{port}")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _from_file(path: Path, on_warning: Callable[[str], object]) -> str:
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(LONGEST_TOKEN + 2)
    except OSError as error:
        raise errors.UsageError(
            f"the token file {path} cannot be read: {error.strerror}",
            code="remote.token_file",
            details={"path": str(path)},
            hint="toft token create NAME on that machine prints a token; put it into a file of your own",
        ) from error
    found = _checked(data.decode("utf-8", "replace").strip(), f"what is in {path}")
    if stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
        on_warning(f"others on this machine can read the token in {path}: chmod 600 {shlex.quote(str(path))}")
    return found


def _checked(text: str, what: str) -> str:
    if len(text) > LONGEST_TOKEN or not _TOKEN.fullmatch(text):
        raise errors.UsageError(
            f"{what} is no token: one word such as toft_..., in one line",
            code="remote.token",
            hint="toft token create NAME on that machine prints one",
        )
    return text
