"""A daemon for tests: started as a person starts it, ended with its test."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.command_line import CommandLine
from tests.waiting import eventually

from toft.client import place as places


class Daemon:
    """One running daemon.

    Args:
        toft: Runs commands on its home.
    """

    def __init__(self, toft: CommandLine) -> None:
        self.toft = toft
        self.place = places.Place(toft.home)

    @property
    def pid(self) -> int:
        """Its process."""
        found = self.place.find()
        assert found is not None, "no daemon runs"
        return found.pid

    def status(self) -> dict[str, Any]:
        """What it says of itself."""
        done = self.toft("status", "--json")
        # How it stands with its document is an exit status of its own; it answers all the same.
        assert done.status in (0, 1, 3, 4), done.err
        found: dict[str, Any] = json.loads(done.out)
        return found

    def log(self) -> str:
        """What it has logged."""
        return self.place.log.read_text()

    def kill(self) -> None:
        """End it without asking, and wait until the kernel has given its lock back."""
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # a child of ours once its starter has ended
            os.waitpid(pid, 0)
        eventually(lambda: not self.place.is_held())

    def connect(self) -> socket.socket:
        """Return a connection to its socket, for requests that no client would send."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(25)
        try:
            with places.address(self.place.socket) as address:
                sock.connect(address)
        except OSError:
            sock.close()
            raise
        return sock

    def ask(self, data: bytes) -> bytes:
        """Send bytes and return everything that comes back."""
        with self.connect() as sock:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(data)
            return receive_all(sock)

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request as any HTTP client would, with JSON as its body, or bytes as they are."""
        connection = http.client.HTTPConnection("localhost", timeout=25)
        connection.sock = self.connect()
        try:
            content = body if body is None or isinstance(body, bytes) else json.dumps(body)
            connection.request(method, path, body=content, headers=dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def value(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def receive_all(sock: socket.socket) -> bytes:
    """Return what comes until the other end closes."""
    came = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(65536):
            came += data
    return came


@contextlib.contextmanager
def running(
    home: Path, directory: Path, environ: Mapping[str, str] | None = None, **settings: Any
) -> Iterator[Daemon]:
    """Start a daemon for the length of a `with` block."""
    toft = CommandLine(home, directory, environ)
    if settings:
        toft.settings(**settings)
    done = toft("up", "--detach", "--json")
    assert done.status == 0, done.err
    daemon = Daemon(toft)
    try:
        yield daemon
    finally:
        ended = toft("down", "--now", "--json")
        assert ended.status == 0, ended.err
        reap()


def reap() -> None:
    """Take note of daemons that ended: they became children of this process when their starter ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
