"""What a plugin says from a thread of its own reaches the call that runs, and so does the cancel."""

import asyncio
from pathlib import Path

import pytest
from tests.waiting import eventually_async
from tests.workers import worker

from toft_sdk import CancelledError

SOURCE = '''
from concurrent.futures import ThreadPoolExecutor
from toft_sdk import Plugin, action
import time


class Pool(Plugin):
    """Works in threads."""

    def execute(self, count: int) -> list:
        def work(number):
            self.report_progress(number / count, f"step {number}")
            self.report_usage(steps=1)
            return number

        with ThreadPoolExecutor(1) as pool:
            return list(pool.map(work, range(count)))

    @action
    def endless(self) -> None:
        def work():
            while True:
                self.check_cancel()
                time.sleep(0.005)

        with ThreadPoolExecutor(1) as pool:
            pool.submit(work).result()
'''


@pytest.fixture
def modules(tmp_path: Path) -> str:
    (tmp_path / "pool_plugin.py").write_text(SOURCE)
    return str(tmp_path)


async def test_progress_and_usage_from_a_thread_belong_to_the_call(modules: str) -> None:
    told: list[str] = []
    used: list[object] = []
    async with worker("Pool", module="pool_plugin", paths=(modules,)) as run:
        options = {"on_progress": lambda fraction, text: told.append(text), "on_usage": used.append}
        assert await run.call("execute", options, count=3) == [0, 1, 2]
        await eventually_async(lambda: len(used) == 3)
        assert told[-1] == "step 2"
        assert run.texts() == []


async def test_a_cancel_reaches_a_thread_of_the_call(modules: str) -> None:
    async with worker("Pool", module="pool_plugin", paths=(modules,)) as run:
        number = run.connection.next_call_id()
        call = asyncio.ensure_future(run.call("endless", {"call_id": number}))
        await eventually_async(lambda: run.connection.ping())
        run.connection.cancel(number)
        with pytest.raises(CancelledError):
            await asyncio.wait_for(call, 5)
        assert await run.call("execute", count=1) == [0]
