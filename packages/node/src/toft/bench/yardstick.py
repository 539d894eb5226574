"""The yardstick: a bare blocking echo loop over a socketpair, with nothing but the standard library.

No checks, no limits, no bookkeeping: what this machine's kernel and interpreter allow, and no plugin runtime
in Python can beat. Run as a program; see `lines.serve`.

Its two ends stay on two cores, as two processes that both have work do. Left to itself a scheduler puts them
on one core whenever the machine is busy, where nobody has to be woken: then the same loop takes a third of
the time, and a ratio to it would tell of the load.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Mapping

from toft.bench import lines

HEAD = struct.Struct("!I")
CALLS = 2000
CHUNKS = 20_000
MOVES = 7
CORES = sorted(os.sched_getaffinity(0))

# What a cold start cannot go below: an interpreter, the four modules a worker needs, and one answer.
COLD = """
import json, socket, struct, sys, threading
sock = socket.socket(fileno=int(sys.argv[1]))
data = sock.recv(65536)
sock.sendall(json.dumps(json.loads(data)).encode())
sock.recv(1)
"""


class Frames:
    """Length-prefixed JSON over a socket, one frame at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def send(self, message: object) -> None:
        """Send one frame."""
        body = json.dumps(message).encode()
        self.sock.sendall(HEAD.pack(len(body)) + body)

    def receive(self) -> object:
        """Wait for one frame."""
        (size,) = HEAD.unpack(self._take(HEAD.size))
        message: object = json.loads(self._take(size))
        return message

    def _take(self, size: int) -> bytes:
        part = self.sock.recv(size)
        while len(part) < size:
            more = self.sock.recv(size - len(part))
            if not more:
                raise EOFError
            part += more
        return part


def echo(sock: socket.socket, segment: mmap.mmap) -> None:
    """Answer until the other end goes."""
    frames = Frames(sock)
    block = bytearray(lines.BIG_BYTES)
    while True:
        try:
            message = frames.receive()
        except EOFError:
            return
        if isinstance(message, dict) and "stream" in message:
            for number in range(message["stream"]):
                frames.send({"n": number, "text": "chunk"})
        elif message == "from":
            segment[:] = block
            frames.send("done")
        else:
            frames.send(message)


class Yardstick:
    """Both ends: a forked child that echoes, and this process asking."""

    def __init__(self) -> None:
        handle = os.memfd_create("yardstick")
        os.ftruncate(handle, lines.BIG_BYTES)
        self.segment = mmap.mmap(handle, lines.BIG_BYTES)
        self.block = bytearray(os.urandom(1 << 20)) * (lines.BIG_BYTES >> 20)
        self.block += bytes(lines.BIG_BYTES - len(self.block))
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            echo(theirs, self.segment)
            os._exit(0)
        theirs.close()
        self.frames = Frames(ours)
        if len(CORES) > 1:
            os.sched_setaffinity(0, CORES[:1])
            os.sched_setaffinity(self.pid, CORES[1:2])

    def ask(self, message: object) -> object:
        """Send and wait for the answer."""
        self.frames.send(message)
        return self.frames.receive()

    def call(self) -> Mapping[str, float]:
        """Time single calls."""
        figures = lines.call_figures(lines.time_each(lambda: self.ask(lines.PAYLOAD), CALLS))
        return {**figures, "call_async_p50_us": figures["call_p50_us"]}

    def open_calls(self) -> Mapping[str, float]:
        """Keep 64 calls open."""
        count = CALLS * 4
        start = time.perf_counter()
        for _ in range(lines.OUTSTANDING):
            self.frames.send(lines.PAYLOAD)
        for number in range(count):
            self.frames.receive()
            if number < count - lines.OUTSTANDING:
                self.frames.send(lines.PAYLOAD)
        return {"calls_per_s_64": count / (time.perf_counter() - start)}

    def stream(self) -> Mapping[str, float]:
        """Take a stream of small chunks."""
        start = time.perf_counter()
        self.frames.send({"stream": CHUNKS})
        for _ in range(CHUNKS):
            self.frames.receive()
        return {"stream_chunks_per_s": CHUNKS / (time.perf_counter() - start)}

    def move(self) -> Mapping[str, float]:
        """Copy a big block into a shared segment that is used again and again, and tell the other end."""

        def give() -> None:
            self.segment[:] = self.block
            self.ask("to")

        to = lines.time_each(give, MOVES, warm=2)
        back = lines.time_each(lambda: self.ask("from"), MOVES, warm=2)
        return {"to_worker_100mb_mb_s": lines.rate_mb_s(to), "from_worker_100mb_mb_s": lines.rate_mb_s(back)}

    def cold_start(self) -> Mapping[str, float]:
        """Start an interpreter and get one answer from it."""
        seconds, memory = [], []
        for _ in range(5):
            start = time.perf_counter()
            ours, theirs = socket.socketpair()
            command = [sys.executable, "-I", "-c", COLD, str(theirs.fileno())]
            with ours, subprocess.Popen(command, pass_fds=[theirs.fileno()]) as child:
                theirs.close()
                ours.sendall(json.dumps(lines.PAYLOAD).encode())
                ours.recv(65536)
                seconds.append(time.perf_counter() - start)
                memory.append(lines.rss_mb(child.pid))
                ours.sendall(b"x")
        return {"cold_start_ms": statistics.median(seconds) * 1e3, "worker_rss_mb": statistics.median(memory)}


if __name__ == "__main__":
    lines.serve(Yardstick())
