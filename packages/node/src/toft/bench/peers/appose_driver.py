"""Measures Appose the way its documentation shows it: a Python service, one task per call."""

import os
import pathlib
import statistics
import sys
import threading
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))

import appose
import lines
import numpy

ECHO = "task.outputs['result'] = payload"
WAIT = """
import time
task.update("waiting")
while not task.cancel_requested:
    time.sleep(0.001)
task.cancel()
"""


def service():
    folder = str(pathlib.Path(sys.executable).parent)
    os.environ["PATH"] = folder + os.pathsep + os.environ["PATH"]
    return appose.system(folder).python()


class Peer:
    def __init__(self):
        self.service = service()
        self.echo()

    def echo(self):
        return self.service.task(ECHO, {"payload": lines.PAYLOAD}).wait_for().outputs["result"]

    def call(self):
        return lines.call_figures(lines.time_each(self.echo, 500))

    def open_calls(self):
        count, free, done = 1500, threading.Semaphore(lines.OUTSTANDING), []

        def heard(event):
            if event.response_type.is_terminal():
                done.append(event)
                free.release()

        def take():
            if not free.acquire(timeout=5):
                raise TimeoutError(f"{len(done)} of {count} tasks were answered, then none for 5 s")

        start = time.perf_counter()
        for _ in range(count):
            take()
            # In turn on the main thread: with a thread for each, answers get lost.
            task = self.service.task(ECHO, {"payload": lines.PAYLOAD}, queue="main")
            task.listen(heard)
            task.start()
        for _ in range(lines.OUTSTANDING):
            take()
        return {"calls_per_s_64": count / (time.perf_counter() - start)}

    def move(self):
        with appose.NDArray("float32", [lines.BIG_BYTES // 4]) as array:
            source = numpy.ones(lines.BIG_BYTES // 4, numpy.float32)

            def give():
                numpy.copyto(array.ndarray(), source)
                self.service.task("task.outputs['n'] = a.ndarray().nbytes", {"a": array}).wait_for()

            return {"to_worker_100mb_mb_s": lines.rate_mb_s(lines.time_each(give, 5, warm=2))}

    def cold_start(self):
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            with service() as fresh:
                fresh.task(ECHO, {"payload": lines.PAYLOAD}).wait_for()
                seconds.append(time.perf_counter() - start)
        return {"cold_start_ms": statistics.median(seconds) * 1e3}

    def cancel(self):
        seconds = []
        for _ in range(5):
            begun, ended = threading.Event(), threading.Event()
            task = self.service.task(WAIT)
            task.listen(
                lambda event, begun=begun, ended=ended: (
                    ended if event.response_type.is_terminal() else begun
                ).set()
            )
            task.start()
            begun.wait(10)
            time.sleep(0.02)
            start = time.perf_counter()
            task.cancel()
            ended.wait(10)
            seconds.append(time.perf_counter() - start)
        return {"cancel_ms": statistics.median(seconds) * 1e3}

    def memory(self):
        pid = self.service.task("import os\ntask.outputs['pid'] = os.getpid()").wait_for().outputs["pid"]
        return {"worker_rss_mb": lines.rss_mb(pid), "host_rss_mb": lines.rss_mb(os.getpid())}


if __name__ == "__main__":
    lines.serve(Peer())
