"""Chunks of rows as central takes them: bounded names and bytes, a disk that is full, who is cut off."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.test_central import URL, join
from tests.unit.test_central_memory import Frail

from toft.central import ingest
from toft.central.ingest import Ingest
from toft.central.nodes import Node
from toft.central.room import Central
from toft.central.rows import Question, Rows
from toft.kernel import clock as clocks
from toft.kernel import errors
from toft.managed import protocol
from toft.store import database


@pytest.fixture
async def node(store: database.Database) -> Node:
    central = await Central(store, [URL], clock=clocks.ManualClock()).open()
    joined, _, _ = await join(central)
    return joined


def body_of(number: int, size: int = 0) -> bytes:
    return b'{"n": %d, "x": "%s"}\n' % (number, b"y" * size)


async def take(taking: Ingest, node: Node, number: int, size: int = 0) -> bool:
    body = body_of(number, size)
    name = protocol.chunk_key("logs", "file", number, body)
    return await taking.take(node, "logs", name, body, counted=lambda: None)


async def numbers(store: database.Database, node: Node) -> list[int]:
    found, _ = await Rows(store).read(node, "logs", Question(most=1000))
    return [each.value["n"] for each in found]


async def test_so_many_chunks_are_known_again_and_older_ones_are_new(
    store: database.Database, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "NAMES", 10)
    taking = Ingest(store)
    for number in range(11):
        assert await take(taking, node, number)
    assert not await take(taking, node, 1)
    assert not await take(taking, node, 10)
    assert await take(taking, node, 0)
    assert await numbers(store, node) == [*range(11), 0]


async def test_bytes_are_bounded_and_counted_anew_after_a_restart(
    store: database.Database, node: Node
) -> None:
    for number in range(40):
        # Another process each time knows only what is in the table.
        assert await take(Ingest(store, kept_bytes=10_000), node, number, 980)
    kept = await numbers(store, node)
    assert kept == list(range(40 - len(kept), 40))
    assert 8 <= len(kept) <= 10
    taking = Ingest(store, kept_bytes=10_000)
    for number in range(40, 80):
        await take(taking, node, number, 980)
        assert 8 <= len(await numbers(store, node)) <= 10
    await take(taking, node, 80, 50_000)
    assert await numbers(store, node) == [80], "the newest is there, however large it is"


async def test_a_full_disk_leaves_nothing_half_and_the_chunk_comes_again(
    store: database.Database, node: Node
) -> None:
    frail = Frail(store)
    taking = Ingest(frail)
    frail.full_at = 0
    with pytest.raises(errors.UnavailableError):
        await take(taking, node, 1)
    assert await numbers(store, node) == []
    assert await take(taking, node, 1)
    assert not await take(taking, node, 1)
    assert await numbers(store, node) == [1]


async def test_who_is_cut_off_while_it_is_written_is_told_the_same_later(
    store: database.Database, node: Node
) -> None:
    frail = Frail(store)
    taking = Ingest(frail)
    frail.cancelled_at = 0
    frail.task = asyncio.ensure_future(take(taking, node, 1))
    await asyncio.wait({frail.task})
    assert frail.task.cancelled()
    assert not await take(taking, node, 1), "it had been written"
    assert await numbers(store, node) == [1]


async def test_the_same_chunk_at_once_is_new_once(store: database.Database, node: Node) -> None:
    taking = Ingest(store)
    found = await asyncio.gather(*(take(taking, node, 1) for _ in range(10)))
    assert sorted(found) == [False] * 9 + [True]
    assert await numbers(store, node) == [1]


async def test_what_counts_too_much_is_not_written(store: database.Database, node: Node) -> None:
    def counted() -> None:
        raise errors.UnavailableError("too much", code="too_many_requests")

    taking = Ingest(store)
    body = body_of(1)
    name = protocol.chunk_key("logs", "file", 1, body)
    with pytest.raises(errors.UnavailableError):
        await taking.take(node, "logs", name, body, counted=counted)
    assert await numbers(store, node) == []
    await take(taking, node, 1)
    assert not await taking.take(node, "logs", name, body, counted=counted), "what is known is not counted"
