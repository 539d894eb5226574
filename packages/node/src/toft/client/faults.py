"""What can be wrong between a client and a node, in words that say what to do."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from toft.kernel import errors

_NOT_VALID_YET, _EXPIRED, _OTHER_NAME, _OTHER_ADDRESS = 9, 10, 62, 64


def gone(error: Exception) -> errors.UnavailableError:
    """Return the error for a daemon that is not there any more."""
    return errors.UnavailableError(
        f"the daemon went away: {error or type(error).__name__}",
        code="daemon.gone",
        hint="toft status says whether it runs; a job goes on when it is started again, a call does not",
    )


def closed() -> errors.UnavailableError:
    """Return the error for a session that its own program has closed."""
    return errors.UnavailableError("the node was closed", code="node.closed")


def no_node(url: str, status: int) -> errors.UnavailableError:
    """Return the error for an answer that no node gives."""
    return errors.UnavailableError(
        f"{url} answered {status}, and not as a toft node does",
        code="remote.no_node",
        details={"url": url, "status": status},
        hint="toft status on that machine shows where its node listens; a central is asked by toft central",
    )


def local_only(what: str, url: str) -> errors.RefusedError:
    """Return the error for what only a program on the node's own machine can do."""
    return errors.RefusedError(
        f"{what} is done on the machine itself, not through {url}",
        code="remote.local_only",
        details={"url": url},
        hint=f"ssh {urlsplit(url).hostname}, and there the same command without --url",
    )


# What TLS says of a connection that waits for data, or gets none any more.
_ENDED = (
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
    ssl.SSLWantReadError,
    ssl.SSLWantWriteError,
    ssl.SSLSyscallError,
)


def unreachable(url: str, error: BaseException) -> errors.NodeError:
    """Return the error for a node that cannot be reached, or not any more.

    Args:
        url: Where it was asked.
        error: What happened.
    """
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _certificate(url, cause)
    for cause in causes:
        # An end in the middle of TLS is that of the connection, not a quarrel about protection.
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, _ENDED):
            return _tls(url, cause)
    host = urlsplit(url).netloc
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return _no_answer(url, "name", f"no machine is called {urlsplit(url).hostname}", "check the URL")
        if isinstance(cause, ConnectionRefusedError):
            return _no_answer(
                url,
                "refused",
                f"nothing listens at {host}",
                f"on that machine: toft up --listen {host}, and toft status shows where it listens",
            )
        if isinstance(cause, TimeoutError):
            return _no_answer(
                url,
                "timeout",
                f"{host} does not answer",
                "is the machine up, and does a firewall let this port in?",
            )
    return _gone(url, error)


def damaged(url: str) -> errors.UnavailableError:
    """Return the error for what is not what its digest says, twice."""
    return errors.UnavailableError(
        f"what came from {url} is not what the node sent",
        code="remote.damaged",
        blame="environment",
        details={"url": url},
        hint="something on the way changes it, such as a proxy: ask without it",
    )


def _no_answer(url: str, reason: str, message: str, hint: str) -> errors.UnavailableError:
    return errors.UnavailableError(
        message,
        code="remote.no_answer",
        blame="environment",
        details={"url": url, "reason": reason},
        hint=hint,
    )


def _gone(url: str, error: BaseException) -> errors.UnavailableError:
    hint = "toft status on that machine says whether it runs; jobs go on without this connection"
    if url.startswith("http:"):
        hint += "; a node that listens with TLS wants https://"
    return errors.UnavailableError(
        f"the connection to {url} broke: {error or type(error).__name__}",
        code="remote.gone",
        blame="environment",
        details={"url": url},
        hint=hint,
    )


def _certificate(url: str, error: ssl.SSLCertVerificationError) -> errors.RefusedError:
    number, host = error.verify_code, urlsplit(url).hostname
    reason, hint = "untrusted", "--ca-file FILE names the certificate of whoever signed it"
    said = f"the certificate of {url} is signed by nobody who is trusted here"
    if number in (_OTHER_NAME, _OTHER_ADDRESS):
        reason, said = "name", f"the certificate of {url} is not for {host}"
        hint = "use the name that is in the certificate, or make one for this name"
    elif number == _EXPIRED:
        reason, said = "expired", f"the certificate of {url} has expired"
        hint = "renew it on that machine, and look at the clocks of both"
    elif number == _NOT_VALID_YET:
        reason, said = "not_yet", f"the certificate of {url} is not valid yet"
        hint = "look at the clocks of both machines"
    return errors.RefusedError(
        f"{said}: {error.verify_message}",
        code="remote.certificate",
        blame="environment",
        details={"url": url, "reason": reason},
        hint=hint,
    )


def _tls(url: str, error: ssl.SSLError) -> errors.RefusedError:
    plain = error.reason in (
        "WRONG_VERSION_NUMBER",
        "HTTP_REQUEST",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_LAYER_FAILURE",
    )
    return errors.RefusedError(
        f"{url} does not speak TLS"
        if plain
        else f"no protected connection to {url}: {error.reason or error}",
        code="remote.tls",
        blame="environment",
        details={"url": url, "reason": error.reason or ""},
        hint=f"http://{urlsplit(url).netloc} asks it without TLS"
        if plain
        else "which TLS does that machine speak?",
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what is behind it, each once."""
    waiting, seen = [error], set()
    while waiting:
        each = waiting.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [other for other in (each.__cause__, each.__context__) if other is not None]
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions
