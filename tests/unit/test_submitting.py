"""What is checked before a job is stored is looked up once for all who ask at the same moment."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.waiting import eventually_async

from toft.dispatch import submitting
from toft.kernel import errors
from toft.plugins import node as nodes


class Installed:
    """Counts who looks, and lets them wait."""

    def __init__(self) -> None:
        self.looks = 0
        self.actions: dict[str, Any] = {"execute": {"input": {"parameters": {"text": {"type": "string"}}}}}
        self.error: Exception | None = None
        self.gate = asyncio.Event()

    async def get(self, plugin: str) -> Any:
        self.looks += 1
        actions, error = dict(self.actions), self.error
        await self.gate.wait()
        if error is not None:
            raise error
        return SimpleNamespace(runtime=SimpleNamespace(actions=actions))


def checker() -> tuple[submitting.Checker, Installed]:
    installed = Installed()

    async def of(plugin: str, instance: str) -> Any:
        return SimpleNamespace(enabled=True)

    async def find(instance: str) -> Any:
        return SimpleNamespace(plugin="a")

    rooms = SimpleNamespace(records=SimpleNamespace(of=of, find=find))
    node = SimpleNamespace(installed=installed, find=lambda instance: None, rooms=rooms)
    return submitting.Checker(cast(nodes.Node, node), lambda instance: None), installed


async def looked(installed: Installed, times: int) -> None:
    await eventually_async(lambda: installed.looks >= times)


async def test_a_hundred_at_once_look_once() -> None:
    checks, installed = checker()
    asked = [asyncio.ensure_future(checks.packed("a", "a", None, {"text": "b"})) for _ in range(100)]
    await looked(installed, 1)
    asked[0].cancel()  # the first of them, on whose behalf it is looked
    installed.gate.set()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert set(answers[1:]) == {b'{"text":"b"}'}
    assert installed.looks == 1


async def test_an_error_is_told_to_all_and_looked_at_again() -> None:
    checks, installed = checker()
    installed.error = errors.NotFoundError("no plugin a", code="plugin.not_found")
    installed.gate.set()
    told = await asyncio.gather(
        *(checks.packed("a", "a", None, {"text": "b"}) for _ in range(3)), return_exceptions=True
    )
    assert [type(each) for each in told] == [errors.NotFoundError] * 3
    installed.error = None
    assert await checks.packed("a", "a", None, {"text": "b"}) == b'{"text":"b"}'
    assert installed.looks == 2


async def test_who_asks_after_a_change_is_not_told_what_was_before_it() -> None:
    checks, installed = checker()
    before = asyncio.ensure_future(checks.packed("a", "a", "other", {}))
    await looked(installed, 1)
    installed.actions["other"] = {"input": {"parameters": {}}}
    checks.forget()
    after = asyncio.ensure_future(checks.packed("a", "a", "other", {}))
    await looked(installed, 2)
    installed.gate.set()
    with pytest.raises(Exception, match="other"):
        await before
    assert await after == b"{}"
    assert await checks.packed("a", "a", "other", {}) == b"{}"
    assert installed.looks == 2


@pytest.mark.parametrize("name", ["../x", "", "a/b", "A", "a" * 65, "a\0b"])
async def test_an_instance_that_nothing_can_be_called_is_refused_before_a_job_is_stored(name: str) -> None:
    checks, installed = checker()
    installed.gate.set()
    with pytest.raises(errors.UsageError) as refused:
        await checks.packed("a", name, None, {"text": "b"})
    assert refused.value.code == "name.invalid"


async def test_no_more_is_remembered_however_many_instances_are_submitted_to() -> None:
    checks, installed = checker()
    installed.gate.set()
    for number in range(submitting._MOST_KNOWN + 50):
        await checks.packed("a", f"a{number}", None, {"text": "b"})
    assert len(checks._known) == submitting._MOST_KNOWN
    looks = installed.looks
    await checks.packed("a", f"a{submitting._MOST_KNOWN + 49}", None, {"text": "b"})
    assert installed.looks == looks
