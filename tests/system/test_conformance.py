"""`toft plugin test` on real workers: what it passes, what it names, and what takes its own process down."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.interpreters import interpreter
from tests.workers import worker

from toft.plugins import conformance
from toft.plugins.wire.connection import Connection

GOOD = '''
from toft_sdk import Plugin


class Good(Plugin):
    """Counts."""

    cancel_within_s = 1.0
    examples = [{"arguments": {"until": 40}, "result": list(range(40))}]

    def execute(self, until: int):
        import time
        for number in range(until):
            time.sleep(0.02)
            self.report_progress(number / until)
            yield number
'''
DEAF = '''
import time
from toft_sdk import Plugin


class Deaf(Plugin):
    """Sleeps."""

    cancel_within_s = 0.01
    examples = [{"arguments": {"seconds": 0.5}}]

    def execute(self, seconds: float) -> None:
        time.sleep(seconds)
        self.check_cancel()
'''
CRASHING = "import os\nos._exit(3)\n"
STUCK = (
    GOOD
    + """
    def initialize(self):
        1 / 0
"""
)


class Opener:
    """Opens workers in one interpreter, with one directory of modules."""

    def __init__(self, python: str, modules: Path) -> None:
        self._options = {"python": python, "paths": (str(modules),)}

    @contextlib.asynccontextmanager
    async def __call__(self, module: str, class_name: str | None) -> AsyncIterator[Connection]:
        async with worker(class_name, module=module, **self._options) as running:  # type: ignore[arg-type]
            yield running.connection


async def examine(tmp_path: Path, source: str, version: str = "3.11") -> dict[str, conformance.Finding]:
    (tmp_path / "subject_plugin.py").write_text(source)
    opener = Opener(interpreter(version), tmp_path)
    return {each.check: each for each in await conformance.examine(opener, "subject_plugin")}


@pytest.mark.parametrize("version", ["3.8", "3.13"])
async def test_a_good_plugin_passes_in_its_environment_and_from_outside(tmp_path: Path, version: str) -> None:
    found = await examine(tmp_path, GOOD, version)
    assert [each for each in found.values() if not each.ok] == []
    assert found["stops when cancelled in a worker"].evidence.startswith("after ")
    assert found["example 1 holds in a worker"].evidence == "execute returned, and streamed 40 chunks"
    assert found["errors cross the boundary typed"].evidence.startswith("call.arguments")


async def test_a_plugin_that_does_not_stop_is_named_on_both_sides(tmp_path: Path) -> None:
    found = await examine(tmp_path, DEAF)
    assert [name for name, each in found.items() if not each.ok] == [
        "stops when cancelled",
        "stops when cancelled in a worker",
    ]


async def test_a_plugin_that_ends_its_process_is_a_finding(tmp_path: Path) -> None:
    found = await examine(tmp_path, CRASHING)
    assert list(found) == ["survives the checks"]
    assert not found["survives the checks"].ok
    assert found["survives the checks"].next


async def test_a_plugin_that_cannot_start_is_named_with_its_trace(tmp_path: Path) -> None:
    found = await examine(tmp_path, STUCK)
    assert "ZeroDivisionError" in found["starts and cleans up"].evidence
    assert "ZeroDivisionError" in found["works in a worker"].evidence
