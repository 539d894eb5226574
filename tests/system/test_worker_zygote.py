"""Workers forked from a process that holds the imports: the same in all they do, ready in milliseconds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.leaks import leaks_checked
from tests.system.test_keeper_processes import keeper
from tests.workers import PROBES, Running, interpreter_argv

from toft.host.forked import Forked
from toft.host.keeper import Keeper, SpawnSpec
from toft.plugins.errors import WorkerLostError
from toft.plugins.supervision.zygote import Zygote
from toft.plugins.wire.connection import Connection
from toft.plugins.wire.frames import LogLine, Welcome
from toft.plugins.wire.segments import SegmentPool
from toft_sdk.errors import PluginError

__all__ = ["keeper", "leaks_checked"]
pytestmark = pytest.mark.usefixtures("leaks_checked")
POOL = SegmentPool()


def welcome(**more: Any) -> Welcome:
    return Welcome(module="probes", class_name="Forkable", paths=(PROBES,), **more)


@contextlib.asynccontextmanager
async def zygotes(
    keeper: Keeper, class_name: str = "Forkable"
) -> AsyncIterator[tuple[Zygote, list[LogLine]]]:
    ours, theirs = socket.socketpair()
    connection = Connection(ours, segments=POOL, on_log=lambda line: None, on_lost=lambda error: None)
    stdout, stderr = connection.output_fds
    with theirs:
        spec = SpawnSpec(
            argv=interpreter_argv(),
            env={"PATH": os.environ["PATH"]},
            cwd="/",
            fds=(theirs.fileno(),),
            stdout=stdout,
            stderr=stderr,
        )
        process = await keeper.spawn(spec)
    try:
        await connection.open(
            Welcome(module="probes", class_name=class_name, paths=(PROBES,), is_zygote=True)
        )
        await connection.request("load", {"describe": False})
        yield Zygote(process, connection)
    finally:
        await process.end()
        connection.close()


async def born(zygote: Zygote) -> tuple[Running, Forked]:
    ours, theirs = socket.socketpair()
    lines: list[LogLine] = []
    ends: list[Any] = []
    connection = Connection(ours, segments=POOL, on_log=lines.append, on_lost=ends.append)
    with theirs:
        child = await zygote.fork(theirs)
    await connection.open(welcome())
    await connection.request("load", {"describe": False})
    await connection.request("initialize", {"config": {}})
    return Running(connection, child, lines, ends), child  # type: ignore[arg-type]


async def test_forked_workers_answer_print_and_end_each_by_itself(keeper: Keeper) -> None:
    async with zygotes(keeper) as zygote:
        first, first_process = await born(zygote)
        second, second_process = await born(zygote)
        assert await first.call("execute", value=(1, b"x")) == (1, b"x")
        assert await second.call("say", text="of the second") == len("of the second")
        assert second.texts() == ["of the second"]
        assert first.texts() == []
        with pytest.raises(WorkerLostError):
            await first.call("say_and_die", text="last words")
        assert first.texts() == ["last words"]
        assert (await asyncio.wait_for(first_process.wait(), 5)).signal == signal.SIGKILL
        assert await second.call("execute", value=2) == 2
        second.connection.close()
        assert (await asyncio.wait_for(second_process.wait(), 5)).code == 0
        first.connection.close()


async def test_a_forked_worker_is_ready_soon(keeper: Keeper) -> None:
    async with zygotes(keeper) as zygote:
        times = []
        for _ in range(5):
            begun = time.perf_counter()
            run, process = await born(zygote)
            assert await run.call("execute", value=1) == 1
            times.append(time.perf_counter() - begun)
            run.connection.close()
            await process.wait()
        assert min(times) < 0.1  # an order of magnitude; the bench has the figure


async def test_a_plugin_that_does_not_say_it_may_be_forked_is_refused(keeper: Keeper) -> None:
    with pytest.raises(PluginError) as caught:
        async with zygotes(keeper, "Probe"):
            pass
    assert caught.value.code == "plugin.not_fork_safe"


async def test_children_end_with_their_zygote(keeper: Keeper) -> None:
    async with zygotes(keeper) as zygote:
        run, process = await born(zygote)
        call = asyncio.ensure_future(run.call("loop", seconds=60.0))
        await run.until_it_runs()
    with pytest.raises(WorkerLostError):
        await call
    await asyncio.wait_for(process.wait(), 5)
    run.connection.close()
