"""Start, watch and end real processes, the same promises with and without namespaces."""

import asyncio
import contextlib
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator

import pytest
from tests.leaks import leaks_checked
from tests.namespaces import skip_without
from tests.waiting import eventually_async

from toft.host import process_tree
from toft.host.keeper import Exit, Keeper, Process, Sandbox, SpawnSpec
from toft.kernel.errors import NodeError, UnavailableError

__all__ = ["leaks_checked"]
pytestmark = pytest.mark.usefixtures("leaks_checked")

PYTHON = os.path.realpath(sys.executable)
ENV = {"PATH": "/usr/bin:/bin"}

# Starts a grandchild in a session of its own, which ignores every polite signal, then says so.
DAEMONS = """
import os, signal, time
for _ in range(2):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            os.write(3, b"d")
            time.sleep(1000)
        os._exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(3, b"w")
"""


@pytest.fixture(params=["namespaces", "plain"])
async def keeper(request: pytest.FixtureRequest) -> AsyncIterator[Keeper]:
    try:
        keeper = await Keeper.start(request.param)
    except UnavailableError as error:
        if error.code != "process.isolation_unavailable":
            raise
        skip_without(str(error))
    yield keeper
    await keeper.close()


def python(code: str, *, fds: tuple[int, ...] = (), sandbox: Sandbox | None = None) -> SpawnSpec:
    return SpawnSpec((PYTHON, "-I", "-S", "-c", code), ENV, "/", fds=fds, sandbox=sandbox)


async def heard(fd: int, count: int) -> bytes:
    """Read until that many bytes have come, or the writers are gone."""
    os.set_blocking(fd, False)
    said = b""

    def read() -> bool:
        nonlocal said
        try:
            more = os.read(fd, count)
        except BlockingIOError:
            return False
        said += more
        return not more or len(said) >= count

    await eventually_async(read, 10, f"{count} bytes")
    return said


async def start_with_pipe(keeper: Keeper, code: str, count: int) -> tuple[Process, int]:
    read, write = os.pipe()
    try:
        process = await keeper.spawn(python(code, fds=(write,)))
    finally:
        os.close(write)
    await heard(read, count)
    return process, read


async def test_exit_code_is_reported_exactly(keeper: Keeper) -> None:
    for code in (0, 1, 7, 255):
        process = await keeper.spawn(python(f"import os; os._exit({code})"))
        assert await process.wait() == Exit(code=code)


async def test_signal_is_reported_exactly(keeper: Keeper) -> None:
    for number in (signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM, signal.SIGABRT):
        process = await keeper.spawn(python(f"import os; os.kill(os.getpid(), {number}) or exit(3)"))
        assert await process.wait() == Exit(signal=number)


async def test_descriptors_arrive_in_order_and_no_others(keeper: Keeper) -> None:
    read, write = os.pipe()
    extra = os.dup2(write, 77, inheritable=True)
    code = "import os; os.write(4, repr(sorted(map(int, os.listdir('/proc/self/fd')))).encode())"
    process = await keeper.spawn(python(code, fds=(read, write)))
    os.close(write)
    os.close(extra)
    await process.wait()
    assert eval(os.read(read, 100)) == [0, 1, 2, 3, 4, 5]  # 5 is the listing itself
    os.close(read)


async def test_output_goes_where_it_was_asked_to(keeper: Keeper) -> None:
    read, write = os.pipe()
    code = "import os; os.write(1, b'out '); os.write(2, b'err '); os.write(1, repr(os.read(0, 9)).encode())"
    process = await keeper.spawn(
        SpawnSpec((PYTHON, "-I", "-S", "-c", code), ENV, "/", stdout=write, stderr=write)
    )
    os.close(write)
    await process.wait()
    assert os.read(read, 100) == b"out err b''"
    os.close(read)


async def test_environment_and_directory_are_exactly_those_asked_for(keeper: Keeper) -> None:
    read, write = os.pipe()
    code = "import os; os.write(3, repr((dict(os.environ), os.getcwd())).encode())"
    env = {"A": "1", "LC_ALL": "C.UTF-8", "BIG": "x" * 100_000, "NAME": "spaces \udcff\n"}
    spec = SpawnSpec((PYTHON, "-I", "-S", "-c", code), env, "/usr", fds=(write,))
    process = await keeper.spawn(spec)
    os.close(write)
    said = b""
    while more := os.read(read, 65536):
        said += more
    assert eval(said) == (env, "/usr")
    os.close(read)
    await process.wait()


async def test_a_spawn_that_fails_names_the_step_and_leaves_nothing(keeper: Keeper) -> None:
    for spec, step in (
        (SpawnSpec(("/nowhere/at all",), ENV, "/"), "start /nowhere/at all"),
        (SpawnSpec((PYTHON,), ENV, "/nowhere"), "enter the directory /nowhere"),
    ):
        with pytest.raises(NodeError) as caught:
            await keeper.spawn(spec)
        assert caught.value.code == "process.spawn_failed"
        assert caught.value.details["step"] == step
        assert caught.value.details["reason"] == "No such file or directory"
    assert process_tree.descendants(keeper.pid) == []


async def test_kill_takes_the_whole_tree(keeper: Keeper) -> None:
    process, read = await start_with_pipe(keeper, DAEMONS + "\nimport time; time.sleep(1000)", 3)
    tree = process.tree()
    assert len(tree) == 3
    assert tree[0] == process.pid
    assert await process.end(grace_s=0) == Exit(signal=signal.SIGKILL)
    assert await heard(read, 1) == b""  # every writer is gone
    assert [pid for pid in tree if process_tree.read(pid)] == []
    os.close(read)


CHAINS = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        break
else:
    os.write(3, b".")
    time.sleep(99)
while True:  # each link lives for a fraction of a millisecond
    if os.fork() != 0:
        os._exit(0)
    {}
"""


@pytest.mark.parametrize("step", ["pass", "os.setsid()"], ids=["one session", "ever new sessions"])
async def test_chains_of_forks_are_caught(keeper: Keeper, step: str) -> None:
    process, read = await start_with_pipe(keeper, CHAINS.format(step), 1)
    assert await asyncio.wait_for(process.end(), 20) == Exit(signal=signal.SIGKILL)
    assert await heard(read, 1) == b""
    assert process_tree.descendants(keeper.pid) == []
    os.close(read)


async def test_daemons_end_with_the_worker_that_started_them(keeper: Keeper) -> None:
    process, read = await start_with_pipe(keeper, DAEMONS + "\nos._exit(5)", 3)
    assert await process.wait() == Exit(code=5)
    assert await heard(read, 1) == b""
    os.close(read)


async def test_grace_lets_a_process_end_itself(keeper: Keeper) -> None:
    code = "import os, signal, time\nsignal.signal(15, lambda *_: os._exit(4))\n"
    code += "os.write(3, b'.')\ntime.sleep(99)"
    process, read = await start_with_pipe(keeper, code, 1)
    assert await process.end(grace_s=10) == Exit(code=4)
    os.close(read)


async def test_grace_ends(keeper: Keeper) -> None:
    process, read = await start_with_pipe(keeper, DAEMONS + "\nimport time; time.sleep(1000)", 3)
    assert await process.end(grace_s=0.05) == Exit(signal=signal.SIGKILL)
    os.close(read)


async def test_many_at_once_are_told_apart(keeper: Keeper) -> None:
    processes = await asyncio.gather(*(keeper.spawn(python(f"import os; os._exit({n})")) for n in range(30)))
    assert [(await process.wait()).code for process in processes] == list(range(30))
    assert process_tree.descendants(keeper.pid) == []


async def test_close_ends_what_still_runs(keeper: Keeper) -> None:
    process, read = await start_with_pipe(keeper, DAEMONS + "\nimport time; time.sleep(1000)", 3)
    await keeper.close()
    assert (await process.wait()).signal == signal.SIGKILL
    assert await heard(read, 1) == b""
    os.close(read)
    with pytest.raises(UnavailableError, match="closed"):
        await keeper.spawn(python(""))


async def test_a_lost_keeper_ends_every_wait_and_is_started_again(keeper: Keeper) -> None:
    process, read = await start_with_pipe(keeper, "import os, time; os.write(3, b'.'); time.sleep(1000)", 1)
    os.kill(keeper.pid, signal.SIGKILL)
    assert await process.wait() == Exit(evidence={"keeper": "lost"})
    assert await heard(read, 1) == b""
    os.close(read)
    again = await keeper.spawn(python("import os; os._exit(6)"))
    assert await again.wait() == Exit(code=6)


async def test_a_keeper_without_room_refuses_and_keeps_what_it_has(keeper: Keeper) -> None:
    first = await keeper.spawn(python("import time; time.sleep(99)"))
    open_now = len(await asyncio.to_thread(os.listdir, f"/proc/{keeper.pid}/fd"))
    for room in range(40):  # at every place where a descriptor is needed
        resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, (open_now + room, 4096))
        with contextlib.suppress(NodeError):
            process = await keeper.spawn(python("import time; time.sleep(99)", fds=(0, 0)))
            await process.end()
            break
    else:
        pytest.fail("forty descriptors are not enough for a process")
    assert room > 0
    resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, (1024, 4096))
    assert first.exit is None
    assert await (await keeper.spawn(python("import os; os._exit(3)"))).wait() == Exit(code=3)


async def test_a_host_without_room_refuses_too(keeper: Keeper) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + 1, limits[1]))
    try:
        with pytest.raises(NodeError) as caught:
            await keeper.spawn(python("", fds=(0,) * 200))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert caught.value.code == "process.spawn_failed"
    assert await (await keeper.spawn(python("import os; os._exit(3)"))).wait() == Exit(code=3)


HOST = """
import asyncio, os, sys, time
from toft.host.keeper import Keeper, SpawnSpec
async def main():
    mode, python, code, fd, forked = sys.argv[1:]
    keeper = await Keeper.start(mode)
    process = await keeper.spawn(SpawnSpec((python, "-I", "-S", "-c", code), {}, "/", fds=(int(fd),)))
    os.close(int(fd))
    if forked and os.fork() == 0:  # holds a copy of every descriptor, the keeper's socket among them
        time.sleep(3)
    await process.wait()
asyncio.run(main())
"""

# Deep inside C code with the interpreter lock held, where no Python signal handler ever runs.
IN_C_CODE = "\nint('7' * 4000) ** 5000000"


@pytest.mark.parametrize("mode", ["namespaces", "plain"])
@pytest.mark.parametrize("forked", ["", "forked"])
async def test_nothing_outlives_a_killed_host(mode: str, forked: str) -> None:
    read, write = os.pipe()
    host = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOST, mode, PYTHON, DAEMONS + IN_C_CODE, str(write), forked, pass_fds=(write,)
    )
    os.close(write)
    assert sorted(await heard(read, 3)) == sorted(b"ddw")
    host.kill()
    killed = asyncio.get_running_loop().time()
    await host.wait()
    assert await heard(read, 1) == b""
    assert asyncio.get_running_loop().time() - killed < 2
    os.close(read)
