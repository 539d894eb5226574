"""Work that takes a while is told step by step, and ends with whoever asked for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from toft.api import progress
from toft.kernel import errors

Told = Callable[[str], None]


class Reader:
    """Somebody who reads an answer until it ends, or goes away after so many messages."""

    def __init__(self, goes_after: int | None = None) -> None:
        self.told: list[Any] = []
        self._goes_after = goes_after
        self._gone = asyncio.Event()

    async def receive(self) -> Any:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.told.append(message)
        if len(self.told) == self._goes_after:
            self._gone.set()

    async def read(self, answer: progress.Steps) -> list[Any]:
        """Return the lines; an empty one is None."""
        await answer({"type": "http"}, self.receive, self.send)
        text = b"".join(each.get("body", b"") for each in self.told).decode()
        return [json.loads(line) if line else None for line in text.split("\n")[:-1]]


async def test_each_step_is_a_line_and_the_last_one_has_the_result() -> None:
    async def work(told: Told) -> Any:
        told("one")
        await asyncio.sleep(0)
        await asyncio.to_thread(told, "two")
        return {"done": [1]}

    reader = Reader()
    assert await reader.read(progress.Steps(work, 201)) == [
        {"kind": "step", "text": "one"},
        {"kind": "step", "text": "two"},
        {"kind": "ended", "result": {"done": [1]}},
    ]
    assert reader.told[0]["status"] == 201


async def test_an_error_is_an_answer_of_its_own_before_the_first_step_and_a_line_after_it() -> None:
    async def at_once(told: Told) -> Any:
        raise errors.ConflictError("taken", code="plugin.exists")

    async def late(told: Told) -> Any:
        told("one")
        await asyncio.sleep(0)
        raise errors.ConflictError("taken", code="plugin.exists", hint="another name")

    reader = Reader()
    with pytest.raises(errors.ConflictError):
        await reader.read(progress.Steps(at_once, 200))
    assert reader.told == []
    [_, last] = await Reader().read(progress.Steps(late, 200))
    assert (last["kind"], last["error"]["code"], last["error"]["status"]) == ("ended", "plugin.exists", 409)


async def test_a_fault_of_the_node_also_ends_the_lines() -> None:
    async def faulty(told: Told) -> Any:
        told("one")
        await asyncio.sleep(0)
        raise IndexError("nobody thought of it")

    [_, last] = await Reader().read(progress.Steps(faulty, 200))
    assert (last["kind"], last["error"]["code"], last["error"]["status"]) == ("ended", "node.fault", 500)


async def test_a_long_silence_is_filled_with_empty_lines() -> None:
    ends = asyncio.Event()

    async def work(told: Told) -> Any:
        await ends.wait()
        return 1

    class Patient(Reader):
        async def send(self, message: Any) -> None:
            await super().send(message)
            if len(self.told) == 4:
                ends.set()

    found = await Patient().read(progress.Steps(work, 200, silence_s=0))
    assert found[:3] == [None, None, None]
    assert found[-1] == {"kind": "ended", "result": 1}


async def test_work_ends_with_whoever_asked_for_it() -> None:
    ended: list[str] = []

    async def work(told: Told) -> Any:
        told("one")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            ended.append("tidied up")
            raise

    await Reader(goes_after=2).read(progress.Steps(work, 200))
    assert ended == ["tidied up"]
