"""Many callers, hostile calls and random kills: every call ends, no answer is wrong, nothing is left."""

import asyncio
import collections
import contextlib
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
from tests import nodes
from tests.leaks import leaks_checked
from tests.waiting import eventually_async

from toft.kernel import errors
from toft.plugins.supervision import states
from toft_sdk.errors import PluginError

__all__ = ["leaks_checked"]
pytestmark = pytest.mark.usefixtures("leaks_checked")
SECONDS = 5.0
CALLERS = 16
PATIENCE_S = 60.0


class Crowd:
    """Callers that do all that can be done to some instances, by the dice of one seed."""

    def __init__(self, instances: list[Any], seed: int) -> None:
        self._dice = random.Random(seed)
        self._instances = instances
        self._until = asyncio.get_running_loop().time() + SECONDS
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.wrong: list[Any] = []
        self.killed: set[int] = set()

    async def run(self) -> None:
        """Call and kill until the time is over."""
        async with asyncio.timeout(SECONDS + PATIENCE_S), asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(self._call())
            group.create_task(self._kill())

    async def _call(self) -> None:
        deeds = [self._echo] * 6 + [self._cancel, self._force, self._stream, self._time_out, self._die]
        while asyncio.get_running_loop().time() < self._until:
            deed = self._dice.choice(deeds)
            try:
                await deed(self._dice.choice(self._instances))
                self.outcomes["succeeded"] += 1
            except (PluginError, errors.NodeError) as error:
                self.outcomes[error.code] += 1

    async def _echo(self, plugin: Any) -> None:
        asked = self._dice.random()
        got = await plugin.call("echo", value=asked)
        if got != asked:
            self.wrong.append((asked, got))

    async def _cancel(self, plugin: Any) -> None:
        call = plugin.start("work", seconds=30)
        await asyncio.sleep(self._dice.random() * 0.1)
        call.cancel()
        await call

    async def _force(self, plugin: Any) -> None:
        call = plugin.start("hang", where=self._dice.choice(["c", "python"]))
        await asyncio.sleep(self._dice.random() * 0.1)
        call.cancel(grace_s=self._dice.choice([0, 0.1]))
        await call

    async def _stream(self, plugin: Any) -> None:
        expected = 0
        async with contextlib.aclosing(plugin.stream("chunks", count=300)) as chunks:
            async for chunk in chunks:
                if chunk != expected:
                    self.wrong.append((expected, chunk))
                expected += 1
                if self._dice.random() < 0.003:
                    break

    async def _time_out(self, plugin: Any) -> None:
        await plugin.call_with("work", {"seconds": 30}, timeout_s=self._dice.random() * 0.2)

    async def _die(self, plugin: Any) -> None:
        if self._dice.random() < 0.5:
            await plugin.reload()
        else:
            await plugin.call(self._dice.choice(["segv", "exit_now"]))

    async def _kill(self) -> None:
        while asyncio.get_running_loop().time() < self._until:
            await asyncio.sleep(self._dice.random() * 0.4)
            pid = (await self._dice.choice(self._instances).stats())["pid"]
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                self.killed.add(pid)

    async def deaths_seen(self) -> None:
        """Wait until the node has noticed every kill: a call to a worker that is dead by then is lost."""

        async def all_seen() -> bool:
            return not self.killed & {(await each.stats())["pid"] for each in self._instances}

        await eventually_async(all_seen, PATIENCE_S)


async def test_every_call_ends_once_and_nothing_is_left(toft_home: Path) -> None:
    nodes.register(toft_home)
    seed = int(os.environ.get("TOFT_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
    patience = {"restart_first_s": 0.01, "restart_most_s": 0.1, "crash_limit": 1000, "cancel_grace_s": 0.2}
    async with nodes.running(toft_home, **patience) as node:
        instances = [
            await node.load("misbehaving", instance="one", concurrency=1),
            await node.load("misbehaving", instance="forked", zygote=True),
            await node.load("misbehaving", instance="spared", spare=True),
        ]
        crowd = Crowd(instances, seed)
        await crowd.run()
        assert crowd.wrong == [], f"TOFT_TEST_SEED={seed}"
        assert crowd.outcomes["succeeded"] > 0
        assert set(crowd.outcomes) <= {
            "succeeded",
            "call.cancelled",
            "call.timeout",
            "worker.crashed",
            "worker.exited",
            "worker.killed",
            "worker.lost",
            "worker.replaced",
        }, f"TOFT_TEST_SEED={seed}"
        await crowd.deaths_seen()
        for each in instances:
            async with asyncio.timeout(30):
                assert await each.call("echo", value=each.id) == each.id
            stats = await each.stats()
            assert (stats["running"], stats["waiting"]) == (0, 0), f"TOFT_TEST_SEED={seed}"
            assert each.state is states.State.READY
