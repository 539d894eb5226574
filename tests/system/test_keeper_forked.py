"""A process that a worker forked has the same handle, and its end leaves the worker as it is."""

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.leaks import leaks_checked
from tests.system.test_keeper_processes import PYTHON, keeper

from toft.host import process_tree
from toft.host.forked import Forked
from toft.host.keeper import Exit, Keeper, Process, SpawnSpec
from toft.kernel.errors import NotFoundError

__all__ = ["keeper", "leaks_checked"]
pytestmark = pytest.mark.usefixtures("leaks_checked")

# Each child has a socket of its own: it starts when told to, says when it is ready, and then waits.
ZYGOTE = """
import ctypes, json, os, select, signal, socket, time
libc = ctypes.CDLL(None)
sock = socket.socket(fileno=3)
read, write = os.pipe()
os.set_blocking(write, False)
signal.set_wakeup_fd(write)
signal.signal(signal.SIGCHLD, lambda *_: None)
def daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(99)
        os._exit(0)
    os.wait()
def child(own, code):
    signal.set_wakeup_fd(-1)
    os.setsid()
    libc.prctl(36, 1, 0, 0, 0)
    own.recv(1)
    exec(code)
    own.send(b"r")
    # Naps: a signal just before a sleep begins would have its handler run only when the sleep is over.
    while True:
        time.sleep(0.05)
while True:
    ready, _, _ = select.select([sock, read], [], [])
    if sock in ready:
        code, fds, _, _ = socket.recv_fds(sock, 4096, 1)
        if not code:
            break
        pid = os.fork()
        if pid == 0:
            child(socket.socket(fileno=fds[0]), code.decode())
            os._exit(0)
        os.close(fds[0])
        sock.send(json.dumps({"forked": pid}).encode())
    if read in ready:
        os.read(read, 100)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            sock.send(json.dumps({"ended": pid, "status": status}).encode())
"""


class Zygote:
    def __init__(self, process: Process, sock: socket.socket) -> None:
        self.process = process
        self.sock = sock
        self.own: dict[int, socket.socket] = {}
        self.by_local: dict[int, Forked] = {}

    async def hear(self, what: str) -> dict[str, Any]:
        """Read what the zygote says, and pass it on, until it says that."""
        loop = asyncio.get_running_loop()
        while True:
            said: dict[str, Any] = json.loads(await asyncio.wait_for(loop.sock_recv(self.sock, 4096), 10))
            if said.get("ended") in self.by_local:
                self.by_local[said["ended"]].tell(said["status"])
            if what in said:
                return said

    async def fork(self, code: str) -> Forked:
        """Have a child forked, which runs nothing yet."""
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self.sock, [code.encode()], [theirs.fileno()])
        ours.setblocking(False)
        local = (await self.hear("forked"))["forked"]
        forked = await Forked.find(self.process, local)
        self.by_local[local] = forked
        self.own[forked.pid] = ours
        return forked

    async def start(self, code: str) -> Forked:
        """Have a child forked, and let it run its code to the end."""
        forked = await self.fork(code)
        self.own[forked.pid].send(b"g")
        assert (
            await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.own[forked.pid], 1), 10) == b"r"
        )
        return forked


@pytest.fixture
async def zygote(keeper: Keeper) -> AsyncIterator[Zygote]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            argv = (PYTHON, "-I", "-S", "-c", ZYGOTE)
            process = await keeper.spawn(SpawnSpec(argv, {}, "/", fds=(theirs.fileno(),)))
        ours.setblocking(False)
        zygote = Zygote(process, ours)
        yield zygote
        await process.end()
        for own in zygote.own.values():
            own.close()
        for forked in zygote.by_local.values():
            await forked.wait()


async def test_its_end_is_told_exactly(zygote: Zygote) -> None:
    for code, expected in (("os._exit(7)", Exit(code=7)), ("os.kill(os.getpid(), 11)", Exit(signal=11))):
        forked = await zygote.fork(code)
        assert forked.exit is None
        zygote.own[forked.pid].send(b"g")
        await zygote.hear("ended")
        assert await forked.wait() == expected
        assert forked.exit == expected


async def test_ending_one_takes_its_daemons_and_leaves_the_others(zygote: Zygote) -> None:
    first, second = await zygote.start("daemon(); daemon()"), await zygote.start("daemon()")
    assert len(await asyncio.to_thread(first.tree)) == 3
    kept = await asyncio.to_thread(second.tree)
    assert len(kept) == 2
    ending = asyncio.create_task(first.end())
    await zygote.hear("ended")
    assert await ending == Exit(signal=signal.SIGKILL)
    assert set(await asyncio.to_thread(zygote.process.tree)) == {zygote.process.pid, *kept}
    assert zygote.process.exit is None
    assert (await zygote.start("pass")).exit is None


async def test_a_crash_leaves_no_daemon_either(zygote: Zygote) -> None:
    if zygote.process.root == zygote.process.pid:
        pytest.skip("without namespaces a daemon in a session of its own stays until its worker ends")
    forked = await zygote.fork("daemon(); os.kill(os.getpid(), 11)")
    zygote.own[forked.pid].send(b"g")
    await zygote.hear("ended")
    assert await forked.wait() == Exit(signal=11)
    assert await asyncio.to_thread(zygote.process.tree) == [zygote.process.pid]


async def test_it_ends_with_the_worker_it_came_from(zygote: Zygote) -> None:
    forked = await zygote.start("daemon()")
    await zygote.process.end()
    assert (await forked.wait()).evidence == {"status": "not told by its parent"}
    assert process_tree.read(forked.pid) is None


async def test_only_a_child_of_the_worker_is_taken(zygote: Zygote) -> None:
    for pid in (1, 2**22 - 3):
        with pytest.raises(NotFoundError):
            await Forked.find(zygote.process, pid)


async def test_grace_is_given(zygote: Zygote) -> None:
    forked = await zygote.start("signal.signal(15, lambda *_: os._exit(4))")
    ending = asyncio.create_task(forked.end(grace_s=10))
    await zygote.hear("ended")
    assert await ending == Exit(code=4)
