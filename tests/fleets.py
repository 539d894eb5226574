"""A central for tests, with nodes that do what a test says without a process or a socket of theirs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from toft.central.documents import Document
from toft.central.launching import Wish
from toft.central.ledger import Record
from toft.central.nodes import Node
from toft.central.room import TENANT, Central
from toft.central.saving import Wish as Layer
from toft.kernel.clock import ManualClock, rfc3339
from toft.store import database

T = TypeVar("T")
URL = "https://central.example:7443"
_QUERIES = database.read_queries("toft.central")


class StoppedError(BaseException):
    """The process was killed."""


class MortalStore:
    """A database whose process dies at one of its transactions, before it is on disk or just after.

    Args:
        store: The real one.
        dies_at: Which of the writes, counted from 0; None for never.
        is_written: It dies after the commit.
    """

    def __init__(
        self, store: database.Database, dies_at: int | None = None, *, is_written: bool = False
    ) -> None:
        self._store = store
        self.dies_at = dies_at
        self.is_written = is_written
        self.writes = 0

    async def read(self, work: Callable[[database.Connection], T]) -> T:
        """Read; the dead read nothing."""
        return await self._store.read(work)

    async def write(self, work: Callable[[database.Connection], T]) -> T:
        """Write, or die."""
        number, self.writes = self.writes, self.writes + 1
        if self.dies_at is not None and (
            number > self.dies_at or (number == self.dies_at and not self.is_written)
        ):
            raise StoppedError
        done = await self._store.write(work)
        if number == self.dies_at:
            raise StoppedError
        return done


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[database.Database]:
    """Open the database of a central for the length of a `with` block."""
    store = database.Database(path)
    await store.open({"central": "toft.central"})
    try:
        yield store
    finally:
        await store.close()


class Fleet:
    """Nodes that ask, take, try and report, each as the test says.

    Args:
        central: Whose nodes they are.
        clock: The time there.
        fate: What becomes of a node that is offered a document that it does not run.
    """

    def __init__(self, central: Central, clock: ManualClock, fate: Callable[[str, str], str]) -> None:
        self.central = central
        self.clock = clock
        self.fate = fate
        self.runs: dict[str, str] = {}
        self.refused: dict[str, tuple[str, int]] = {}
        self.took: dict[str, set[str]] = {}
        self.unsent: dict[str, dict[str, Any]] = {}

    async def add(self, count: int, *, labels: Mapping[str, str] | None = None) -> None:
        """Let nodes join."""
        first = len(self.central.nodes)
        await add_nodes(self.central, range(first, first + count), labels=labels)

    async def turn(self, *, awake: Callable[[str], bool] = lambda id: True) -> None:
        """Let every node that is awake ask once, and report when something became of it."""
        for node in self.central.nodes:
            if node.state == "active" and awake(node.id):
                await self._ask(node)

    async def _ask(self, node: Node) -> None:
        if node.id in self.unsent:
            await self._send(node)
        runs = self.runs.get(node.id, "")
        self.central.nodes.see(node, runs)
        offer = await self.central.offers.offered(node)
        if offer is None or offer.served.etag == runs:
            return
        await self.central.note_offer(node, offer.served.sha256)
        etag = offer.served.etag
        held, attempt = self.refused.get(node.id, ("", 0))
        if held == etag and offer.attempt <= attempt:
            return
        self.took.setdefault(node.id, set()).add(etag)
        match self.fate(node.id, etag):
            case "applied":
                self.runs[node.id] = etag
                self.central.nodes.see(node, etag)
                await self.report(node, etag, "applied")
            case "hangs":
                await self.report(node, etag, "staged")
            case reason:
                self.refused[node.id] = (etag, offer.attempt)
                event = "rejected" if reason == "validation_failed" else "rolled_back"
                await self.report(node, etag, event, reason=reason)

    async def report(self, node: Node, etag: str, event: str, *, reason: str = "") -> None:
        """Let a node say what became of a document."""
        seq = (node.seq or 0) + 1
        said = {"etag": etag, "event": event, "reason": reason, "at": rfc3339(self.clock.now() + seq / 1000)}
        # A report that is not taken is sent again: the node has it on its disk.
        self.unsent[node.id] = {
            "seq": seq,
            "boot_nonce": f"boot{seq}",
            "running": {"etag": self.runs.get(node.id) or None, "revision": None},
            "phase": "staged" if event == "staged" else "idle",
            "history": [said],
        }
        await self._send(node)

    async def _send(self, node: Node) -> None:
        await self.central.reports.take(node, self.unsent[node.id])
        del self.unsent[node.id]


async def add_nodes(
    central: Central, numbers: Iterable[int], *, labels: Mapping[str, str] | None = None
) -> list[Node]:
    """Put nodes there as if they had joined."""
    nodes = [
        Node(
            id=f"node_{number:026d}",
            tenant=TENANT,
            name=f"machine-{number}",
            labels=dict(labels or {}),
            public_key=f"key {number}",
            state="active",
            join_token="jt",
            assigned_group=None,
            created_at=central.clock.now(),
        )
        for number in numbers
    ]
    names = (
        "id", "tenant", "name", "public_key", "state", "join_token", "assigned_group", "hostname", "os",
        "agent_version", "machine_id_hash", "created_at",
    )  # fmt: skip
    rows = [
        {**{name: getattr(node, name) for name in names}, "labels": json.dumps(node.labels)} for node in nodes
    ]
    await central.store.write(
        lambda connection: connection.executemany(_QUERIES["insert_node"], rows).close()
    )
    for node in nodes:
        central.nodes.add(node)
    return nodes


async def save(
    central: Central, lanes: int, *, interval_s: int = 5, scope: str = "tenant", target: str = ""
) -> int:
    """Store a revision, told apart by its lanes; returns its number."""
    layer = {"control": {"urls": [URL], "poll_interval_s": interval_s}, "settings": {"lanes": lanes}}
    done = await central.saving.save(
        Layer(tenant=TENANT, scope=scope, target=target, layer=layer, author="ops")
    )
    return done.number


def document(central: Central, scope: str = "tenant", target: str = "") -> Document:
    """Return a document by its place."""
    found = central.documents.find(TENANT, scope, target)
    assert found is not None
    return found


async def roll_out(central: Central, **wish: Any) -> Record:
    """Begin a rollout of the newest revision."""
    return await central.launching.create(
        Wish(tenant=TENANT, document=document(central).id, by="token:ops", **wish)
    )
