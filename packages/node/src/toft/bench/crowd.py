"""Fills a home with a million jobs, most of them ended, so that lists have something to look through.

Run as a program with a home. They were never submitted: what is timed afterwards is reading alone.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from toft.kernel import clock
from toft.store import database, scripts

JOBS = 1_000_000


def job(number: int) -> str:
    """Return the identifier of a job, counted from 1."""
    return f"job_01J{number:019d}0000"


async def fill(home: Path, count: int = JOBS, *, begins_as_it_ended: bool = True) -> None:
    """Write the jobs into the database of a home that no daemon has.

    Args:
        home: Where.
        count: How many.
        begins_as_it_ended: Suspend the rule that a job begins pending while they are written.
    """
    store = database.Database(home / "node.db")
    await store.open({"plugins": "toft.plugins", "jobs": "toft.jobs"})
    said = scripts.read_queries("toft.bench", "crowd.sql")

    def write(connection: Any) -> None:
        rules = connection.execute(said["rules"]).fetchall() if begins_as_it_ended else []
        for name, _ in rules:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(said["fill"], {"count": count, "now": clock.SYSTEM.now()})
        for _, text in rules:
            connection.execute(text)

    try:
        await store.write(write)
    finally:
        await store.close()


def main() -> None:
    """Fill the home that is named."""
    asyncio.run(fill(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else JOBS))


if __name__ == "__main__":
    main()
