"""A node in a process of its own that runs one job, and may kill itself at one commit of the job's life.

    python jobs_driver.py HOME POINT JOB

POINT is `before LABEL` or `after LABEL`, the commit that stores the event of that name, or the
change of state `from>to`; or `never`. JOB is JSON: arguments of `Jobs.submit`, `cancel` for one that is to be
cancelled once it runs; or `null` to take up only what is there. Says `acknowledged ID`, then `ended STATE`.
"""

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import nodes

from toft.kernel import errors
from toft.store import database

EVENTS = "SELECT type, data FROM events WHERE cursor > ?"
NEWEST = "SELECT coalesce(max(cursor), 0) FROM events"


def say(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


def labels(connection: sqlite3.Connection, since: int) -> set[str]:
    found = set()
    for kind, text in connection.execute(EVENTS, (since,)):
        data = json.loads(text)
        found.add(f"{data['from']}>{data['to']}" if kind == "state" else kind)
    return found


def arm(when: str, label: str) -> None:
    """Make the database deadly."""
    honest = database.Database.write

    async def write(self: database.Database, work: Callable[[sqlite3.Connection], Any]) -> Any:
        met: list[bool] = []

        def watched(connection: sqlite3.Connection) -> Any:
            since = connection.execute(NEWEST).fetchone()[0]
            result = work(connection)
            met[:] = [label in labels(connection, since)]
            if met[0] and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        result = await honest(self, watched)
        if met and met[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    database.Database.write = write  # type: ignore[method-assign]


async def main() -> None:
    home, point, text = sys.argv[1:]
    when, _, label = point.partition(" ")
    if when != "never":
        arm(when, label)
    wanted = json.loads(text)
    async with nodes.running(Path(home)) as node:
        await node.jobs.open()
        if wanted is None:
            await asyncio.sleep(600)
        cancel = wanted.pop("cancel", False)
        job = await node.jobs.submit("misbehaving", **wanted)
        say("acknowledged", job.id)
        if cancel:
            await running(node, job.id)
            await node.jobs.cancel(job.id)
        ended = await node.jobs.wait(job.id, 60)
        say("ended", str(ended.state))


async def running(node: Any, job_id: str) -> None:
    async for event in node.jobs.watch(job=job_id, after=0):
        if event.type == "progress":
            return
    raise errors.UnavailableError("it never ran")


asyncio.run(main())
