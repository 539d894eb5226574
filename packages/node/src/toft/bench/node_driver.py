"""Measures toft through its public API, with everything a user gets: checks, limits, bookkeeping, isolation.

Run as a program; see `lines.serve`. Figures of the blocking facade and of the asynchronous node come from two
nodes with a home each, so that neither has the other's work on its event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import toft
from toft.bench import homes, lines
from toft.host import process_tree
from toft.plugins.plugin_errors import CancelledError

CALLS = 2000
CHUNKS = 20_000
MOVES = 7
GONE_WITHIN_S = 20.0


class Node:
    """toft as a contender.

    Args:
        node: A blocking node.
        home: Where an asynchronous one is opened when it is measured.
    """

    def __init__(self, node: Any, home: Path) -> None:
        self.node = node
        self.home = home
        node.installed.add(homes.project(homes.ECHO))
        self.echo = node.load(homes.ECHO)
        self.echo.call(payload=lines.PAYLOAD)

    def call(self) -> Mapping[str, float]:
        """Time single calls, through both doors."""
        blocking = lines.time_each(lambda: self.echo.call(payload=lines.PAYLOAD), CALLS)

        async def many(echo: Any) -> float:
            seconds = []
            for _ in range(CALLS):
                start = time.perf_counter()
                await echo.call(payload=lines.PAYLOAD)
                seconds.append(time.perf_counter() - start)
            return statistics.median(seconds[50:]) * 1e6

        return {**lines.call_figures(blocking), "call_async_p50_us": self._with_async_node(homes.ECHO, many)}

    def open_calls(self) -> Mapping[str, float]:
        """Keep 64 calls open on one worker."""
        count = CALLS * 4

        async def many(echo: Any) -> float:
            left = count

            async def one_after_another() -> None:
                nonlocal left
                while left > 0:
                    left -= 1
                    await echo.call(payload=lines.PAYLOAD)

            start = time.perf_counter()
            await asyncio.gather(*(one_after_another() for _ in range(lines.OUTSTANDING)))
            return count / (time.perf_counter() - start)

        return {"calls_per_s_64": self._with_async_node(homes.MANY, many)}

    def stream(self) -> Mapping[str, float]:
        """Take a stream of small chunks."""

        async def take(echo: Any) -> float:
            start = time.perf_counter()
            count = 0
            async for _ in echo.stream("chunks", count=CHUNKS):
                count += 1
            assert count == CHUNKS
            return count / (time.perf_counter() - start)

        return {"stream_chunks_per_s": self._with_async_node(homes.ECHO, take)}

    def move(self) -> Mapping[str, float]:
        """Move a big array each way."""
        import numpy  # noqa: PLC0415 - the node does not need it, and its memory would be counted as the host's

        self.node.installed.add(homes.project(homes.BLOCKS))
        blocks = self.node.load(homes.BLOCKS)
        try:
            numbers = lines.BIG_BYTES // 4
            array = numpy.ones(numbers, numpy.float32)
            to = lines.time_each(lambda: blocks.call("take", block=array), MOVES, warm=2)
            back = lines.time_each(lambda: blocks.call("give", numbers=numbers), MOVES, warm=2)
        finally:
            blocks.unload()
        return {"to_worker_100mb_mb_s": lines.rate_mb_s(to), "from_worker_100mb_mb_s": lines.rate_mb_s(back)}

    def cold_start(self) -> Mapping[str, float]:
        """Load an instance and get its first answer."""
        seconds = []
        for number in range(5):
            start = time.perf_counter()
            fresh = self.node.load(homes.ECHO, instance=f"cold-{number}")
            fresh.call(payload=lines.PAYLOAD)
            seconds.append(time.perf_counter() - start)
            fresh.unload()
        return {"cold_start_ms": statistics.median(seconds) * 1e3}

    def zygote_start(self) -> Mapping[str, float]:
        """Replace the worker of an instance whose imports a zygote holds."""
        forked = self.node.load(homes.ECHO, instance="zygote", zygote=True)
        try:
            seconds = lines.time_each(forked.reload, 7, warm=2)
            forked.call(payload=lines.PAYLOAD)
        finally:
            forked.unload()
        return {"zygote_start_ms": statistics.median(seconds) * 1e3}

    def cancel(self) -> Mapping[str, float]:
        """Cancel a call that listens."""
        return {"cancel_ms": statistics.median(self._cancelled("wait", None) for _ in range(5)) * 1e3}

    def force_cancel(self) -> Mapping[str, float]:
        """Cancel a call that hears nothing, until the instance answers again."""
        return {"force_cancel_ms": statistics.median(self._cancelled("hang", 0.0) for _ in range(3)) * 1e3}

    def host_kill(self) -> Mapping[str, float]:
        """Kill a host in the middle of a call in C, and time how long anything of it is there."""
        command = [sys.executable, "-m", "toft.bench.doomed_host", str(self.home)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as host:
            assert host.stdout is not None
            expected = int(host.stdout.readline())
            found = process_tree.descendants(host.pid)
            if len(found) < expected:
                raise AssertionError(f"{len(found)} processes where {expected} were to be killed")
            start = time.perf_counter()
            host.kill()
            while _alive(found):
                if time.perf_counter() - start > GONE_WITHIN_S:
                    raise AssertionError(f"still there after {GONE_WITHIN_S:g} s: {_alive(found)}")
                time.sleep(0.001)
            return {"host_kill_gone_s": time.perf_counter() - start}

    def memory(self) -> Mapping[str, float]:
        """Look at the memory of an idle worker and of this process."""
        return {
            "worker_rss_mb": lines.rss_mb(self.echo.stats()["pid"]),
            "host_rss_mb": lines.rss_mb(os.getpid()),
        }

    def _cancelled(self, action: str, grace_s: float | None) -> float:
        handle = self.echo.start(action)
        while handle.progress is None:
            time.sleep(0.001)
        start = time.perf_counter()
        handle.cancel(grace_s=grace_s)
        with contextlib.suppress(CancelledError):
            handle.result(timeout_s=30)
        if grace_s is not None:
            self.echo.call(payload=lines.PAYLOAD)
        return time.perf_counter() - start

    def _with_async_node(self, plugin: str, use: Callable[[Any], Awaitable[float]]) -> float:
        async def run() -> float:
            async with toft.open_node(home=self.home) as node:
                if not self.home.joinpath("plugins", plugin).exists():
                    await node.installed.add(homes.project(plugin))
                echo = await node.load(plugin)
                await echo.call(payload=lines.PAYLOAD)
                return await use(echo)

        return asyncio.run(run())


def _alive(found: Sequence[process_tree.Stat]) -> list[int]:
    """Return which processes are still the same ones and more than an entry somebody has to read."""
    now = {stat.pid: stat for stat in process_tree.scan()}
    same = (
        now[stat.pid]
        for stat in found
        if stat.pid in now and now[stat.pid].started_ticks == stat.started_ticks
    )
    return [stat.pid for stat in same if stat.state not in "ZX"]


def main() -> None:
    """Measure what is asked for on stdin, in a home that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="toft-bench-") as name:
        home = Path(name)
        with toft.connect(home=home / "blocking") as node:
            lines.serve(Node(node, home / "async"))


if __name__ == "__main__":
    main()
