"""Limits hold for the whole tree of a worker, and running out of memory is told only with evidence."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.leaks import leaks_checked
from tests.namespaces import skip_without
from tests.system.test_keeper_processes import PYTHON, heard, python
from tests.waiting import eventually_async

from toft.host.keeper import Keeper, Limits, Process, SpawnSpec
from toft.kernel.errors import UnavailableError

__all__ = ["leaks_checked"]
pytestmark = pytest.mark.usefixtures("leaks_checked")

MIB = 1 << 20
EAT = "\nhoard = []\nwhile True: hoard.append(b'x' * (1 << 20))"


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
    assert groups_of(keeper) == []


def groups_of(keeper: Keeper, below: str = "") -> list[Path]:
    return list(Path("/sys/fs/cgroup").rglob(f"toft-{keeper.pid}{below}"))


async def start(
    keeper: Keeper, code: str, limits: Limits, mechanism: str, fds: tuple[int, ...] = ()
) -> Process:
    spec = SpawnSpec((PYTHON, "-I", "-S", "-c", code), {}, "/", fds=fds, limits=limits)
    process = await keeper.spawn(spec)
    if set(process.limits.values()) == {"rlimit"} and mechanism == "cgroup":
        await process.end()
        pytest.skip("needs control-groups: this user cannot make them")
    return process


async def test_a_worker_that_eats_memory_is_told_so_and_its_neighbour_is_unharmed(keeper: Keeper) -> None:
    neighbour = await keeper.spawn(python("import time; time.sleep(99)"))
    process = await start(keeper, EAT, Limits(memory_bytes=64 * MIB), "cgroup")
    ended = await process.wait()
    assert ended.out_of_memory
    assert (ended.code, ended.signal) == (None, signal.SIGKILL)
    assert ended.evidence["oom_kills"] >= 1
    assert ended.evidence["memory_limit_bytes"] == 64 * MIB
    assert ended.evidence["memory_peak_bytes"] > 60 * MIB
    assert neighbour.exit is None


async def test_the_limit_holds_for_all_processes_together(keeper: Keeper) -> None:
    # Four times 24 MiB, of which none alone is over the limit.
    code = "import os, time\nfor _ in range(3):\n    if os.fork() == 0: break\n"
    code += "x = b'x' * (24 << 20)\ntime.sleep(99)"
    process = await start(keeper, code, Limits(memory_bytes=64 * MIB), "cgroup")
    events = (groups_of(keeper, "/*/memory.oom_control") or groups_of(keeper, "/*/memory.events"))[0]
    await eventually_async(lambda: "oom_kill 0" not in events.read_text(), 20, "a kill")
    assert (await process.end()).evidence["oom_kills"] >= 1


async def test_a_child_out_of_memory_is_not_the_worker_out_of_memory(keeper: Keeper) -> None:
    code = f"import os, time\nif os.fork() == 0:\n    {EAT.strip().splitlines()[0]}\n    "
    code += "while True: hoard.append(b'x' * (1 << 20))\nos.wait()\nos.write(3, b'.')\ntime.sleep(99)"
    for by_us in (True, False):
        read, write = os.pipe()
        process = await start(keeper, code, Limits(memory_bytes=64 * MIB), "cgroup", (write,))
        os.close(write)
        await heard(read, 1)
        os.close(read)
        if by_us:
            ended = await process.end()
            assert ended.signal == signal.SIGKILL
        else:
            process.send_signal(signal.SIGTERM)
            ended = await process.wait()
            assert ended.signal == signal.SIGTERM
        assert ended.evidence["oom_kills"] >= 1
        assert not ended.out_of_memory


async def test_a_kill_without_the_limit_reached_is_not_out_of_memory(keeper: Keeper) -> None:
    code = "import os; os.kill(os.getpid(), 9)"
    ended = await (await start(keeper, code, Limits(memory_bytes=64 * MIB), "cgroup")).wait()
    assert ended.signal == signal.SIGKILL
    assert not ended.out_of_memory
    assert ended.evidence["oom_kills"] == 0


async def test_forks_stop_at_the_limit(keeper: Keeper) -> None:
    code = """
import os, time
children = 0
try:
    while children < 500:
        if os.fork() == 0:
            time.sleep(99)
        children += 1
except BlockingIOError:
    pass
os.write(3, str(children).encode().ljust(4))
time.sleep(99)
"""
    read, write = os.pipe()
    process = await start(keeper, code, Limits(processes=10), "cgroup", (write,))
    os.close(write)
    assert await heard(read, 4) == b"9   "
    os.close(read)
    await process.end()


async def test_without_control_groups_an_allocation_fails_instead() -> None:
    keeper = await Keeper.start(with_control_groups=False)
    try:
        code = "import os\ntry:\n    x = b'x' * (200 << 20)\nexcept MemoryError:\n    os._exit(5)"
        process = await start(keeper, code, Limits(memory_bytes=64 * MIB), "rlimit")
        assert process.limits == {"memory": "rlimit"}
        ended = await process.wait()
        assert ended.code == 5
        assert not ended.out_of_memory
    finally:
        await keeper.close()


async def test_groups_of_a_killed_keeper_are_removed_by_the_next() -> None:
    keeper = await Keeper.start()
    await start(keeper, "import time; time.sleep(99)", Limits(memory_bytes=64 * MIB), "cgroup")
    os.kill(keeper.pid, signal.SIGKILL)
    left = groups_of(keeper)
    assert left
    process = await eventually_async(lambda: _spawn_again(keeper))
    await process.wait()
    assert [path for path in left if path.exists()] == []
    await keeper.close()


async def _spawn_again(keeper: Keeper) -> Process | None:
    try:
        return await keeper.spawn(python(""))
    except UnavailableError:
        return None


async def test_a_plugin_goes_first_when_the_machine_runs_out_of_memory(keeper: Keeper) -> None:
    read, write = os.pipe()
    code = "import os; os.write(3, open('/proc/self/oom_score_adj', 'rb').read())"
    await (await start(keeper, code, Limits(), "none", (write,))).wait()
    os.close(write)
    assert int(await heard(read, 10)) >= 500
    os.close(read)
