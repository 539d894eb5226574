"""What somebody sends who wants to break the API is refused in our own words, and nothing else happens."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests import daemons, nodes
from tests.daemons import Daemon
from tests.waiting import eventually

from toft.api import limits, operations

ESCAPES = (
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e",
    "..",
    "%2fetc%2fpasswd",
    "..%5c..%5cx",
    "%00",
    "a%00b",
    "%ff%fe",
    "%ed%a0%80",
    "%0d%0aX-Injected:%20yes",
    "~root",
    "%E2%80%AEtxt.exe",
    "a" * 5000,
    "con|rm%20-rf",
    "' OR 1=1 --".replace(" ", "%20"),
    "%24%7Bjndi:x%7D",
)


@pytest.fixture
def daemon(toft_home: Path, tmp_path: Path) -> Iterator[Daemon]:
    nodes.register(toft_home)
    with daemons.running(toft_home, tmp_path, request_bytes=4_000_000, listen="127.0.0.1:0") as running:
        yield running
        assert "request_failed" not in running.log()
        assert "Traceback" not in running.log()


class Port:
    """The TCP port of a daemon, asked with a token that may do everything."""

    def __init__(self, daemon: Daemon) -> None:
        self._token = str(daemon.toft("token", "create", "all", "--scope", "*", "--json").value["token"])
        self._address = urlsplit(str(daemon.status()["listen"]))

    def connect(self) -> socket.socket:
        return socket.create_connection((str(self._address.hostname), self._address.port or 0), timeout=25)

    def ask(self, data: bytes) -> bytes:
        """Send what is sent to a socket, with the token in each of its heads."""
        named = b"Host: localhost\r\nAuthorization: Bearer " + self._token.encode() + b"\r\n"
        with self.connect() as sock:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(data.replace(b"Host: x\r\n", named))
            return daemons.receive_all(sock)


def request(
    method: str, path: str, body: bytes = b"", *headers: str, kind: str = "application/json"
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *headers]
    lines += [f"Content-Type: {kind}"] if kind else []
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def told(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    if b"application/problem+json" not in head:
        return status, ""
    problem: dict[str, Any] = json.loads(body)
    assert problem["status"] == status
    return status, str(problem["code"])


def job(more: str) -> bytes:
    return request("POST", "/v1/jobs", f'{{"plugin": "misbehaving", "action": "echo", {more}}}'.encode())


def load(more: str) -> bytes:
    return request("POST", "/v1/instances", f'{{"plugin": "misbehaving", {more}}}'.encode())


def post(path: str, body: str | bytes, *headers: str, kind: str = "application/json") -> bytes:
    return request("POST", path, body.encode() if isinstance(body, str) else body, *headers, kind=kind)


DEEP = '{"a":' * 50_000 + "1" + "}" * 50_000
REFUSED: dict[str, tuple[bytes, int, str]] = {
    "objects 50,000 deep": (post("/v1/jobs", f'{{"plugin":"x","arguments":{DEEP}}}'), 400, "request.body"),
    "lists 200,000 deep": (post("/v1/jobs", "[" * 200_000), 400, "request.body"),
    "arguments 200 deep": (
        job(f'"arguments": {{"value": {"[" * 200}{"]" * 200}}}'),
        422,
        "value.unencodable",
    ),
    "half of a pair as a key": (job(r'"idempotency_key": "\ud800"'), 400, "request.fields"),
    "half of a pair as a name": (
        post("/v1/sequences", r'{"steps": [], "name": "\ud800"}'),
        400,
        "request.fields",
    ),
    "half of a pair among jobs": (job(r'"after": ["\ud800"]'), 404, "job.not_found"),
    "a list among jobs": (job('"after": [[]]'), 404, "job.not_found"),
    "not a number": (job('"timeout_s": NaN'), 400, "request.body"),
    "infinity": (job('"delay_s": 1e400'), 400, "job.request"),
    "the end of time": (job('"start_at": 1e300'), 400, "job.request"),
    "before time": (job('"start_at": -1e300'), 400, "job.request"),
    "a delay beyond time": (job('"delay_s": 1e300'), 400, "job.request"),
    "a deadline beyond time": (job('"deadline_s": 1e300'), 400, "job.request"),
    "400 digits": (job(f'"delay_s": {"9" * 400}'), 400, "job.request"),
    "5,000 digits": (job(f'"priority": {"9" * 5000}'), 400, "request.body"),
    "more than 64 bits": (job(f'"timeout_s": {"9" * 30}'), 400, "job.request"),
    "attempts in words": (job('"retry": {"max_attempts": "x"}'), 400, "job.request"),
    "half an attempt": (job('"retry": {"max_attempts": 2.5}'), 400, "job.request"),
    "a pause in words": (job('"retry": {"first_s": "x"}'), 400, "job.request"),
    "a number of categories": (job('"retry": {"on": 5}'), 400, "job.request"),
    "no such category": (job('"retry": {"on": ["x"]}'), 400, "job.request"),
    "an array of objects": (
        job('"arguments": {"value": {"$": "ndarray", "b": 0, "d": "O", "s": [1]}}'),
        400,
        "request.body",
    ),
    "a buffer that is not there": (
        job('"arguments": {"value": {"$": "bytes", "b": 0}}'),
        400,
        "request.body",
    ),
    "a cursor of 77 bits": (request("GET", f"/v1/events?after={10**23}"), 400, "request.fields"),
    "UTF-16": (post("/v1/jobs", '{"plugin": "misbehaving"}'.encode("utf-16")), 400, "request.body"),
    "a form": (
        post("/v1/jobs", "plugin=x", kind="application/x-www-form-urlencoded"),
        415,
        "request.media_type",
    ),
    "text": (post("/v1/jobs", '{"plugin": "misbehaving"}', kind="text/plain"), 415, "request.media_type"),
    "gzip": (post("/v1/jobs", b"\x1f\x8b\x08", "Content-Encoding: gzip"), 415, "request.media_type"),
    "options of another kind": (load('"options": {"concurrency": "x"}'), 422, "instance.options"),
    "options that name the plugin": (load('"options": {"plugin": "x"}'), 422, "instance.options"),
    "options of 77 bits": (load(f'"options": {{"concurrency": {10**23}}}'), 422, "instance.options"),
    "an environment cut off": (
        load(r'"options": {"env": {"A": "a\u0000b"}}'),
        422,
        "instance.options",
    ),
    "a name with =": (load('"options": {"env": {"A=B": "x"}}'), 422, "instance.options"),
    "a path cut off": (load(r'"options": {"writable": ["/etc\u0000x"]}'), 422, "instance.options"),
    "another method": (request("DELETE", "/v1/jobs"), 405, "request.method"),
    "another host's address": (request("GET", "http://example.org/v1/queue"), 404, "request.no_route"),
}


def test_what_cannot_be_is_refused_by_name(daemon: Daemon) -> None:
    for face in (daemon, Port(daemon)):
        found = {name: told(face.ask(sent)) for name, (sent, _, _) in REFUSED.items()}
        assert found == {name: (status, code) for name, (_, status, code) in REFUSED.items()}
    assert told(daemon.ask(request("GET", "/v1/jobs?limit=1")))[0] == 200
    assert b"\r\nallow: GET, POST\r\n" in daemon.ask(request("DELETE", "/v1/jobs"))


SMUGGLED = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 25\r\n\r\n" + b'{"plugin": "misbehaving"}'
HEAD = b"POST /v1/instances HTTP/1.1\r\nHost: x\r\n"
TWO_WAYS: dict[str, bytes] = {
    "both lengths": HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "both, the other way": HEAD
    + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "two lengths": HEAD + b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
    "a list of lengths": HEAD + b"Content-Length: 0, 9\r\n\r\n" + SMUGGLED,
    "a plus": HEAD + b"Content-Length: +0\r\n\r\n" + SMUGGLED,
    "a minus": HEAD + b"Content-Length: -1\r\n\r\n" + SMUGGLED,
    "hexadecimal": HEAD + b"Content-Length: 0x0\r\n\r\n" + SMUGGLED,
    "Arabic digits": HEAD + "Content-Length: ٠\r\n\r\n".encode() + SMUGGLED,
    "another encoding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "two encodings": HEAD
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "an encoding behind a tab": HEAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "a space before the colon": HEAD + b"Content-Length : 0\r\n\r\n" + SMUGGLED,
    "a chunk that is too long": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}X\r\n0\r\n\r\n" + SMUGGLED,
    "a chunk of no length": HEAD + b"Transfer-Encoding: chunked\r\n\r\n\r\n" + SMUGGLED,
    "a carriage return alone": HEAD + b"X: a\rContent-Length: 0\r\n\r\n" + SMUGGLED,
    "a zero byte": HEAD + b"X: a\0b\r\nContent-Length: 0\r\n\r\n" + SMUGGLED,
    "two hosts": b"GET /v1/queue HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n" + SMUGGLED,
    "no host": b"GET /v1/queue HTTP/1.1\r\n\r\n" + SMUGGLED,
    "a folded header": HEAD + b"X: a\r\n Content-Length: 0\r\nConnection: close\r\n\r\n" + SMUGGLED,
    "a folded encoding": HEAD + b"Transfer-Encoding:\r\n xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
}


def test_a_request_in_two_readings_is_one_refusal_and_nothing_behind_it_runs(daemon: Daemon) -> None:
    for (name, sent), face in itertools.product(TWO_WAYS.items(), (daemon, Port(daemon))):
        answer = face.ask(sent)
        assert answer.count(b"HTTP/1.1 ") <= 1, (name, answer)
        assert not answer or told(answer)[0] in (400, 501), (name, answer[:200])
    assert json.loads(daemon.ask(request("GET", "/v1/jobs")).partition(b"\r\n\r\n")[2]) == []


def test_no_identifier_leads_out_of_its_place(daemon: Daemon) -> None:
    before = {each for each in daemon.toft.home.rglob("*") if "run" not in each.parts}
    wrong = []
    for each in operations.OPERATIONS:
        method, _, path = each.route.partition(" ")
        for escape in ESCAPES if "{" in path else ():
            asked = re.sub(r"\{(\w+)\}", lambda part, by=escape: by, path)
            answer = daemon.ask(request(method, asked, _body(each)))
            status = told(answer)[0]
            if status not in (400, 404, 405) or b"X-Injected" in answer.partition(b"\r\n\r\n")[0]:
                wrong.append((each.name, escape[:40], status))
    assert wrong == []
    after = {each for each in daemon.toft.home.rglob("*") if "run" not in each.parts}
    assert {each for each in after - before if each.suffix not in (".db", ".db-wal", ".db-shm")} <= {
        daemon.toft.home / "secrets",
    }


def _body(operation: operations.Operation) -> bytes:
    return json.dumps(operation.takes.example).encode() if operation.takes is not None else b""


def test_each_route_takes_as_much_as_it_can_use(daemon: Daemon) -> None:
    for each in operations.OPERATIONS:
        if each.takes is None:
            continue
        method, _, path = each.route.partition(" ")
        path = path.replace("{name}", "misbehaving").replace("{id}", "job_1").replace("{key}", "A")
        path = path.replace("{number}", "1")
        most = 4_000_000 if each.takes.is_large else limits.SMALL_BYTES
        assert told(daemon.ask(request(method, path, b" " * (most + 1)))) == (413, "request.too_large"), (
            each.name
        )
        assert told(daemon.ask(request(method, path, b" " * most)))[0] != 413, each.name


def test_what_a_plugin_says_in_half_characters_ends_its_job_and_no_other(daemon: Daemon) -> None:
    half = r"a file named \udcff"
    jobs = [
        (request("POST", "/v1/jobs", f'{{"plugin": "misbehaving", {more}}}'.encode()))
        for more in (
            f'"action": "raise_error", "arguments": {{"message": "{half}"}}',
            f'"action": "echo", "arguments": {{"value": "{half}"}}',
            '"action": "echo"',
        )
    ]
    ids = [json.loads(daemon.ask(each).partition(b"\r\n\r\n")[2])["id"] for each in jobs]
    states = []
    for id in ids:
        answer = daemon.ask(request("GET", f"/v1/jobs/{id}/wait?timeout_s=30"))
        states.append(json.loads(answer.partition(b"\r\n\r\n")[2]).get("state"))
    assert states == ["failed", "completed", "completed"]
    assert told(daemon.ask(request("GET", f"/v1/jobs/{ids[0]}/result"))) == (502, "plugin.exception")
    for path in ("", "/why", "/attempts", "/result"):
        assert told(daemon.ask(request("GET", f"/v1/jobs/{ids[1]}{path}")))[0] == 200, path
    assert told(daemon.ask(request("GET", "/v1/events")))[0] == 200
    assert told(daemon.ask(request("GET", f"/jobs/{ids[0]}")))[0] == 200


def test_an_upload_that_stops_half_way_is_no_job(daemon: Daemon) -> None:
    slow = Port(daemon).connect()
    slow.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
    whole = job('"arguments": {"value": "' + "x" * 500_000 + '"}')
    for cut in (len(whole) - 1, len(whole) // 2, 200):
        with daemon.connect() as sock:
            sock.sendall(whole[:cut])
    chunked = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n19\r\n"
    with daemon.connect() as sock:
        sock.sendall(chunked + b'{"plugin": "misbehaving"}\r\n')  # all of it but its end
    with contextlib.closing(daemon.connect()) as sock:
        sock.sendall(whole[:1000])
        assert daemon.status()["state"] == "ready"
    eventually(lambda: told(daemon.ask(request("GET", "/readyz")))[0] == 200)
    assert json.loads(daemon.ask(request("GET", "/v1/jobs")).partition(b"\r\n\r\n")[2]) == []
    with slow:
        # A head that never ends is not waited for.
        assert daemons.receive_all(slow) == b""
