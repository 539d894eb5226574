"""Measures cjm-plugin-system with a plugin that echoes; its files are made in a folder of its own."""

import asyncio
import json
import os
import pathlib
import statistics
import sys
import tempfile
import threading
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))

import lines
from cjm_plugin_system.core.config import CJMConfig, set_config
from cjm_plugin_system.core.errors import PluginCancelledError
from cjm_plugin_system.core.manager import PluginManager
from cjm_plugin_system.core.queue import JobQueue

PLUGIN = """
import time
from cjm_plugin_system.core.interface import PluginInterface


class Echo(PluginInterface):
    name = "bench-echo"
    version = "1.0"

    def initialize(self, config=None):
        pass

    def execute(self, payload=None, wait=False):
        while wait:
            self.check_cancel()
            time.sleep(0.001)
        return payload

    def execute_stream(self, count=0):
        for number in range(count):
            yield {"n": number, "text": "chunk"}

    def get_config_schema(self):
        return {}

    def get_current_config(self):
        return {}
"""


class Peer:
    def __init__(self, folder):
        (folder / "bench_echo.py").write_text(PLUGIN)
        config = CJMConfig(data_dir=folder)
        set_config(config)
        config.manifests_dir.mkdir(parents=True)
        manifest = {
            "name": "bench-echo", "version": "1.0", "module": "bench_echo", "class": "Echo",
            "interface": "cjm_plugin_system.core.interface.PluginInterface",
            "python_path": sys.executable, "env_vars": {"PYTHONPATH": str(folder)},
        }  # fmt: skip
        (config.manifests_dir / "bench-echo.json").write_text(json.dumps(manifest))
        self.manager = PluginManager(search_paths=[config.manifests_dir])
        (self.meta,) = self.manager.discover_manifests()
        self.load()

    def load(self):
        assert self.manager.load_plugin(self.meta)

    def echo(self):
        return self.manager.execute_plugin("bench-echo", payload=lines.PAYLOAD)

    def call(self):
        figures = lines.call_figures(lines.time_each(self.echo, 40, warm=3))

        async def many():
            seconds = []
            for _ in range(40):
                start = time.perf_counter()
                await self.manager.execute_plugin_async("bench-echo", payload=lines.PAYLOAD)
                seconds.append(time.perf_counter() - start)
            return seconds

        return {**figures, "call_async_p50_us": statistics.median(asyncio.run(many())) * 1e6}

    def open_calls(self):
        count = 128

        async def one(free):
            async with free:
                await self.manager.execute_plugin_async("bench-echo", payload=lines.PAYLOAD)

        async def many():
            free = asyncio.Semaphore(lines.OUTSTANDING)
            await asyncio.gather(*(one(free) for _ in range(count)))

        start = time.perf_counter()
        asyncio.run(many())
        return {"calls_per_s_64": count / (time.perf_counter() - start)}

    def jobs(self):
        count = 30

        async def many(queue):
            start = time.perf_counter()
            numbers = [await queue.submit("bench-echo", payload=lines.PAYLOAD) for _ in range(count)]
            for number in numbers:
                await queue.wait_for_job(number)
            return count / (time.perf_counter() - start)

        return {"jobs_per_s": self.with_queue(many)}

    def roundtrip(self):
        async def one_by_one(queue):
            seconds = []
            for _ in range(20):
                start = time.perf_counter()
                await queue.wait_for_job(await queue.submit("bench-echo", payload=lines.PAYLOAD))
                seconds.append(time.perf_counter() - start)
            return seconds

        seconds = self.with_queue(one_by_one)
        return {
            "roundtrip_p50_ms": statistics.median(seconds) * 1e3,
            "roundtrip_p99_ms": lines.percentile(seconds, 0.99) * 1e3,
        }

    def cancel_job(self):
        async def cancelled(queue):
            seconds = []
            for _ in range(3):
                number = await queue.submit("bench-echo", wait=True)
                await asyncio.sleep(0.5)
                start = time.perf_counter()
                await queue.cancel(number)
                await queue.wait_for_job(number, timeout=30)
                seconds.append(time.perf_counter() - start)
            return statistics.median(seconds)

        return {"cancel_ms": self.with_queue(cancelled) * 1e3}

    def with_queue(self, use):
        async def run():
            queue = JobQueue(self.manager)
            await queue.start()
            try:
                return await use(queue)
            finally:
                await queue.stop()

        return asyncio.run(run())

    def stream(self):
        count = 2000

        async def take():
            async for _ in self.manager.execute_plugin_stream("bench-echo", count=count):
                pass

        start = time.perf_counter()
        asyncio.run(take())
        return {"stream_chunks_per_s": count / (time.perf_counter() - start)}

    def cold_start(self):
        seconds = []
        for _ in range(3):
            self.manager.unload_plugin("bench-echo")
            start = time.perf_counter()
            self.load()
            self.echo()
            seconds.append(time.perf_counter() - start)
        return {"cold_start_ms": statistics.median(seconds) * 1e3}

    def cancel(self):
        seconds = []
        for _ in range(3):
            ended = threading.Event()

            def wait(ended=ended):
                try:
                    self.manager.execute_plugin("bench-echo", wait=True)
                except PluginCancelledError:
                    ended.set()

            threading.Thread(target=wait).start()
            time.sleep(0.3)
            start = time.perf_counter()
            self.manager.get_plugin("bench-echo").cancel()
            ended.wait(10)
            seconds.append(time.perf_counter() - start)
        return {"cancel_ms": statistics.median(seconds) * 1e3}

    def memory(self):
        pid = self.manager.get_plugin("bench-echo").process.pid
        return {"worker_rss_mb": lines.rss_mb(pid), "host_rss_mb": lines.rss_mb(os.getpid())}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="toft-bench-") as name:
        peer = Peer(pathlib.Path(name))
        lines.serve(peer)
        peer.manager.unload_all()
