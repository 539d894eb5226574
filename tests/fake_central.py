"""A central on a real socket that does as it is told: what the wire says, or what a test hurts with."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

from toft.kernel import ids
from toft.managed import document, messages, protocol, signatures


@dataclass(frozen=True)
class Request:
    """What a node asked."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def value(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """What it is told."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


Hurt = Callable[[socket.socket, Request], None]
"""Writes what it likes, and may never end; the connection is closed after it."""


def problem(status: int, word: str, **headers: str) -> Reply:
    """A refusal with its reason."""
    told = {
        "Content-Type": "application/problem+json",
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }
    return Reply(status, told, json.dumps({"status": status, "code": word, "title": "no"}).encode())


class FakeCentral:
    """One central with one node, on a free port of this machine.

    Attributes:
        document: What it serves; None answers 404.
        requests: Everything it was asked.
        next: For each path, replies to give before it does what it must.
        clock_s: What its clock is off.
        tokens: Join tokens that are good, each for one key.
        holds_s: How long it keeps a question that says `Prefer: wait`.
        keeps: It keeps connections for the next question.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.document: bytes | None = None
        self.attempt = 0
        self.signer: signatures.PrivateKey | None = None
        self.root: signatures.Root | None = None
        self.requests: list[Request] = []
        self.next: dict[str, deque[Reply | Hurt]] = {}
        self.clock_s = 0.0
        self.token = "jt_abcdefgh_" + "t" * 43
        self.key: signatures.PublicKey | None = None
        self.node_id = "node_" + ids.ulid()
        self.credentials: list[str] = []
        self.life_s = 86_400.0
        self.holds_s = 0.0
        self.keeps = True
        self.changed = threading.Condition()
        self.ending = threading.Event()
        self.delay_s: dict[str, float] = {}
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        scheme = "https" if context else "http"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads: list[threading.Thread] = []

    def seen(self, path: str) -> list[Request]:
        """What it was asked at a path."""
        return [each for each in list(self.requests) if each.path.partition("?")[0] == path]

    def then(self, path: str, *replies: Reply | Hurt) -> None:
        """Give these replies next."""
        self.next.setdefault(path, deque()).extend(replies)

    def serve(self, value: Mapping[str, Any], **more: Any) -> str:
        """Serve a document from now on; returns its name."""
        with self.changed:
            self.document = document.encode({**value, **more})
            self.changed.notify_all()
        return document.etag_of(self.document)

    def run(self) -> None:
        """Take connections until the end."""
        while not self.ending.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._talk, args=(connection,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End it, and whoever still hurts."""
        self.ending.set()
        with self.changed:
            self.changed.notify_all()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
                stack.callback(connection.close)
            file = connection.makefile("rb")
            stack.callback(file.close)
            while (request := _read(file)) is not None:
                self.requests.append(request)
                self.ending.wait(self.delay_s.get(request.path.partition("?")[0], 0.0))
                waiting = self.next.get(request.path.partition("?")[0])
                reply = waiting.popleft() if waiting else self._answer(request)
                if not isinstance(reply, Reply):
                    reply(connection, request)
                    return
                connection.sendall(self.encode(reply))
                if not self.keeps:
                    return

    def encode(self, reply: Reply) -> bytes:
        """Return a reply as it goes over the wire."""
        date = formatdate(time.time() + self.clock_s, usegmt=True)  # noqa: TID251 - a server has a clock
        headers = {"Date": date, **({} if self.keeps else {"Connection": "close"}), **reply.headers}
        if reply.status not in (204, 304):
            headers["Content-Length"] = str(len(reply.body))
        lines = [f"HTTP/1.1 {reply.status} X", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + reply.body

    def _answer(self, request: Request) -> Reply:
        path = request.path.partition("?")[0]
        if path == protocol.ENROLL:
            return self._enroll(request)
        if path == protocol.REFRESH:
            return self._refresh(request)
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.credentials:
            return problem(401, protocol.CREDENTIAL_REFUSED)
        if path == protocol.CONFIG:
            return self._config(request)
        if path == protocol.ROTATE_KEY:
            return self._rotate(request)
        if path == protocol.REPORT:
            return Reply(204)
        return problem(404, "not_found")

    def _enroll(self, request: Request) -> Reply:
        asked = messages.read_enroll(request.value)
        if asked.token != self.token or (self.key is not None and asked.key != self.key):
            return problem(401, protocol.JOIN_REFUSED)
        is_new, self.key = self.key is None, asked.key
        return self._credential(201 if is_new else 200)

    def _refresh(self, request: Request) -> Reply:
        asked = messages.read_refresh(request.value)
        late = abs(asked.at - time.time() - self.clock_s)  # noqa: TID251 - a server has a clock
        if self.key is None or asked.node_id != self.node_id or late > protocol.SKEW_S:
            return problem(401, protocol.CREDENTIAL_REFUSED)
        try:
            asked.check(self.key)
        except signatures.SignatureError:
            return problem(401, protocol.CREDENTIAL_REFUSED)
        return self._credential(200)

    def _credential(self, status: int) -> Reply:
        token = f"nt_{len(self.credentials):043d}"
        self.credentials.append(token)
        now = time.time() + self.clock_s  # noqa: TID251 - a server has a clock
        given = messages.Enrolled(self.node_id, token, now + self.life_s, self.root, (self.url,), "acme")
        return Reply(status, {}, document.encode(given.to_value()))

    def _rotate(self, request: Request) -> Reply:
        asked = messages.read_rotate_key(request.value)
        if asked.new_key == self.key:
            return Reply(204)
        assert self.key is not None
        asked.check(self.key)
        self.key = asked.new_key
        return Reply(204)

    def _config(self, request: Request) -> Reply:
        known = protocol.read_etag(request.headers.get("if-none-match"))
        if "prefer" in request.headers and self.holds_s:
            with self.changed:
                self.changed.wait_for(lambda: self.ending.is_set() or self._etag() != known, self.holds_s)
        if self.document is None:
            return problem(404, protocol.NO_DOCUMENT)
        headers = {"ETag": protocol.quoted(self._etag()), protocol.ATTEMPT: str(self.attempt)}
        if known == self._etag():
            return Reply(304, headers)
        headers[protocol.REPR_DIGEST] = protocol.digest(self.document)
        if self.signer is not None:
            signed = signatures.sign(signatures.DOCUMENT_TYPE, self.document, self.signer)
            headers[protocol.SIGNATURES] = messages.encode_signatures([signed])
        return Reply(200, headers, self.document)

    def _etag(self) -> str:
        return document.etag_of(self.document or b"")


def _read(file: Any) -> Request | None:
    first = file.readline()
    if not first.strip():
        return None
    method, path, _ = first.decode().split(" ", 2)
    headers: dict[str, str] = {}
    while line := file.readline().decode().strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Request(method, path, headers, file.read(int(headers.get("content-length", 0))))


@contextlib.contextmanager
def running(context: ssl.SSLContext | None = None) -> Iterator[FakeCentral]:
    """Run one for the length of a `with` block."""
    central = FakeCentral(context)
    thread = threading.Thread(target=central.run, daemon=True)
    thread.start()
    try:
        yield central
    finally:
        central.stop()
        thread.join(10)


def seed(central: FakeCentral, **more: Any) -> dict[str, Any]:
    """What a join with this central leaves."""
    return {"urls": [central.url], "token": central.token, **more}
