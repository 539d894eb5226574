"""One question to the daemon without an event loop, for commands that ask nothing else."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toft.client import place as places
from toft.kernel import errors

_TIMEOUT_S = 10.0


class _Connection(http.client.HTTPConnection):
    """HTTP over a socket with a path."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with places.address(self._path) as address:
            self.sock.connect(address)


def get(socket_path: Path, route: str, *, timeout_s: float = _TIMEOUT_S) -> dict[str, Any]:
    """Return the object that a route answers with.

    Raises:
        UnavailableError: Nobody answers there.
        NodeError: As the daemon raised it.
    """
    found = ask(socket_path, "GET", route, timeout_s=timeout_s)
    if not isinstance(found, dict):
        raise errors.UnavailableError(f"{route} answered something else", code="daemon.no_answer")
    return found


def ask(
    socket_path: Path,
    method: str,
    route: str,
    body: Mapping[str, Any] | None = None,
    *,
    timeout_s: float = _TIMEOUT_S,
) -> Any:
    """Return what a route answers.

    Raises:
        UnavailableError: Nobody answers there.
        NodeError: As the daemon raised it.
    """
    connection = _Connection(socket_path, timeout_s)
    headers = {"Connection": "close", "Content-Type": "application/json"}
    try:
        # An answer that was given before the whole question was read is an answer all the same.
        with contextlib.suppress(BrokenPipeError):
            connection.request(method, route, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        found = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise errors.UnavailableError(
            f"the daemon does not answer on {socket_path}: {error or type(error).__name__}",
            code="daemon.no_answer",
            details={"socket": str(socket_path)},
            hint="toft logs shows what it is doing; toft down --now ends it",
        ) from error
    finally:
        connection.close()
    if answer.status >= 400 and isinstance(found, dict) and "code" in found:
        raise errors.from_dict(found)
    return found
