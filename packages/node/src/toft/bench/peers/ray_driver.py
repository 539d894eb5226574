"""Measures Ray: one actor on a local cluster of this machine."""

import os
import pathlib
import statistics
import sys
import tempfile
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))
os.environ.setdefault("RAY_DEDUP_LOGS", "0")
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import lines
import numpy
import ray


class Echo:
    """Knows nothing of this file's imports: it is sent to a worker that has no path to them."""

    def __init__(self, numbers):
        self.block = numpy.ones(numbers, numpy.float32)

    def echo(self, payload):
        return payload

    def chunks(self, count):
        for number in range(count):
            yield {"n": number, "text": "chunk"}

    def take(self, array):
        return array.nbytes

    def give(self):
        return self.block

    def pid(self):
        return os.getpid()


class Peer:
    def __init__(self, folder):
        ray.init(
            num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=1_500_000_000,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
        )  # fmt: skip
        self.actor_class = ray.remote(num_cpus=0)(Echo)
        self.actor = self.actor_class.remote(lines.BIG_BYTES // 4)
        ray.get(self.actor.echo.remote(1))

    def call(self):
        return lines.call_figures(
            lines.time_each(lambda: ray.get(self.actor.echo.remote(lines.PAYLOAD)), 500)
        )

    def open_calls(self):
        count = 3000
        start = time.perf_counter()
        waiting = [self.actor.echo.remote(lines.PAYLOAD) for _ in range(lines.OUTSTANDING)]
        sent = len(waiting)
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=min(16, len(waiting)))
            ray.get(done)
            more = min(len(done), count - sent)
            waiting += [self.actor.echo.remote(lines.PAYLOAD) for _ in range(more)]
            sent += more
        return {"calls_per_s_64": count / (time.perf_counter() - start)}

    def jobs(self):
        """Not durable: nothing of it outlives the cluster."""
        actors = [self.actor, self.actor_class.remote(1)]
        ray.get([actor.echo.remote(1) for actor in actors])
        count = 3000
        start = time.perf_counter()
        ray.get([actors[number % 2].echo.remote(lines.PAYLOAD) for number in range(count)])
        seconds = time.perf_counter() - start
        ray.kill(actors[1])
        return {"jobs_per_s": count / seconds}

    def roundtrip(self):
        seconds = lines.time_each(lambda: ray.get(self.actor.echo.remote(lines.PAYLOAD)), 500)
        return {
            "roundtrip_p50_ms": statistics.median(seconds) * 1e3,
            "roundtrip_p99_ms": lines.percentile(seconds, 0.99) * 1e3,
        }

    def stream(self):
        count = 2000
        start = time.perf_counter()
        for chunk in self.actor.chunks.options(num_returns="streaming").remote(count):
            ray.get(chunk)
        return {"stream_chunks_per_s": count / (time.perf_counter() - start)}

    def move(self):
        array = numpy.ones(lines.BIG_BYTES // 4, numpy.float32)
        to = lines.time_each(lambda: ray.get(self.actor.take.remote(ray.put(array))), 5, warm=2)
        back = lines.time_each(lambda: ray.get(self.actor.give.remote()), 5, warm=2)
        return {"to_worker_100mb_mb_s": lines.rate_mb_s(to), "from_worker_100mb_mb_s": lines.rate_mb_s(back)}

    def cold_start(self):
        # A runtime environment of its own, so that no worker that is already warm is taken.
        seconds = []
        for number in range(3):
            start = time.perf_counter()
            variables = {"BENCH": f"{os.getpid()}-{number}-{time.monotonic_ns()}"}
            actor = self.actor_class.options(runtime_env={"env_vars": variables}).remote(1)
            ray.get(actor.echo.remote(lines.PAYLOAD))
            seconds.append(time.perf_counter() - start)
            ray.kill(actor)
        return {"cold_start_ms": statistics.median(seconds) * 1e3}

    def memory(self):
        return {
            "worker_rss_mb": lines.rss_mb(ray.get(self.actor.pid.remote())),
            "host_rss_mb": lines.rss_mb(os.getpid()),
        }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="toft-bench-", ignore_cleanup_errors=True) as name:
        lines.serve(Peer(name))
        ray.shutdown()
