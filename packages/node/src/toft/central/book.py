"""The rollouts there are: in memory for whoever is served, on disk for good; a change is one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from toft.central import audit, ledger, writing
from toft.central.documents import Document, Documents
from toft.central.ledger import Placed, Record
from toft.central.nodes import Node, Nodes
from toft.central.rollouts import Stage, State
from toft.kernel import clock as clocks
from toft.kernel import errors
from toft.store import database

KEPT = 200
"""The most that one list has."""


class Book:
    """All of them.

    Args:
        store: The database.
        nodes: Who there is.
        documents: What is published.
        clock: The time.
    """

    def __init__(
        self,
        store: database.Store,
        nodes: Nodes,
        documents: Documents,
        *,
        clock: clocks.Clock = clocks.SYSTEM,
    ) -> None:
        self._store = store
        self._nodes = nodes
        self._documents = documents
        self._clock = clock
        self._records: dict[str, Record] = {}
        self._by_document: dict[str, Record] = {}
        self._attempts: dict[tuple[str, int], int] = {}
        self.changing = asyncio.Lock()
        """Held by whoever decides on what stands here and writes down what follows."""
        self.changed: list[Callable[[], None]] = []
        """Told whenever a rollout stands otherwise than before."""

    async def open(self) -> None:
        """Read what there is."""
        records = await self._store.read(ledger.read_open)
        self._attempts = await self._store.read(ledger.read_attempts)
        for each in records:
            self._note(each)

    def choose(self, node: Node, document: Document) -> tuple[int | None, int]:
        """Return which revision of a document a node is to have, and which attempt at it that is."""
        record = self._by_document.get(document.id)
        if record is not None:
            place = record.places.get(node.id)
            if place is not None and place.stage is not Stage.SKIPPED:
                return record.number, record.attempt
        if document.published is None:
            return None, 0
        return document.published, self._attempts.get((document.id, document.published), 0)

    def begun(self) -> list[Record]:
        """Return those that serve nodes, and of what ended the last one of each document."""
        return [each for each in self._records.values() if each.state is not State.DRAFT]

    def serving(self) -> list[Record]:
        """Return those that decide what some nodes are given."""
        return list(self._by_document.values())

    def of_document(self, document: Document) -> Record | None:
        """Return the rollout that a document is in."""
        return self._by_document.get(document.id)

    def attempts(self, document: Document, number: int) -> int:
        """Return how often a revision was rolled out."""
        return self._attempts.get((document.id, number), 0)

    def about(self, document: Document) -> Iterator[Node]:
        """Yield the nodes that a document is about and that may have it."""
        for node in self._nodes.of(document.tenant):
            if node.state == "active" and self._is_about(document, node):
                yield node

    def _is_about(self, document: Document, node: Node) -> bool:
        if document.scope == "group":
            group = self._documents.group_of(node)
            return group is not None and group.name == document.target
        return document.scope == "tenant" or document.target == node.id

    async def get(self, tenant: str, id: str) -> Record:
        """Return a rollout with its nodes.

        Raises:
            NotFoundError: There is none of that id.
        """
        known = self._records.get(id)
        if known is not None and known.tenant == tenant:
            return known
        found = await self._store.read(lambda connection: ledger.find(connection, tenant, id))
        if found is None:
            raise errors.NotFoundError(
                f"there is no rollout {id[:80]!r}", code="rollout.not_found", hint="toft central rollout list"
            )
        return found

    async def list(
        self, tenant: str, *, document: str = "", before: str = "", most: int = 50
    ) -> Sequence[Record]:
        """Return the rollouts of a tenant, the newest first, without their nodes."""
        most = min(max(1, most), KEPT)
        return await self._store.read(
            lambda connection: ledger.listed(connection, tenant, document=document, before=before, most=most)
        )

    async def add(self, record: Record, *, by: str) -> None:
        """Write down a new one."""
        told = {name: getattr(record, name) for name in ("document", "number", "previous", "is_emergency")}
        told["rules"] = record.rules.to_dict()
        action = "rollout.create" if record.state is State.DRAFT else "rollout.start"

        def write(connection: database.Connection) -> None:
            ledger.insert(connection, record)
            self._audit(connection, record, action, by, told)

        def written() -> None:
            self._attempts[record.document, record.number] = record.attempt
            self._note(record)
            self._tell()

        await self._commit(write, written)

    async def place(self, record: Record, places: Mapping[str, Placed], *, by: str) -> None:
        """Write down to whom the revision is offered from now on, and who is left out."""
        offered = [id for id, each in places.items() if each.stage is not Stage.SKIPPED]
        skipped = [id for id, each in places.items() if each.stage is Stage.SKIPPED]

        def write(connection: database.Connection) -> None:
            ledger.put(connection, record.id, places)
            self._audit(
                connection,
                record,
                "rollout.offer",
                by,
                {"wave": record.wave, "nodes": offered, "skipped": skipped},
            )

        await self._commit(write, lambda: self._put(record, places))

    async def observe(self, record: Record, places: Mapping[str, Placed]) -> None:
        """Write down how far some nodes are."""
        await self._commit(
            lambda connection: ledger.put(connection, record.id, places), lambda: self._put(record, places)
        )

    def _put(self, record: Record, places: Mapping[str, Placed]) -> None:
        record.places.update(places)
        self._tell()

    async def change(self, record: Record, action: str, by: str, values: Mapping[str, Any]) -> None:
        """Write down how a rollout stands, and let those look again to whom that makes a difference.

        Raises:
            ConflictError: It stands otherwise than this record says.
        """

        def write(connection: database.Connection) -> None:
            self._write_change(connection, record, action, by, values)

        def written() -> None:
            self._changed(record, values)
            if not record.is_serving:
                for id in record.reached:
                    self._wake(self._nodes.find(id))

        await self._commit(write, written)

    async def finish(self, record: Record, *, by: str) -> None:
        """Give the revision to everybody, those included whom nobody has heard of."""
        document = self._documents.get(record.tenant, record.document)
        values = {"state": State.DONE, "reason": "", "ended_at": self._clock.now()}

        def write(connection: database.Connection) -> None:
            self._write_change(connection, record, "rollout.done", by, values)
            ledger.publish(connection, document.id, record.number)

        def written() -> None:
            document.published = record.number
            self._changed(record, values)
            for node in list(self.about(document)):
                self._wake(node)

        await self._commit(write, written)

    def _write_change(
        self, connection: database.Connection, record: Record, action: str, by: str, values: Mapping[str, Any]
    ) -> None:
        if not ledger.change(connection, record, values):
            raise errors.ConflictError(
                f"{record.id} has changed meanwhile",
                code="rollout.state",
                details={"rollout": record.id},
                hint=f"toft central rollout show {record.id}",
            )
        told = {name: str(each) if isinstance(each, State) else each for name, each in values.items()}
        self._audit(connection, record, action, by, {**told, "number": record.number})

    def _changed(self, record: Record, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            setattr(record, name, value)
        self._note(record)
        self._tell()

    def _note(self, record: Record) -> None:
        """Keep what may still change what nodes are given, and the last one of each document."""
        self._records[record.id] = record
        if record.is_serving:
            self._by_document[record.document] = record
        elif self._by_document.get(record.document) is record:
            del self._by_document[record.document]
        newest = max(each.id for each in self._records.values() if each.document == record.document)
        ended = (State.DONE, State.ABORTED)
        for each in list(self._records.values()):
            if each.document == record.document and each.state in ended and each.id != newest:
                del self._records[each.id]

    def _wake(self, node: Node | None) -> None:
        if node is not None:
            self._nodes.tell(node)

    async def _commit(self, work: Callable[[database.Connection], None], then: Callable[[], None]) -> None:
        await writing.commit(self._store, work, lambda _: then())

    def _tell(self) -> None:
        for each in self.changed:
            each()

    def _audit(
        self,
        connection: database.Connection,
        record: Record,
        action: str,
        by: str,
        details: Mapping[str, Any],
    ) -> None:
        entry = audit.Entry(tenant=record.tenant, actor=by, action=action, subject=record.id, details=details)
        audit.add(connection, self._clock.now(), entry)
