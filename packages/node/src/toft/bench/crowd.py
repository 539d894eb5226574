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
PLUGINS = 10


async def fill(home: Path, count: int = JOBS) -> None:
    """Write the jobs into the database of a home that no daemon has."""
    store = database.Database(home / "node.db")
    await store.open({"plugins": "toft.plugins", "jobs": "toft.jobs"})
    said = scripts.read_queries("toft.bench", "crowd.sql")

    def write(connection: Any) -> None:
        # A job begins pending, says a rule; these begin as they ended.
        rules = connection.execute(said["rules"]).fetchall()
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
