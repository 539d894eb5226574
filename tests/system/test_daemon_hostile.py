"""What may come over the daemon's socket: other users, garbage, floods, and clients that go away."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import daemons, hostile_plugin, nodes
from tests.daemons import Daemon
from tests.waiting import eventually

import toft
from toft.client import place as places

NOBODY = 65534


@pytest.fixture
def daemon(toft_home: Path, tmp_path: Path) -> Iterator[Daemon]:
    nodes.register(toft_home)
    with daemons.running(toft_home, tmp_path, request_bytes=100_000, cancel_grace_s=0.2) as running:
        yield running


def request(method: str, path: str, body: bytes = b"", headers: str = "") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def parts(answer: bytes) -> tuple[int, dict[str, Any]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    return status, json.loads(body) if body else {}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to become somebody else")
def test_another_user_is_turned_away_even_when_the_files_let_him_in(daemon: Daemon) -> None:
    address = daemon.place.socket
    program = (
        "import os, socket, sys\n"
        f"os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "sock = socket.socket(socket.AF_UNIX)\n"
        "sock.settimeout(10)\n"
        "try:\n"
        "    sock.connect(sys.argv[1])\n"
        "    sock.sendall(b'GET /v1/status HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')\n"
        "    print('answered' if sock.recv(100) else 'closed')\n"
        "except OSError as error:\n"
        "    print(type(error).__name__)\n"
    )

    def ask_as_somebody_else() -> str:
        done = subprocess.run(
            [sys.executable, "-c", program, str(address)], capture_output=True, text=True, timeout=60
        )
        assert done.stderr == ""
        return done.stdout.strip()

    assert ask_as_somebody_else() == "PermissionError"
    opened = [address, *(each for each in address.parents if not each.stat().st_mode & 0o001)]
    modes = [each.stat().st_mode for each in opened]
    try:
        for each in opened:
            each.chmod(0o777)
        # The credentials are looked at before a byte is read.
        assert ask_as_somebody_else() in ("closed", "BrokenPipeError", "ConnectionResetError")
    finally:
        for each, mode in zip(opened, modes, strict=True):
            each.chmod(mode)
    assert f"uid {NOBODY} is not the owner" in daemon.log()
    assert daemon.status()["state"] == "ready"


PROBE = """
s = socket.socket(socket.AF_UNIX)
s.settimeout(5)
try:
    s.connect({path!r})
    s.sendall(b"GET /v1/status HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    r = s.recv(9) or b"closed"
except BrokenPipeError:
    r = b"closed"
except OSError as error:
    r = type(error).__name__.encode()
"""


def test_a_plugin_cannot_reach_the_daemon(tmp_path: Path) -> None:
    home = hostile_plugin.install(tmp_path)
    for mode in ("auto", "plain"):
        with daemons.running(home, tmp_path, isolation=mode) as running:
            code = PROBE.format(path=str(running.place.socket))
            done = running.toft("run", "hostile", f"code={code}")
            assert done.status == 0, done.err
            assert done.out in ("closed", "FileNotFoundError", "PermissionError", "ConnectionResetError"), (
                mode
            )
            if mode == "plain":
                assert "was started by a plugin" in running.log()
            assert running.status()["state"] == "ready"


GARBAGE = [
    b"\0" * 1000,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"A" * 500,
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET /v1/status SPDY/9\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: banana\r\n\r\n",
    b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
    b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
    b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
]


def test_garbage_is_refused_and_hurts_nobody(daemon: Daemon) -> None:
    for each in GARBAGE:
        answer = daemon.ask(each)
        assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")), (each[:40], answer[:200])
    assert daemon.status()["state"] == "ready"
    assert "Traceback" not in daemon.log()


BAD = [
    ("GET", "/v1/nothing", b"", 404, "request.no_route"),
    ("GET", "/../../etc/passwd", b"", 404, "request.no_route"),
    ("GET", "/v1/plugins/..%2f..%2fsecrets", b"", 404, "request.no_route"),
    ("GET", "/v1/plugins/%2e%2e", b"", 400, "name.invalid"),
    ("GET", "/v1/plugins/a%00b", b"", 400, "name.invalid"),
    ("GET", "/v1/plugins/nobody", b"", 404, "plugin.not_found"),
    ("GET", "/v1/plugins/misbehaving/logs?instance=../../x", b"", 400, "name.invalid"),
    ("GET", "/v1/jobs/..%2f..", b"", 404, "request.no_route"),
    ("GET", "/v1/jobs/job_1", b"", 404, "job.not_found"),
    ("GET", "/v1/jobs?limit=1000000", b"", 400, "request.fields"),
    ("GET", "/v1/jobs?state=happy", b"", 400, "request.fields"),
    ("PATCH", "/v1/jobs", b"", 405, "request.method"),
    ("POST", "/v1/jobs", b"", 400, "request.fields"),
    ("POST", "/v1/jobs", b"{", 400, "request.body"),
    ("POST", "/v1/jobs", b"[1]", 400, "request.body"),
    ("POST", "/v1/jobs", b"\0toft\0\x001\xff\xff\xff\xff", 400, "request.body"),
    ("POST", "/v1/jobs", b'{"plugin": 5}', 400, "request.fields"),
    ("POST", "/v1/jobs", b'{"plugin": "misbehaving", "surprise": 1}', 400, "request.fields"),
    ("POST", "/v1/jobs", b'{"plugin": "misbehaving", "priority": true}', 400, "request.fields"),
    ("POST", "/v1/jobs", b"[" * 50_000, 400, "request.body"),
    ("POST", "/v1/jobs/batch", b'{"jobs": [1]}', 400, "request.body"),
    ("POST", "/v1/sequences", b'{"steps": 1}', 400, "request.fields"),
    ("POST", "/v1/instances", b'{"plugin": "../x"}', 400, "name.invalid"),
    ("POST", "/v1/instances/misbehaving/explode", b"", 404, "instance.not_found"),
    ("POST", "/v1/instances/none/calls", b"{}", 404, "instance.not_found"),
    ("POST", "/v1/jobs", b"x" * 100_001, 413, "request.too_large"),
]


def test_bad_requests_are_answered_with_what_is_wrong(daemon: Daemon) -> None:
    for method, path, body, status, code in BAD:
        found, told = parts(daemon.ask(request(method, path, body)))
        assert (found, told.get("code")) == (status, code), (method, path, body[:40], told)
        assert told["status"] == status
        assert {"type", "title", "detail", "blame", "hint", "details"} <= set(told)
    assert "Traceback" not in daemon.log()


def test_a_body_without_a_length_is_bounded_too(daemon: Daemon) -> None:
    with daemon.connect() as sock:
        sock.sendall(
            b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(100):
                sock.sendall(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        assert b" 413 " in daemons.receive_all(sock).split(b"\r\n")[0]


def test_a_session_that_has_ended_is_no_door(daemon: Daemon) -> None:
    answer = daemon.ask(request("GET", "/v1/instances", headers=f"toft-session: {'0' * 32}\r\n"))
    assert parts(answer) == (404, parts(answer)[1])
    assert parts(answer)[1]["code"] == "session.not_found"


def test_those_who_only_connect_keep_nobody_out(daemon: Daemon) -> None:
    with contextlib.ExitStack() as held:
        idle = [held.enter_context(daemon.connect()) for _ in range(200)]
        for sock in idle[:100]:
            sock.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert daemon.status()["state"] == "ready"
        for sock in idle:
            sock.settimeout(25)
        # Neither a head that never ends nor one that never begins is waited for for ever.
        assert {daemons.receive_all(sock) for sock in idle} == {b""}


def test_a_client_that_goes_away_ends_its_call_and_not_its_job(daemon: Daemon) -> None:
    with toft.connect(daemon.toft.home, cancel_grace_s=0.2) as node:
        plugin = node.load("misbehaving")
        job = node.jobs.submit("misbehaving", {"seconds": 1.5}, action="work")
        body = json.dumps({"action": "work", "arguments": {"seconds": 60}}).encode()
        with daemon.connect() as sock:
            sock.sendall(request("POST", "/v1/instances/misbehaving/calls", body))
            assert sock.recv(100)
            eventually(lambda: plugin.stats()["running"] == 2)
        eventually(lambda: plugin.stats()["cancelled"] == 1)
        assert job.wait(30).state == "completed"


def test_what_a_killed_client_loaded_for_itself_is_unloaded(daemon: Daemon) -> None:
    code = (
        "import sys, toft\n"
        "node = toft.connect(sys.argv[1], cancel_grace_s=0.2)\n"
        "plugin = node.load('misbehaving', {'label': 'mine'})\n"
        "print(plugin.stats()['pid'], flush=True)\n"
        "plugin.call('work', seconds=60)\n"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", code, str(daemon.toft.home)], stdout=subprocess.PIPE, text=True
    )
    assert client.stdout is not None
    pid = int(client.stdout.readline())
    assert Path(f"/proc/{pid}").exists()
    client.kill()
    client.communicate()
    eventually(lambda: not Path(f"/proc/{pid}").exists(), 10)
    assert daemon.status()["instances"] == []


def test_many_clients_at_once_are_all_answered(daemon: Daemon) -> None:
    answers: list[int] = []

    def ask() -> None:
        answers.append(parts(daemon.ask(request("GET", "/livez")))[0])

    threads = [threading.Thread(target=ask) for _ in range(100)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert answers == [200] * 100


def test_a_socket_of_somebody_else_is_not_spoken_to(tmp_path: Path) -> None:
    place = places.Place(tmp_path)
    place.run.mkdir(mode=0o700)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.bind(str(place.socket))
        # Nobody holds the lock: whatever listens there is no daemon.
        assert place.find() is None
