"""Measures the durable queue through the public API: every job is on disk before it is acknowledged.

Run as a program; see `lines.serve`. Each measure has a home of its own, so that none pays for another's rows.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import toft
from toft.bench import homes, lines
from toft.host import process_tree

LANES = 2
SUBMISSIONS = 20_000
JOBS = 6_000
TICKS, TICK_S = 40, 0.12
IDLE_S = 5.0
FAR_S = 86_400.0
TERMINAL = ("completed", "failed", "cancelled", "interrupted")


class Jobs:
    """The durable queue as a contender.

    Args:
        folder: Where homes are made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.homes = 0

    def home(self) -> Path:
        """Return a home of its own for a measure, with the plugins installed."""
        self.homes += 1
        return homes.make(self.folder / str(self.homes), homes.ECHO, homes.MANY)

    def submissions(self) -> Mapping[str, float]:
        """Let 64 callers submit jobs of tomorrow, each waiting until its last one is on disk."""

        async def many(node: Any) -> float:
            left = SUBMISSIONS

            async def one_after_another() -> None:
                nonlocal left
                while left > 0:
                    left -= 1
                    await node.jobs.submit(homes.MANY, {"payload": lines.PAYLOAD}, delay_s=FAR_S)

            start = time.perf_counter()
            await asyncio.gather(*(one_after_another() for _ in range(lines.OUTSTANDING)))
            return SUBMISSIONS / (time.perf_counter() - start)

        return {"submit_per_s_64": self._with_node(many)}

    def jobs(self) -> Mapping[str, float]:
        """Let 64 callers each submit a job and wait for its end, one after another."""

        async def many(node: Any) -> float:
            await _run(node)
            left = JOBS

            async def one_after_another() -> None:
                nonlocal left
                while left > 0:
                    left -= 1
                    await _run(node)

            start = time.perf_counter()
            await asyncio.gather(*(one_after_another() for _ in range(lines.OUTSTANDING)))
            return JOBS / (time.perf_counter() - start)

        return {"jobs_per_s": self._with_node(many)}

    def roundtrip(self) -> Mapping[str, float]:
        """Submit one job, wait for its end, and again."""

        async def one_by_one(node: Any) -> list[float]:
            seconds = []
            for _ in range(550):
                start = time.perf_counter()
                await _run(node)
                seconds.append(time.perf_counter() - start)
            return seconds[50:]

        seconds = self._with_node(one_by_one)
        return {
            "roundtrip_p50_ms": statistics.median(seconds) * 1e3,
            "roundtrip_p99_ms": lines.percentile(seconds, 0.99) * 1e3,
        }

    def cancel_job(self) -> Mapping[str, float]:
        """Cancel a job that listens, until a subscriber has heard of its end."""

        async def cancelled(node: Any) -> float:
            job = await node.jobs.submit(homes.ECHO, action="wait")
            seconds = 0.0
            async with contextlib.aclosing(node.jobs.watch(job=job.id)) as events:
                async for event in events:
                    if event.type == "progress":
                        start = time.perf_counter()
                        await node.jobs.cancel(job.id)
                    elif event.type == "state" and event.data["to"] in TERMINAL:
                        assert event.data["to"] == "cancelled", event
                        seconds = time.perf_counter() - start
                        break
            return seconds

        async def several(node: Any) -> list[float]:
            return [await cancelled(node) for _ in range(7)]

        return {"cancel_ms": statistics.median(self._with_node(several)) * 1e3}

    def events(self) -> Mapping[str, float]:
        """Let a plugin report its clock, and look at the clock when a subscriber has it."""

        async def heard(node: Any) -> list[float]:
            job = await node.jobs.submit(homes.ECHO, {"count": TICKS, "pause_s": TICK_S}, action="tick")
            seconds = []
            async with contextlib.aclosing(node.jobs.watch(job=job.id)) as events:
                async for event in events:
                    if event.type == "progress":
                        seconds.append(time.monotonic() - float(event.data["message"]))
                    elif event.type == "state" and event.data["to"] in TERMINAL:
                        break
            assert len(seconds) > TICKS // 2, seconds
            return seconds

        return {"event_p99_ms": lines.percentile(self._with_node(heard), 0.99) * 1e3}

    def idle(self) -> Mapping[str, float]:
        """Look at a daemon that has nothing to do."""
        with homes.daemon(self.folder / "idle") as found:
            pid = found.pid
            time.sleep(1.0)
            before, start = _cpu_s(pid), time.perf_counter()
            time.sleep(IDLE_S)
            busy = (_cpu_s(pid) - before) / (time.perf_counter() - start)
            return {"idle_rss_mb": lines.rss_mb(pid), "idle_cpu_percent": busy * 100}

    def million(self) -> Mapping[str, float]:
        """Claim out of a million jobs that could all run, and look at a daemon that has them."""
        home = self.home()
        command = [sys.executable, "-m", "toft.bench.million", str(home), homes.MANY]
        told = subprocess.run(command, check=True, capture_output=True, text=True)
        with homes.daemon(home) as found:
            time.sleep(1.0)
            return {
                "claim_p99_ms_1m": json.loads(told.stdout)["claim_p99_ms"],
                "rss_1m_mb": lines.rss_mb(found.pid),
            }

    def _with_node(self, use: Callable[[Any], Awaitable[Any]]) -> Any:
        home = self.home()

        async def run() -> Any:
            async with _opened(home) as node:
                return await use(node)

        return asyncio.run(run())


@contextlib.asynccontextmanager
async def _opened(home: Path) -> AsyncIterator[Any]:
    async with toft.open_node(home=home, lanes=LANES) as node:
        yield node


async def _run(node: Any) -> None:
    job = await node.jobs.submit(homes.MANY, {"payload": lines.PAYLOAD})
    ended = await node.jobs.wait(job.id)
    if ended.state != "completed":
        raise AssertionError(f"{ended.state}: {ended.error}")


def _cpu_s(pid: int) -> float:
    """Return the processor time of a daemon and what belongs to it."""
    own = process_tree.read(pid)
    found = [own, *process_tree.descendants(pid)] if own is not None else []
    return sum(stat.cpu_ticks for stat in found) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure what is asked for on stdin, in homes that are removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="toft-bench-") as name:
        lines.serve(Jobs(Path(name)))


if __name__ == "__main__":
    main()
