"""The worker's end against a host that breaks the rules: it says why and exits, it never hangs."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.leaks import leaks_checked
from tests.waiting import eventually
from tests.workers import PROBES, interpreter_argv, spawn

from toft_sdk import wire

__all__ = ["leaks_checked"]
pytestmark = pytest.mark.usefixtures("leaks_checked")
WELCOME = {
    "protocol": 1,
    "module": "probes",
    "class": "Probe",
    "paths": [PROBES],
    "env": {},
    "capabilities": [],
}


@dataclass
class Host:
    """A host made of a bare socket."""

    sock: socket.socket
    process: subprocess.Popen[bytes]
    frames: wire.FrameBuffer = field(default_factory=wire.FrameBuffer)

    def send(self, *frames: list[Any] | bytes) -> None:
        for frame in frames:
            self.sock.sendall(frame if isinstance(frame, bytes) else wire.pack(frame))

    def receive(self) -> list[Any] | None:
        while (taken := self.frames.take()) is None:
            try:
                count = self.sock.recv_into(self.frames.room())
            except ConnectionResetError:
                return None
            if count == 0:
                return None
            self.frames.filled(count)
        return taken[0]

    def ping(self) -> dict[str, Any]:
        self.send(["ping", 9, False])
        pong = self.receive()
        assert pong is not None
        assert pong[:2] == ["pong", 9]
        beat: dict[str, Any] = pong[2]
        return beat

    def greet(self) -> None:
        assert (self.receive() or [""])[0] == "hello"
        self.send(["welcome", 0, WELCOME])


@pytest.fixture
def host() -> Iterator[Host]:
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    process = spawn(
        list(interpreter_argv(theirs.fileno())), theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    yield Host(ours, process)
    ours.close()
    process.kill()
    process.wait()


def test_it_says_what_it_is(host: Host) -> None:
    hello = host.receive()
    assert hello is not None
    assert hello[:2] == ["hello", 0]
    assert hello[2]["protocol"] == wire.PROTOCOL
    assert set(hello[2]["capabilities"]) >= {"output", "segments", "stacks"}


def test_another_protocol_is_refused_with_both_numbers(host: Host) -> None:
    host.receive()
    host.send(["welcome", 0, {**WELCOME, "protocol": 7}])
    assert host.receive() == ["protocol_error", 0, "this worker speaks protocol 1, the host 7"]
    assert host.receive() is None
    assert host.process.wait(10) == 3


BROKEN: list[Any] = [
    wire.PREFIX.pack(2**31, 0) + b"x",
    wire.PREFIX.pack(5, 2**31) + b"[1,2]",
    wire.PREFIX.pack(3, 0) + b"abc",
    wire.PREFIX.pack(100_000, 0) + b"[" * 100_000,
    ["unknown", 1],
    ["request", 1],
    ["request", 1, "call", 0, {"$": "bytes", "b": 0}, [5]],
    ["request", 1, "call", 0, {"$": "bytes", "b": 0}, [[1, 5]]],
    ["segment", 1, 65536],
    ["cancel", 1],
    ["credit", 1],
    ["ping", 1],
]


@pytest.mark.parametrize("frame", BROKEN, ids=lambda frame: ascii(frame)[:40])
@pytest.mark.parametrize("is_greeted", [True, False])
def test_a_broken_frame_is_named_and_ends_the_worker(host: Host, frame: Any, is_greeted: bool) -> None:
    if is_greeted:
        host.greet()
        host.send(["request", 1, "load", 0, None])
        assert (host.receive() or [""])[0] == "result"
        host.send(["request", 2, "initialize", 0, {"config": {}}])
        assert (host.receive() or [""])[0] == "result"
        if isinstance(frame, list) and frame[0] in ("cancel", "credit"):
            host.send(["request", 1, "call", 0, {"action": "loop", "arguments": {}}])
    else:
        assert (host.receive() or [""])[0] == "hello"
    host.send(frame)
    answer = host.receive()
    assert answer is not None
    assert answer[0] == "protocol_error"
    assert answer[2]
    assert host.receive() is None
    assert host.process.wait(10) == 3


@pytest.mark.parametrize("when", ["before the welcome", "idle", "in a call"])
def test_it_exits_when_the_host_goes(host: Host, when: str) -> None:
    if when != "before the welcome":
        host.greet()
        host.send(["request", 1, "load", 0, None], ["request", 2, "initialize", 0, {"config": {}}])
        assert (host.receive() or [""])[0] == "result"
        assert (host.receive() or [""])[0] == "result"
    if when == "in a call":
        host.send(["request", 3, "call", 0, {"action": "loop", "arguments": {}}])
        eventually(lambda: host.ping()["calls"] == [3])
    host.sock.close()
    assert host.process.wait(10) == 0


def test_a_request_before_load_and_an_unknown_one_are_errors(host: Host) -> None:
    host.greet()
    host.send(["request", 1, "call", 0, {"action": "execute", "arguments": {}}])
    answer = host.receive()
    assert answer is not None
    assert (answer[0], answer[2]["code"]) == ("error", "worker.not_loaded")
    host.send(["request", 2, "load", 0, None], ["request", 3, "dance", 0, None])
    assert (host.receive() or [""])[0] == "result"
    answer = host.receive()
    assert answer is not None
    assert (answer[0], answer[2]["code"]) == ("error", "worker.op_unknown")


def test_frames_that_come_in_single_bytes_are_taken(host: Host) -> None:
    host.receive()
    for byte in wire.pack(["welcome", 0, WELCOME]) + wire.pack(
        ["request", 1, "load", 0, {"describe": False}]
    ):
        host.send(bytes([byte]))
    assert host.receive() == ["result", 1, {"main_thread": False, "concurrency": 1}]
