"""Measures the daemon over HTTP: submissions, lists out of a million, event streams, pages in a browser.

Run as a program; see `lines.serve`. A daemon is started for each measure; the million jobs are made once.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from toft.bench import crowd, homes, http_load, lines, pages, streams
from toft.client import place as places

WARM = 200
FAR_S = 86_400.0
TOLD = 20
PASSES = 2
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Scale:
    """How much is done.

    Attributes:
        submissions: Jobs that are submitted.
        streams: Open event streams.
        backlog: Events that the one that never reads does not read.
        crowd: Jobs that lists look through.
    """

    submissions: int = 6_000
    streams: int = 2_000
    backlog: int = 1_500
    crowd: int = crowd.JOBS


SMALL = Scale(submissions=300, streams=60, crowd=20_000)


class Api:
    """The HTTP interface as a contender.

    Args:
        folder: Where homes are made.
        scale: How much is done; less in tests.
    """

    def __init__(self, folder: Path, scale: Scale) -> None:
        self._folder = folder
        self._scale = scale

    @functools.cached_property
    def _home(self) -> Path:
        return homes.make(self._folder / "home", homes.ECHO, homes.MANY)

    @functools.cached_property
    def _crowd(self) -> Path:
        home = self._folder / "crowd"
        home.mkdir()
        (home / "settings.toml").write_text("jobs_keep_count = 10_000_000\n")
        # A process of its own: its memory is not this one's.
        command = [sys.executable, "-m", "toft.bench.crowd", str(home), str(self._scale.crowd)]
        subprocess.run(command, check=True, capture_output=True)
        return home

    def submissions(self) -> Mapping[str, float]:
        """Let 64 clients submit jobs of tomorrow, each waiting until its last one is on disk."""
        job = {"plugin": homes.MANY, "arguments": {"payload": lines.PAYLOAD}, "delay_s": FAR_S}
        request = http_load.request("POST", "/v1/jobs", job)
        count = self._scale.submissions

        async def many(address: str) -> float:
            askers = await http_load.connect(address, lines.OUTSTANDING)
            await http_load.share(askers, itertools.repeat(request, WARM), status=201)
            return await http_load.share(askers, itertools.repeat(request, count), status=201)

        with _asked(self._home) as (address, _):
            return {"submit_http_per_s": count / asyncio.run(many(address))}

    def lists(self) -> Mapping[str, float]:
        """Ask for pages out of a million jobs by every combination of filters, one after the other."""

        async def many(address: str) -> list[float]:
            (asker,) = await http_load.connect(address, 1)
            await asker.ask_all(itertools.islice(_lists(self._scale.crowd), 50), status=200)
            asker.seconds.clear()
            for _ in range(PASSES):
                await asker.ask_all(_lists(self._scale.crowd), status=200)
            return asker.seconds

        with _asked(self._crowd) as (address, _):
            return {"list_p99_ms": lines.percentile(asyncio.run(many(address)), 0.99) * 1e3}

    def streams(self) -> Mapping[str, float]:
        """Open 2,000 event streams, of which one never reads; everybody else must hear everything."""
        job = {"plugin": homes.MANY, "arguments": {"payload": lines.PAYLOAD}, "delay_s": FAR_S}
        one = http_load.request("POST", "/v1/jobs", job)
        backlog = http_load.request("POST", "/v1/jobs/batch", {"jobs": [job] * self._scale.backlog})

        async def many(address: str, pid: int) -> float:
            before = lines.rss_mb(pid)
            deaf = await streams.open_all(address, 1, is_deaf=True)
            (asker,) = await http_load.connect(address, 1)
            # More than the kernel keeps for it: from here on it would hold up whoever waits for it.
            await asker.ask_all([backlog], status=201)
            others = await streams.open_all(address, self._scale.streams - 1)
            await asker.ask_all([one] * TOLD, status=201)
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(*(each.has(TOLD) for each in others))
            after = lines.rss_mb(pid)
            for each in (*deaf, *others):
                each.close()
            asker.close()
            return after - before

        with _asked(self._home) as (address, pid):
            asyncio.run(_warm(address, one))
            return {"sse_2k_rss_mb": asyncio.run(many(address, pid))}

    def events(self) -> Mapping[str, float]:
        """Let a plugin report its clock to a page in a browser."""
        with _asked(self._home) as (address, _):
            return asyncio.run(pages.measure_events(address, homes.ECHO))

    def page(self) -> Mapping[str, float]:
        """Open the page of a job in a browser."""
        with _asked(self._home) as (address, _):
            return asyncio.run(pages.measure_page(address, homes.ECHO))


async def _warm(address: str, request: bytes) -> None:
    askers = await http_load.connect(address, 1)
    await http_load.share(askers, itertools.repeat(request, WARM), status=201)
    askers[0].close()


def _lists(crowd_size: int) -> Iterator[bytes]:
    """Yield a request for each combination of filters."""
    kinds: tuple[tuple[dict[str, object], ...], ...] = (
        (
            {},
            {"state": "completed"},
            {"state": "failed"},
            {"state": "interrupted"},
            {"state": ["failed", "pending"]},
        ),
        ({}, {"plugin": "crowd-3"}, {"plugin": "not-there"}),
        ({}, {"instance": "crowd-3-1"}),
        ({}, {"error": "worker.died"}),
        ({}, {"limit": 20}),
        ({}, {"before": crowd.job(crowd_size // 2)}),
    )
    for chosen in itertools.product(*kinds):
        query = {name: value for each in chosen for name, value in each.items()}
        yield http_load.request("GET", f"/v1/jobs?{urlencode(query, doseq=True)}")


@contextlib.contextmanager
def _asked(home: Path) -> Iterator[tuple[str, int]]:
    """Run a daemon for the length of a block; yields where it is asked and its process."""
    with homes.daemon(home) as found, places.address(Path(found.socket)) as address:
        yield address, found.pid


def main() -> None:
    """Measure what is asked for on stdin, in homes that are removed afterwards; `small` tries it out."""
    scale = SMALL if "small" in sys.argv[1:] else Scale()
    with tempfile.TemporaryDirectory(prefix="toft-bench-") as name:
        lines.serve(Api(Path(name), scale))


if __name__ == "__main__":
    main()
