"""A plugin that is asked how it is, by a gate of a document: whatever it answers, and when it does not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests import nodes
from tests.command_line import CommandLine
from tests.sample_packages import write_project

from toft.daemon.gating import Subject
from toft.managed import document, gates, looks
from toft.managed.gates import Light, Reading

WELL = '''
    """Says how it is as it is told to."""
    import os, time

    from toft_sdk import FatalError, Plugin


    class Well(Plugin):
        """Say how it is."""

        name = "well"

        def execute(self, says: str = "") -> int:
            """Take note of what to say."""
            self.says = says or self.says
            return os.getpid()

        def health(self):
            """Say it."""
            says = self.says
            if says == "raises":
                raise FatalError("the model is gone")
            if says == "breaks":
                return {}["model"]
            if says.startswith("/"):
                open(says, "w").close()
                time.sleep(600)
            if says == "dies":
                os._exit(3)
            return {"true": True, "false": False, "nothing": None, "long": "x" * 9000}.get(says, says)
'''

MANY = '''
    """Takes many calls at once, and hangs when it is asked how it is."""
    import threading

    from toft_sdk import Plugin

    FREE = threading.Event()


    class Many(Plugin):
        """Hang."""

        name = "many"
        concurrency = None
        asked = 0

        def execute(self, free: bool = False) -> int:
            """Return how often it was asked; perhaps end that."""
            if free:
                FREE.set()
            return self.asked

        def health(self):
            """Hang."""
            self.asked += 1
            FREE.wait(600)
            return f"asked {self.asked} times"
'''


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("well")
    toft = CommandLine(directory / "home", directory)
    write_project(directory / "well", "well", {"well.py": WELL})
    write_project(directory / "many", "many", {"many.py": MANY})
    for name in ("well", "many"):
        assert toft("plugin", "add", f"./{name}", "--json").value[0]["name"] == name
    return toft.home


async def seen(subject: Subject, timeout_s: float = 5.0, instance: str = "well") -> Reading:
    """Look at a gate of a document."""
    spec = {"kind": "plugin", "instance": instance, "timeout_s": timeout_s}
    value = {"schema_version": 1, "health": {"gates": {"it": spec}}}
    offered = document.parse(json.dumps(value).encode())
    return (await looks.look(gates.declared(offered), offered, subject, gates.Allowed()))["it"]


async def test_a_plugin_says_itself_how_it_is(home: Path, tmp_path: Path) -> None:
    async with nodes.running(home) as node:
        subject = Subject(SimpleNamespace(node=node))  # type: ignore[arg-type]

        async def told(says: str) -> Reading:
            await well.call(says=says)
            return await seen(subject, 1.0 if says.startswith("/") else 20.0)

        absent = await seen(subject)
        assert absent == Reading(Light.PENDING, "well is not loaded")
        well = await node.load("well")
        assert await told("true") == Reading(Light.GREEN, "is well")
        assert await told("nothing") == Reading(Light.GREEN, "is well")
        assert await told("5 classes") == Reading(Light.GREEN, "5 classes")
        assert await told("false") == Reading(Light.RED, "well says that it is not well")
        assert await told("raises") == Reading(Light.RED, "well says: the model is gone")
        broken = await told("breaks")
        assert (broken.light, "model" in broken.message) == (Light.RED, True)
        assert len((await told("long")).message) == 300
        looking, asked = asyncio.ensure_future(told(str(tmp_path / "asked"))), tmp_path / "asked"
        async with asyncio.timeout(20):
            while not asked.exists():  # noqa: ASYNC110 - another process makes it
                await asyncio.sleep(0.01)
            meanwhile = asyncio.ensure_future(well.call(says="true"))
            assert await looking == Reading(Light.RED, "no answer within 1 s")
            assert await meanwhile, "who waited is not lost with the worker that hung"
            assert await told("true") == Reading(Light.GREEN, "is well")
        assert (await told("dies")).light is Light.RED
        async with asyncio.timeout(20):
            assert await told("true") == Reading(Light.GREEN, "is well"), "and it was begun again"


async def test_one_that_hangs_is_asked_once_and_its_late_answer_counts(home: Path) -> None:
    async with nodes.running(home) as node:
        subject = Subject(SimpleNamespace(node=node))  # type: ignore[arg-type]
        many = await node.load("many")
        for _ in range(3):
            assert await seen(subject, 0.2, "many") == Reading(Light.RED, "no answer within 0.2 s")
        assert await many.call() == 1, "each question that hangs is a thread that is lost"
        looking = asyncio.ensure_future(seen(subject, 20.0, "many"))
        await many.call(free=True)
        assert await looking == Reading(Light.GREEN, "asked 1 times")
        assert await seen(subject, 20.0, "many") == Reading(Light.GREEN, "asked 2 times"), "and then anew"
