"""Calls through the node: results, errors, streams, cancels, time-outs, caps."""

import asyncio
import gc
import os
import time
from pathlib import Path

import pytest
from tests import nodes
from tests.leaks import leaks_checked
from tests.waiting import eventually_async as eventually

from toft.host import process_tree
from toft.kernel import errors as node_errors
from toft.plugins import errors as faults
from toft.plugins.supervision import states
from toft_sdk.errors import (
    CancelledError,
    FatalError,
    InputError,
    PluginError,
    ResourceError,
    TransientError,
)

__all__ = ["leaks_checked"]
pytestmark = pytest.mark.usefixtures("leaks_checked")


@pytest.fixture
def home(toft_home: Path) -> Path:
    nodes.register(toft_home)
    return toft_home


def is_alive(pid: int) -> bool:
    stat = process_tree.read(pid)
    return stat is not None and stat.state not in "ZX"


async def test_exact_values_come_back_from_another_process(home: Path) -> None:
    async with nodes.running(home) as node:
        plugin = await node.load("misbehaving")
        value = {"a": (1, 2.5, None), 7: b"\x00" * 100_000, "n": float("inf"), "s": {1, 2}}
        assert await plugin.call("echo", value=value) == value
        where = await plugin.call("where")
        assert where["pid"] != os.getpid()


async def test_unloading_several_ends_the_others_when_one_cannot_be(home: Path) -> None:
    async with nodes.running(home) as node:
        plugin = await node.load("misbehaving")
        pid = (await plugin.stats())["pid"]
        with pytest.raises(node_errors.NotFoundError):
            await node.unload_many(["nobody", "misbehaving"])
        assert not is_alive(pid)
        assert node.instances() == []


async def test_errors_arrive_typed_with_their_trace(home: Path) -> None:
    async with nodes.running(home) as node:
        plugin = await node.load("misbehaving")
        with pytest.raises(TransientError) as transient:
            await plugin.call("raise_error", kind="TransientError")
        assert transient.value.retry_after_s == 2.5
        assert "raise_error" in transient.value.trace
        with pytest.raises(ResourceError) as resource:
            await plugin.call("raise_error", kind="ResourceError")
        assert resource.value.details["needed_bytes"] == 2_000_000
        with pytest.raises(FatalError):
            await plugin.call("raise_error", kind="SystemExit")
        with pytest.raises(PluginError, match="deep"):
            await plugin.call("unencodable")
        assert await plugin.call("echo", value=1) == 1
        assert (await plugin.stats())["failures"] == 4


async def test_arguments_that_do_not_fit_are_refused_on_the_host_all_at_once(home: Path) -> None:
    async with nodes.running(home) as node:
        plugin = await node.load("misbehaving")
        with pytest.raises(InputError) as caught:
            await plugin.call("work", secnds=1, step_s="no")
        assert set(caught.value.fields) == {"secnds", "step_s"}
        assert (await plugin.stats())["calls"] == 0
        with pytest.raises(InputError, match="object"):
            await plugin.call("echo", value=object())
        assert await plugin.call("echo", value=2) == 2


async def test_streams_give_chunks_then_the_error(home: Path) -> None:
    async with nodes.running(home) as node:
        plugin = await node.load("misbehaving")
        assert [chunk async for chunk in plugin.stream("chunks", count=1000)] == list(range(1000))
        broken = plugin.stream("chunks_then_raise", count=3)
        assert [await anext(broken) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(TransientError):
            await anext(broken)


async def test_a_reader_that_goes_away_ends_its_stream(home: Path) -> None:
    async with nodes.running(home) as node:
        plugin = await node.load("misbehaving", concurrency=1)
        async with plugin.stream("chunks", count=10**9) as chunks:
            assert await anext(chunks) == 0
        assert await plugin.call("echo", value=1) == 1
        dropped = plugin.stream("chunks", count=10**9)
        assert await anext(dropped) == 0
        del dropped
        assert await plugin.call("echo", value=1) == 1
        assert (await plugin.stats())["cancelled"] == 2


async def test_cancelling_one_call_leaves_the_other_on_the_same_worker(home: Path) -> None:
    async with nodes.running(home) as node:
        plugin = await node.load("misbehaving")
        one, other = plugin.start("work", seconds=60), plugin.start("work", seconds=0.3)
        await eventually(lambda: one.progress is not None)
        pid = (await plugin.stats())["pid"]
        began = time.monotonic()
        assert one.cancel() is True
        with pytest.raises(CancelledError):
            await one
        assert time.monotonic() - began < 1
        assert one.outcome == "cancelled"
        assert await other >= 0.3
        assert (await plugin.stats())["pid"] == pid


@pytest.mark.parametrize("where", ["python", "c", "gil"])
async def test_a_call_that_hears_nothing_costs_its_worker_and_the_next_is_ready(
    home: Path, where: str
) -> None:
    async with nodes.running(home, cancel_grace_s=0.5) as node:
        plugin = await node.load("misbehaving")
        stubborn = plugin.start("hang", where=where)
        innocent = plugin.start("work", seconds=60)
        pid = (await plugin.stats())["pid"]
        await asyncio.sleep(0.05)
        stubborn.cancel()
        with pytest.raises(CancelledError):
            await stubborn
        with pytest.raises(faults.WorkerLostError) as caught:
            await innocent
        assert caught.value.code == "worker.replaced"
        assert await plugin.call("echo", value=5) == 5
        stats = await plugin.stats()
        assert stats["pid"] != pid
        assert stats["restarts"] == 0
        assert not is_alive(pid)


async def test_a_child_process_is_ended_by_a_cooperative_cancel(home: Path) -> None:
    async with nodes.running(home) as node:
        plugin = await node.load("misbehaving")
        call = plugin.start("child_process")
        await eventually(lambda: (plugin.id, asyncio.get_running_loop()) and call.is_open)
        await asyncio.sleep(0.2)
        pid = (await plugin.stats())["pid"]
        call.cancel()
        with pytest.raises(CancelledError):
            await call
        stats = await plugin.stats()
        assert (stats["pid"], stats["processes"]) == (pid, 1)


async def test_a_timeout_is_an_error_of_its_own(home: Path) -> None:
    async with nodes.running(home) as node:
        plugin = await node.load("misbehaving")
        with pytest.raises(TimeoutError) as caught:
            await plugin.call_with("work", {"seconds": 60}, timeout_s=0.2)
        assert isinstance(caught.value, faults.CallTimeoutError)
        with pytest.raises(faults.CallTimeoutError):
            await plugin.call_with("hang", {}, timeout_s=0.2, grace_s=0.1)
        assert await plugin.call("echo", value=1) == 1


async def test_progress_usage_and_lines_belong_to_their_call(home: Path) -> None:
    async with nodes.running(home) as node:
        plugin = await node.load("misbehaving")
        told: list[tuple[float, str]] = []
        lines: list[str] = []
        one = plugin.start_with(
            "work",
            {"seconds": 0.2},
            on_progress=lambda share, text: told.append((share, text)),
            on_log=lambda line: lines.append(line.text),
        )
        other = plugin.start_with("flood", {"lines": 3}, on_log=lambda line: lines.append(line.text))
        await one
        await other
        await eventually(lambda: len(lines) == 3)
        assert told
        assert all(0 <= share <= 1 for share, _ in told)
        assert one.usage == {"seconds": 0.2}
        assert lines == ["line 0", "line 1", "line 2"]
        tail = await plugin.logs(3)
        assert all(f" stdout {other.number} line " in line for line in tail)


async def test_the_cap_holds_and_the_queue_is_bounded(home: Path) -> None:
    async with nodes.running(home) as node:
        plugin = await node.load("misbehaving", concurrency=2, queue_limit=3)
        running = [plugin.start("work", seconds=0.3) for _ in range(5)]
        with pytest.raises(faults.BusyError):
            plugin.start("work", seconds=0)
        assert (await plugin.stats())["running"] == 2
        assert (await plugin.stats())["waiting"] == 3
        await asyncio.gather(*(call.result() for call in running))


async def test_many_calls_at_once_all_come_back(home: Path) -> None:
    async with nodes.running(home) as node:
        plugin = await node.load("misbehaving")
        results = await asyncio.gather(*(plugin.call("echo", value=n) for n in range(500)))
        assert results == list(range(500))


async def test_a_result_of_a_gigabyte_comes_back(home: Path) -> None:
    async with nodes.running(home) as node:
        plugin = await node.load("misbehaving")
        got = await plugin.call("huge", size_bytes=1_000_000_000)
        assert len(got) == 1_000_000_000


async def test_a_disabled_instance_refuses_and_its_flag_is_remembered(home: Path) -> None:
    async with nodes.running(home) as node:
        plugin = await node.load("misbehaving")
        await plugin.disable()
        with pytest.raises(faults.DisabledError):
            await plugin.call("echo")
    async with nodes.running(home) as node:
        plugin = await node.load("misbehaving")
        with pytest.raises(faults.DisabledError):
            await plugin.call("echo")
        await plugin.enable()
        assert await plugin.call("echo", value=1) == 1


async def test_configuration_is_merged_remembered_and_changed_in_place(home: Path) -> None:
    async with nodes.running(home) as node:
        plugin = await node.load("misbehaving", {"label": "a"})
        assert plugin.config == {"at_initialize": "nothing", "seconds": 1.0, "label": "a"}
        pid = (await plugin.stats())["pid"]
        await plugin.reconfigure({"label": "b"})
        where = await plugin.call("where")
        assert where["label"] == "b"
        assert (await plugin.stats())["pid"] == pid
        with pytest.raises(InputError) as caught:
            await plugin.reconfigure({"label": "x" * 65, "secnds": 3})
        assert set(caught.value.fields) == {"label", "secnds"}
        assert plugin.config["label"] == "b"
    async with nodes.running(home) as node:
        assert (await node.config("misbehaving"))["label"] == "b"
        other = await node.load("misbehaving", instance="second")
        assert other.config["label"] == "plain"
        first = await node.load("misbehaving", {"seconds": 2})
        assert (first.config["label"], first.config["seconds"]) == ("b", 2)
        with pytest.raises(node_errors.ConflictError):
            await node.load("misbehaving", {"label": "c"})
        assert await node.load("misbehaving") is first


async def test_a_reload_keeps_every_setting(home: Path) -> None:
    async with nodes.running(home) as node:
        plugin = await node.load("misbehaving", {"label": "kept"}, concurrency=2, is_monitor=True)
        await plugin.disable()
        before = await plugin.stats()
        await plugin.reload()
        after = await plugin.stats()
        assert after["pid"] != before["pid"]
        assert plugin.is_enabled is False
        await plugin.enable()
        assert (await plugin.call("where"))["label"] == "kept"
        assert plugin.options.concurrency == 2
        assert plugin.options.is_monitor is True
        assert plugin.state is states.State.READY


async def test_several_plugins_load_side_by_side_and_one_failure_is_a_value(home: Path) -> None:
    async with nodes.running(home) as node:
        loaded = await node.load_many(
            [
                "misbehaving",
                {"plugin": "misbehaving", "instance": "two", "concurrency": 3},
                {"plugin": "misbehaving", "instance": "bad", "config": {"at_initialize": "raise"}},
                "nobody",
            ]
        )
        assert isinstance(loaded["bad"], PluginError)
        assert isinstance(loaded["nobody"], node_errors.NotFoundError)
        assert [each.id for each in node.instances()] == ["misbehaving", "two"]
        with pytest.raises(PluginError):
            await node.load_many(
                [
                    "misbehaving",
                    {"plugin": "misbehaving", "instance": "three"},
                    {"plugin": "misbehaving", "instance": "bad", "config": {"at_initialize": "raise"}},
                ],
                fail_fast=True,
                at_once=1,
            )
        assert [each.id for each in node.instances()] == ["misbehaving", "two"]
        await node.unload_many(["misbehaving", "two"])
        assert node.instances() == []


async def test_a_plugin_has_a_directory_of_its_own_that_stays(home: Path) -> None:
    for _ in range(2):
        async with nodes.running(home) as node:
            plugin = await node.load("misbehaving")
            gc.collect()
            path = home / "data" / "misbehaving" / "notes"
            assert await plugin.call("write_file", path=str(path)) == ""
            elsewhere = await plugin.call("write_file", path=str(home / "data" / "notes"))
            assert "Read-only" in elsewhere or "ermission" in elsewhere or "No such" in elsewhere
    assert path.read_bytes() == b"was here\n" * 2


async def test_options_that_do_not_fit_are_refused_all_at_once(home: Path) -> None:
    async with nodes.running(home) as node:
        with pytest.raises(InputError) as caught:
            await node.load("misbehaving", concurency=3, spare="yes", memory_bytes=1, env={"A": 1})
        assert set(caught.value.fields) == {"concurency", "spare", "memory_bytes", "env.A"}
        with pytest.raises(node_errors.UsageError) as refused:
            await node.load("misbehaving", writable=[str(home)])
        assert refused.value.code == "instance.grant_refused"
        assert node.instances() == []


async def test_cancelling_a_call_that_waits_behind_others_costs_them_nothing(home: Path) -> None:
    nodes.register(home, "one-at-a-time", class_name="Behaving")
    async with nodes.running(home, cancel_grace_s=0.2) as node:
        for name in ("one-at-a-time", "misbehaving"):
            # More than the plugin can run at once, whatever the instance would allow.
            plugin = await node.load(name, concurrency=0)
            running = [plugin.start("work", seconds=1.5) for _ in range(66)]
            running[-1].cancel()
            with pytest.raises(CancelledError):
                await running[-1].result(timeout_s=0.5)
            assert await running[0] >= 1.5
            await plugin.unload()
