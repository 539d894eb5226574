"""The yardstick of the queue: bare SQLite that writes one row a step and fsyncs, and runs nothing.

No events, no checks, no workers, no callers: what this machine's disk and SQLite allow one thread. Run as a
program; see `lines.serve`.
"""

from __future__ import annotations

import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from toft.bench import lines

ROWS = 20_000
JOBS = 6_000
LANES = 2
TABLE = """
CREATE TABLE jobs (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, state TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX ready ON jobs (seq) WHERE state = 'pending';
"""
SUBMIT = "INSERT INTO jobs (id, state, body) VALUES (?, 'pending', ?)"
CLAIM = (
    "UPDATE jobs SET state = 'running' WHERE seq IN "
    "(SELECT seq FROM jobs WHERE state = 'pending' ORDER BY seq LIMIT ?) RETURNING seq"
)
FINISH = "UPDATE jobs SET state = 'completed', body = ? WHERE seq = ?"


class Yardstick:
    """One database, used as a queue by one thread.

    Args:
        folder: Where it is.
    """

    def __init__(self, folder: Path) -> None:
        self.connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=FULL")
        self.connection.executescript(TABLE)
        self.body = json.dumps(lines.PAYLOAD)
        self.count = 0

    def submit(self, count: int) -> None:
        """Write rows in one commit."""
        rows = [(f"job-{self.count + number}", self.body) for number in range(count)]
        self.count += count
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.executemany(SUBMIT, rows)
        self.connection.execute("COMMIT")

    def turn(self, finished: list[tuple[str, int]]) -> list[tuple[str, int]]:
        """Finish what ran and claim what is next, in one commit."""
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.executemany(FINISH, finished)
        claimed = self.connection.execute(CLAIM, (LANES,)).fetchall()
        self.connection.execute("COMMIT")
        return [(self.body, seq) for (seq,) in claimed]

    def submissions(self) -> Mapping[str, float]:
        """Write as many rows a commit as there are callers who wait."""
        start = time.perf_counter()
        for _ in range(ROWS // lines.OUTSTANDING):
            self.submit(lines.OUTSTANDING)
        seconds = time.perf_counter() - start
        self.drain()
        return {"submit_per_s_64": ROWS / seconds}

    def jobs(self) -> Mapping[str, float]:
        """Write rows, then let two lanes of nothing take them."""
        start = time.perf_counter()
        for _ in range(JOBS // lines.OUTSTANDING):
            self.submit(lines.OUTSTANDING)
        self.drain()
        return {"jobs_per_s": JOBS / (time.perf_counter() - start)}

    def drain(self) -> None:
        """Take everything that waits."""
        running = self.turn([])
        while running:
            running = self.turn(running)

    def roundtrip(self) -> Mapping[str, float]:
        """Write, claim and finish one row after the other."""

        def one() -> None:
            self.submit(1)
            self.turn(self.turn([]))

        seconds = lines.time_each(one, 500)
        return {
            "roundtrip_p50_ms": statistics.median(seconds) * 1e3,
            "roundtrip_p99_ms": lines.percentile(seconds, 0.99) * 1e3,
        }


def main() -> None:
    """Measure what is asked for on stdin."""
    with tempfile.TemporaryDirectory(prefix="toft-bench-") as name:
        lines.serve(Yardstick(Path(name)))


if __name__ == "__main__":
    main()
