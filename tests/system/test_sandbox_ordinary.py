"""What ordinary programs do still works in a sandbox: a wall that breaks them would be taken down."""

import json
import os
from pathlib import Path

import pytest
from tests.leaks import leaks_checked
from tests.system.test_keeper_processes import PYTHON, keeper

from toft.host.keeper import Keeper, Sandbox, SpawnSpec

__all__ = ["keeper", "leaks_checked"]
pytestmark = pytest.mark.usefixtures("leaks_checked")

ORDINARY = r"""
import json, mmap, multiprocessing, os, pty, signal, socket, sqlite3, subprocess, sys, tempfile, threading
import time, uuid

def pool():
    with multiprocessing.get_context("fork").Pool(2) as workers:
        assert workers.map(abs, [-1, -2]) == [1, 2]

def semaphore():
    lock = multiprocessing.get_context("fork").Semaphore(1)
    assert lock.acquire(timeout=5)
    lock.release()

def shared_memory():
    from multiprocessing import shared_memory
    block = shared_memory.SharedMemory(create=True, size=4096)
    block.buf[0] = 7
    block.close()
    block.unlink()

def shell():
    assert subprocess.run("echo $((40 + 2)) | cat", shell=True, capture_output=True).stdout == b"42\n"

def long_pipe():
    command = [sys.executable, "-I", "-S", "-c", "print('x' * 1000000)"]
    assert len(subprocess.run(command, capture_output=True).stdout) == 1000001

def terminal():
    master, slave = pty.openpty()
    os.write(slave, b"hello")
    assert os.read(master, 5) == b"hello"
    assert os.ttyname(slave).startswith("/dev/pts/")

def pseudo_terminal_child():
    pid, fd = pty.fork()
    if pid == 0:
        os.write(1, b"child")
        os._exit(0)
    assert os.read(fd, 5) == b"child"
    os.waitpid(pid, 0)

def temporary_file():
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"x")

def database():
    with sqlite3.connect(os.path.join(os.environ["DATA"], "a.db")) as db:
        db.execute("pragma journal_mode = wal")
        db.execute("create table t (x)")
    db.close()

def memory_file():
    fd = os.memfd_create("x")
    os.write(fd, b"abc")
    with open(f"/proc/self/fd/{fd}", "r+b") as again:
        assert mmap.mmap(again.fileno(), 3)[:] == b"abc"

def devices():
    assert len(open("/dev/urandom", "rb").read(8)) == 8
    open("/dev/null", "w").write("x")
    assert open("/dev/zero", "rb").read(2) == b"\0\0"
    open("/dev/stdout", "w").close()
    assert os.listdir("/dev/fd")

def kernel_facts():
    assert os.cpu_count() and uuid.uuid4() and os.getloadavg()
    assert open("/proc/self/status").read() and open("/proc/cpuinfo").read() and open("/proc/meminfo").read()
    assert os.listdir("/sys/devices/system/cpu")

def own_processes():
    child = subprocess.Popen(["sleep", "99"])
    assert open(f"/proc/{child.pid}/stat").read().startswith(f"{child.pid} ")
    child.send_signal(signal.SIGTERM)
    assert child.wait() == -signal.SIGTERM

def loopback():
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    server.accept()[0].sendall(b"x")
    assert client.recv(1) == b"x"

def unix_socket():
    path = os.path.join(os.environ["DATA"], "s")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen()
        client.connect(path)

def own_abstract_socket():
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("\0own-%d" % os.getpid())
        server.listen()
        client.connect(server.getsockname())

def names():
    assert socket.getaddrinfo("localhost", 80)

def threads():
    thread = threading.Thread(target=time.sleep, args=(0.001,))
    thread.start()
    thread.join()

def rename_across_directories():
    for name in ("a", "b"):
        os.mkdir(os.path.join(os.environ["DATA"], name))
    source = os.path.join(os.environ["DATA"], "a", "file")
    open(source, "w").close()
    os.rename(source, os.path.join(os.environ["DATA"], "b", "file"))
    os.link(os.path.join(os.environ["DATA"], "b", "file"), os.path.join(os.environ["DATA"], "a", "again"))

def executable_of_its_own():
    path = os.path.join(os.environ["DATA"], "program")
    with open(path, "w") as file:
        file.write("#!/bin/sh\nexit 3\n")
    os.chmod(path, 0o755)
    assert subprocess.run([path]).returncode == 3

def trace_of_a_child():
    # What debuggers and samplers do to their own processes.
    import ctypes
    child = subprocess.Popen(["sleep", "99"])
    assert ctypes.CDLL(None).ptrace(0x4206, child.pid, 0, 0) == 0
    child.kill()
    child.wait()

results = {}
for name, function in list(globals().items()):
    if callable(function) and getattr(function, "__module__", "") == "__main__":
        try:
            function()
        except BaseException as error:
            results[name] = repr(error)
        else:
            results[name] = ""
os.write(3, json.dumps(results).encode())
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "home/data").mkdir(parents=True)
    return tmp_path / "home/data"


@pytest.mark.parametrize("network", [True, False])
async def test_ordinary_programs_work(keeper: Keeper, data: Path, network: bool) -> None:
    sandbox = Sandbox(
        hidden=(str(data.parent),), writable=(str(data), "/var/tmp", "/dev/shm"), network=network
    )
    read, write = os.pipe()
    env = {"PATH": "/usr/bin:/bin", "DATA": str(data), "TMPDIR": "/var/tmp"}
    spec = SpawnSpec((PYTHON, "-I", "-c", ORDINARY), env, str(data), fds=(write,), stderr=2, sandbox=sandbox)
    process = await keeper.spawn(spec)
    os.close(write)
    await process.wait()
    with os.fdopen(read, "rb") as file:
        results = json.loads(file.read())
    failed = {name: why for name, why in results.items() if why}
    if not network and keeper.isolation.mode == "plain":
        failed.pop("loopback")  # no loopback device of its own to listen on
        failed.pop("names", None)
    assert failed == {}
    assert len(results) >= 20
