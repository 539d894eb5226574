"""Workers that die, stall or misbehave: what the caller is told, and that nothing is left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests import nodes
from tests.leaks import leaks_checked
from tests.waiting import eventually, eventually_async

from toft.host import process_tree
from toft.plugins import errors as faults
from toft.plugins.supervision import states
from toft_sdk.errors import CancelledError, FatalError, PluginError

__all__ = ["leaks_checked"]
pytestmark = pytest.mark.usefixtures("leaks_checked")
AT_IMPORT = "TOFT_MISBEHAVE_AT_IMPORT"


@pytest.fixture
def home(toft_home: Path) -> Path:
    nodes.register(toft_home)
    return toft_home


def is_alive(pid: int) -> bool:
    stat = process_tree.read(pid)
    return stat is not None and stat.state not in "ZX"


@pytest.mark.parametrize(
    ("how", "code", "detail"),
    [
        ("exit", "worker.exited", {"exit_code": 9}),
        ("segv", "worker.crashed", {"signal_name": "SIGSEGV"}),
        ("kill", "worker.killed", {"signal_name": "SIGKILL"}),
    ],
)
async def test_an_import_that_kills_the_process_is_told_as_what_it_was(
    home: Path, how: str, code: str, detail: dict[str, Any]
) -> None:
    async with nodes.running(home) as node:
        with pytest.raises(faults.WorkerLostError) as caught:
            await node.load("misbehaving", env={AT_IMPORT: how})
        assert caught.value.code == code
        assert detail.items() <= caught.value.details.items()
        assert caught.value.details["doing"] == "load"
        assert node.instances() == []
        assert not (home / "data" / "misbehaving").exists()
        assert await node.rooms.records.list() == []


async def test_an_import_that_raises_gives_its_reason_and_trace(home: Path) -> None:
    async with nodes.running(home) as node:
        with pytest.raises(PluginError, match="the import was told to raise") as caught:
            await node.load("misbehaving", env={AT_IMPORT: "raise"})
        assert "_misbehave_at_import" in caught.value.trace


@pytest.mark.parametrize("how", ["hang", "gil"])
async def test_an_import_that_hangs_is_ended_and_says_where_when_it_can(home: Path, how: str) -> None:
    async with nodes.running(home, load_stall_s=0.5) as node:
        with pytest.raises(faults.WorkerLostError) as caught:
            await node.load("misbehaving", env={AT_IMPORT: how})
        assert caught.value.code == "worker.stalled"
        assert caught.value.details["doing"] == "load"
        if how == "hang":
            assert any("_forever" in frame for frame in caught.value.details["stack"])


@pytest.mark.parametrize("how", ["print", "fds", "fork", "chdir"])
async def test_an_import_with_bad_manners_still_loads(home: Path, how: str) -> None:
    async with nodes.running(home) as node:
        plugin = await node.load("misbehaving", env={AT_IMPORT: how})
        assert await plugin.call("echo", value=how) == how


async def test_a_slow_initialize_is_fine_while_it_reports_progress(home: Path) -> None:
    async with nodes.running(home, load_stall_s=0.4) as node:
        plugin = await node.load("misbehaving", {"at_initialize": "progress", "seconds": 1.5})
        assert await plugin.call("echo", value=1) == 1


async def test_a_silent_initialize_is_ended_and_says_where(home: Path) -> None:
    async with nodes.running(home, load_stall_s=0.4) as node:
        with pytest.raises(faults.WorkerLostError) as caught:
            await node.load("misbehaving", {"at_initialize": "stall", "seconds": 60})
        assert caught.value.code == "worker.stalled"
        assert "initialize" in caught.value.message
        assert any("misbehaving.py" in frame for frame in caught.value.details["stack"])


@pytest.mark.parametrize(("how", "code"), [("exit", "worker.exited"), ("segv", "worker.crashed")])
async def test_an_initialize_that_dies_is_told(home: Path, how: str, code: str) -> None:
    async with nodes.running(home) as node:
        with pytest.raises(faults.WorkerLostError) as caught:
            await node.load("misbehaving", {"at_initialize": how})
        assert caught.value.code == code
        assert caught.value.details["doing"] == "initialize"


async def test_a_load_that_fails_tells_what_was_printed_before(home: Path) -> None:
    async with nodes.running(home) as node:
        with pytest.raises(FatalError) as caught:
            await node.load("misbehaving", {"at_initialize": "raise"}, env={AT_IMPORT: "fds"})
        assert any("noise at import" in line for line in caught.value.details["last_lines"])


async def test_an_initialize_that_raises_leaves_nothing(home: Path) -> None:
    async with nodes.running(home) as node:
        with pytest.raises(FatalError, match="told to raise"):
            await node.load("misbehaving", {"at_initialize": "raise"})
        plugin = await node.load("misbehaving", {"at_initialize": "print"})
        assert await plugin.call("echo", value=1) == 1


@pytest.mark.parametrize(
    ("action", "arguments", "code"),
    [
        ("segv", {}, "worker.crashed"),
        ("kill_self", {}, "worker.killed"),
        ("kill_self", {"number": 15}, "worker.killed"),
        ("exit_now", {"code": 3}, "worker.exited"),
    ],
)
async def test_a_worker_that_dies_in_a_call_comes_back_and_repeats_nothing(
    home: Path, action: str, arguments: dict[str, Any], code: str
) -> None:
    async with nodes.running(home) as node:
        plugin = await node.load("misbehaving")
        await plugin.call("flood", lines=2)
        with pytest.raises(faults.WorkerLostError) as caught:
            await plugin.call(action, **arguments)
        assert caught.value.code == code
        assert any("line 1" in line for line in caught.value.details["last_lines"])
        assert await plugin.call("echo", value="back") == "back"
        assert (await plugin.stats())["restarts"] == 1


async def test_a_worker_that_keeps_dying_stays_down_until_somebody_asks(home: Path) -> None:
    async with nodes.running(home, restart_first_s=0.01, crash_limit=3) as node:
        plugin = await node.load("misbehaving")
        for _ in range(3):
            with pytest.raises(faults.WorkerLostError):
                await plugin.call("exit_now")
        await eventually_async(lambda: plugin.state is states.State.CRASH_LOOP)
        with pytest.raises(faults.DownError) as caught:
            await plugin.call("echo")
        assert caught.value.code == "instance.crash_loop"
        assert caught.value.details["exit_code"] == 3
        await plugin.reload()
        assert await plugin.call("echo", value=1) == 1


async def test_a_worker_killed_from_outside_is_replaced_while_nobody_calls(home: Path) -> None:
    async with nodes.running(home) as node:
        plugin = await node.load("misbehaving")
        pid = (await plugin.stats())["pid"]
        os.kill(pid, signal.SIGKILL)
        await eventually_async(lambda: plugin.state is states.State.RESTARTING)
        await eventually_async(lambda: plugin.state is states.State.READY)
        assert (await plugin.stats())["pid"] != pid


async def test_daemons_and_threads_of_a_plugin_go_with_it(home: Path) -> None:
    async with nodes.running(home) as node:
        plugin = await node.load("misbehaving")
        await plugin.call("fork_daemons", count=3)
        await plugin.call("start_threads", count=2)
        assert (await plugin.stats())["processes"] == 4
        began = time.monotonic()
        await plugin.unload()
        assert time.monotonic() - began < 6


async def test_a_plugin_that_ignores_everything_is_unloaded_in_time(home: Path) -> None:
    async with nodes.running(home, cleanup_s=0.3) as node:
        plugin = await node.load("misbehaving", concurrency=4)
        stuck = [plugin.start("hang", where=where) for where in ("c", "gil")]
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await plugin.unload()
        assert time.monotonic() - began < 3
        for call in stuck:
            with pytest.raises(faults.DownError):
                await call


@pytest.mark.parametrize("action", ["flood", "write_fds", "close_fds", "change_directory"])
async def test_noise_and_vandalism_in_the_own_process_hurt_nobody_else(home: Path, action: str) -> None:
    async with nodes.running(home, restart_first_s=0.01) as node:
        vandal = await node.load("misbehaving", instance="vandal")
        other = await node.load("misbehaving")
        lost = (await asyncio.gather(vandal.call_with(action, {}, timeout_s=20), return_exceptions=True))[0]
        if isinstance(lost, faults.WorkerLostError):
            assert lost.code in ("worker.protocol", "worker.exited", "worker.killed", "worker.lost")
        else:
            assert not isinstance(lost, BaseException), lost
        assert await other.call("echo", value=1) == 1
        assert await vandal.call_with("echo", {"value": 2}, timeout_s=20) == 2


async def test_a_worker_sees_only_what_it_was_given(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST_TOKEN", "do-not-show")
    (home / "secrets").mkdir(parents=True, mode=0o700)
    async with nodes.running(home) as node:
        node.rooms.secrets.set("other", "KEY", "other-secret")
        plugin = await node.load("misbehaving", env={"GREETING": "hello"})
        paths = [str(home / "node.db"), str(home / "secrets/secrets.json"), f"/proc/{os.getpid()}/environ"]
        seen = await plugin.call("look", paths=paths)
        if node.rooms.isolation.mode == "namespaces":
            assert all("Error" in text for text in seen["files"].values()), seen["files"]
        assert "HOST_TOKEN" not in seen["environ"]
        assert "do-not-show" not in str(seen)
        assert "other-secret" not in str(seen)
        assert seen["environ"]["GREETING"] == "hello"
        assert seen["environ"]["HOME"] == str(home / "data" / "misbehaving")
        assert set(seen["environ"]) <= {
            "PATH",
            "HOME",
            "LANG",
            "TZ",
            "TMPDIR",
            "TOFT_DATA_DIR",
            "GREETING",
            *(name for name in os.environ if name.startswith("LC_")),
        }


async def test_a_memory_limit_ends_the_one_who_exceeds_it(home: Path) -> None:
    async with nodes.running(home) as node:
        plugin = await node.load("misbehaving", memory_bytes=150_000_000)
        with pytest.raises((faults.WorkerLostError, PluginError)) as caught:
            await plugin.call("leak", size_bytes=20_000_000, times=20)
        assert caught.value.category == "resource"
        assert await plugin.call("echo", value=1) == 1


HOST = """
import asyncio, sys
from pathlib import Path
from tests import nodes

async def main():
    async with nodes.running(Path(sys.argv[1])) as node:
        plugin = await node.load("misbehaving")
        daemons = await plugin.call("fork_daemons", count=2)
        calls = [plugin.start("hang", where=where) for where in ("c", "gil")]
        print((await plugin.stats())["pid"], (await plugin.stats())["processes"], flush=True)
        await asyncio.gather(*(call.result() for call in calls))

asyncio.run(main())
"""


def test_everything_is_gone_soon_after_the_host_is_killed(home: Path) -> None:
    root = Path(__file__).parents[2]
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, str(home)], stdout=subprocess.PIPE, text=True, cwd=root
    )
    try:
        assert host.stdout is not None
        pid, processes = map(int, host.stdout.readline().split())
        assert processes == 3
        host.kill()
        began = time.monotonic()
        eventually(lambda: not is_alive(pid), 2)
        assert time.monotonic() - began < 2
    finally:
        host.kill()
        host.wait()
        host.stdout.close()


async def test_a_zygote_makes_restarts_quick_and_ends_with_its_instance(home: Path) -> None:
    async with nodes.running(home) as node:
        plugin = await node.load("misbehaving", {"label": "forked"}, zygote=True)
        first = await plugin.stats()
        assert (await plugin.call("where"))["label"] == "forked"
        with pytest.raises(faults.WorkerLostError) as caught:
            await plugin.call("segv")
        assert caught.value.code == "worker.crashed"
        assert (await plugin.call("where"))["label"] == "forked"
        second = await plugin.stats()
        assert second["pid"] != first["pid"]
        stubborn = plugin.start_with("hang", {"where": "gil"}, grace_s=0)
        await asyncio.sleep(0.05)
        stubborn.cancel()
        with pytest.raises(CancelledError):
            await stubborn
        assert await plugin.call("echo", value=1) == 1
        await plugin.call("fork_daemons", count=2)
        assert (await plugin.stats())["processes"] == 3
        await plugin.unload()
        assert not is_alive(second["pid"])


async def test_a_zygote_that_dies_is_replaced(home: Path) -> None:
    async with nodes.running(home) as node:
        plugin = await node.load("misbehaving", zygote=True)
        worker = (await plugin.stats())["pid"]
        forked = process_tree.read(worker)
        assert forked is not None
        os.kill(forked.parent, signal.SIGKILL)
        await eventually_async(lambda: plugin.state is states.State.RESTARTING)
        assert await plugin.call("echo", value=1) == 1
        assert (await plugin.stats())["pid"] != worker


async def test_a_load_that_is_given_up_leaves_nothing(home: Path) -> None:
    async with nodes.running(home) as node:
        slow = asyncio.ensure_future(
            node.load("misbehaving", {"at_initialize": "progress", "seconds": 60}, instance="slow")
        )
        await eventually_async(lambda: (home / "data" / "misbehaving").exists())
        await asyncio.sleep(0.2)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        assert node.instances() == []
        assert not (home / "data" / "misbehaving").exists()
    # The leak check sees what the worker left.


async def test_closing_the_node_ends_loads_and_calls_in_time(home: Path) -> None:
    began = time.monotonic()
    async with nodes.running(home, cleanup_s=0.3) as node:
        plugin = await node.load("misbehaving")
        stuck = plugin.start("hang", where="c")
        await asyncio.sleep(0.05)
    with pytest.raises(faults.DownError):
        await stuck
    assert time.monotonic() - began < 10


async def test_a_keeper_that_is_killed_takes_the_workers_and_they_come_back(home: Path) -> None:
    async with nodes.running(home) as node:
        plugin = await node.load("misbehaving")
        call = plugin.start("work", seconds=60)
        await eventually_async(lambda: call.progress is not None)
        old = (await plugin.stats())["pid"]
        keeper = process_tree.read(old)
        while keeper is not None and keeper.parent != os.getpid():
            keeper = process_tree.read(keeper.parent)
        assert keeper is not None
        os.kill(keeper.pid, signal.SIGKILL)
        with pytest.raises(faults.WorkerLostError):
            await call
        assert await plugin.call_with("echo", {"value": 1}, timeout_s=20) == 1
        assert not is_alive(old)


async def test_a_listener_that_raises_does_not_hurt_the_worker(home: Path) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))

    def listener(share: float, text: str) -> None:
        raise ValueError("a listener's own mistake")

    async with nodes.running(home) as node:
        plugin = await node.load("misbehaving")
        assert await plugin.call_with("work", {"seconds": 0.1}, on_progress=listener) >= 0.1
        assert (await plugin.stats())["restarts"] == 0
    assert "a listener's own mistake" in str(complaints[0]["exception"])


@pytest.mark.parametrize("where", ["python", "c"])
async def test_a_silent_call_is_ended_where_the_instance_asks_for_that(home: Path, where: str) -> None:
    async with nodes.running(home) as node, await node.load("misbehaving", call_stall_s=0.6) as plugin:
        busy = plugin.start("work", seconds=2)
        with pytest.raises(faults.WorkerLostError) as caught:
            await plugin.call("hang", where=where)
        assert caught.value.code == "worker.stalled"
        assert "hang" in str(caught.value.details["stacks"])
        # One that reports progress is not silent, but shares the worker that had to go.
        with pytest.raises(faults.WorkerLostError) as other:
            await busy
        assert other.value.code == "worker.replaced"
        assert await plugin.call("echo", value=1) == 1
