"""Fills the queue of a home with a million jobs that could all run, and claims some of them.

Run as a program with a home and a plugin; prints `{"claim_p99_ms", "submit_s"}`. The queue is used without a
dispatcher, so that what is timed is a claim alone: found, marked as running, committed and fsynced.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from toft.bench import lines
from toft.jobs import queue, records
from toft.store import blobs, database

JOBS = 1_000_000
BATCH = 10_000
CLAIMS = 2_000


async def run(home: Path, plugin: str) -> dict[str, float]:
    """Fill, claim, finish what was claimed."""
    store = database.Database(home / "node.db")
    await store.open({"plugins": "toft.plugins", "jobs": "toft.jobs"})
    try:
        jobs = queue.JobQueue(store, blobs.Blobs(home / "blobs"), randomness=os.urandom)
        await jobs.open()
        try:
            return await _measure(jobs, plugin)
        finally:
            await jobs.close()
    finally:
        await store.close()


async def _measure(jobs: queue.JobQueue, plugin: str) -> dict[str, float]:
    arguments = json.dumps({"payload": lines.PAYLOAD}).encode()
    request = records.Request(plugin=plugin, instance=plugin, arguments=arguments)
    start = time.perf_counter()
    for _ in range(JOBS // BATCH):
        await jobs.submit([request] * BATCH)
    submit_s = time.perf_counter() - start
    seconds = []
    for _ in range(CLAIMS):
        start = time.perf_counter()
        (claimed,) = await jobs.claim(plugin)
        seconds.append(time.perf_counter() - start)
        await jobs.finish(claimed.id, claimed.attempt, records.Outcome(state=records.State.COMPLETED))
    return {"claim_p99_ms": lines.percentile(seconds, 0.99) * 1e3, "submit_s": submit_s}


def main() -> None:
    """Measure, and print what was found."""
    found = asyncio.run(run(Path(sys.argv[1]), sys.argv[2]))
    with os.fdopen(lines.ANSWERS, "w") as answers:
        answers.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
