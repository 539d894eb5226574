"""Measures huey on SQLite with fsync on: its consumer in this process, two workers."""

import logging
import pathlib
import statistics
import sys
import tempfile
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))

import huey
import lines

TASKS = 3000
WORKERS = 2


class Peer:
    def __init__(self, folder):
        logging.getLogger("huey").setLevel(logging.ERROR)
        self.folder = folder
        self.made = 0

    def queue(self):
        """A queue of its own for each measure: what one leaves behind must not slow the next."""
        self.made += 1
        app = huey.SqliteHuey(filename=str(self.folder / f"{self.made}.db"), fsync=True)

        @app.task()
        def echo(payload):
            return payload

        return app, echo

    def submissions(self):
        # Its callers share one writer lock; one alone is the fastest, so that is what it is given.
        _, echo = self.queue()
        start = time.perf_counter()
        for _ in range(TASKS):
            echo(lines.PAYLOAD)
        return {"submit_per_s_64": TASKS / (time.perf_counter() - start)}

    def jobs(self):
        # Everything is submitted first, and its workers are processes: so it is fastest.
        app, echo = self.queue()
        start = time.perf_counter()
        for _ in range(TASKS):
            echo(lines.PAYLOAD)
        consumer = app.create_consumer(
            workers=WORKERS, worker_type="process", initial_delay=0.001, max_delay=0.01, periodic=False
        )
        consumer.start()
        while app.result_count() < TASKS:
            time.sleep(0.01)
        seconds = time.perf_counter() - start
        consumer.stop(graceful=True)
        return {"jobs_per_s": TASKS / seconds}

    def roundtrip(self):
        app, echo = self.queue()
        consumer = app.create_consumer(workers=WORKERS, periodic=False)
        consumer.start()
        seconds = lines.time_each(
            lambda: echo(lines.PAYLOAD).get(blocking=True, backoff=1, max_delay=0.001), 40, warm=2
        )
        consumer.stop(graceful=True)
        return {
            "roundtrip_p50_ms": statistics.median(seconds) * 1e3,
            "roundtrip_p99_ms": lines.percentile(seconds, 0.99) * 1e3,
        }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="toft-bench-", ignore_cleanup_errors=True) as name:
        lines.serve(Peer(pathlib.Path(name)))
