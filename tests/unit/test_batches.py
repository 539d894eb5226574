"""Several plugins loaded by one call: what becomes of the others when one does not load."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from toft.kernel import errors
from toft.plugins import batches


class FakeNode:
    """Has what it was told to load, and refuses what is called `bad`."""

    def __init__(self, *present: str) -> None:
        self.loaded = set(present)
        self.most = 0
        self._starting = 0

    async def load(
        self,
        plugin: str,
        config: Mapping[str, Any] | None = None,
        *,
        instance: str | None = None,
        **options: Any,
    ) -> str:
        self._starting += 1
        self.most = max(self.most, self._starting)
        await asyncio.sleep(0)
        self._starting -= 1
        if plugin == "bad":
            raise errors.UnavailableError("it does not start")
        self.loaded.add(instance or plugin)
        return instance or plugin

    async def unload_many(self, names: Sequence[str]) -> None:
        self.loaded.difference_update(names)


async def test_an_error_stands_in_the_place_of_what_did_not_load() -> None:
    node = FakeNode()
    found = await batches.load_many(
        node, ["a", ("b", {}), {"name": "c", "instance": "d"}, "bad"], at_once=2, undo_but=None
    )
    assert isinstance(found.pop("bad"), errors.UnavailableError)
    assert found == {"a": "a", "b": "b", "d": "d"}
    assert node.most == 2


async def test_the_first_error_ends_what_this_call_loaded_and_nothing_else() -> None:
    node = FakeNode("before")
    with pytest.raises(errors.UnavailableError):
        await batches.load_many(node, ["before", "new", "bad"], at_once=1, undo_but={"before"})
    assert node.loaded == {"before"}


async def test_a_mapping_that_names_no_plugin_is_refused_before_anything_is_loaded() -> None:
    node = FakeNode()
    with pytest.raises(errors.UsageError, match="which plugin"):
        await batches.load_many(node, ["a", {"config": {}}], at_once=1, undo_but=None)
    assert node.loaded == set()
