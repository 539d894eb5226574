"""Everything that central is, opened in order; one object for whoever serves it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from toft.central import layers, writing
from toft.central.admission import Admission
from toft.central.book import Book
from toft.central.controller import Controller
from toft.central.documents import Document, Documents, Group
from toft.central.floors import Floors, Move
from toft.central.ingest import KEPT_BYTES, Ingest
from toft.central.launching import Launching
from toft.central.nodes import Node, Nodes
from toft.central.offers import Offers, Served
from toft.central.overviews import Overviews
from toft.central.previews import Previews
from toft.central.reports import Reports
from toft.central.rows import Rows
from toft.central.saving import Saving
from toft.central.tokens import Tokens
from toft.central.trust import Trusts
from toft.central.waiting import SLOTS, Waiting
from toft.kernel import clock as clocks
from toft.kernel import errors, log
from toft.store import database

TENANT = "main"
"""The tenant that is always there; who has only one never names it."""
_QUERIES = database.read_queries("toft.central")
_log = log.get_logger("central")
_SEEN_S = 30.0
_TIDY_S = 600.0
Chosen = Callable[[Node], Sequence[tuple[Document, int]]]


class Central:
    """The server's side of managed nodes.

    Args:
        store: The database, with the tables of `central`.
        urls: By which addresses nodes reach it, the first one first.
        clock: The time.
        slots: How many nodes may wait for a document at a time.
        telemetry_bytes: How much of each signal of a node is kept.
    """

    def __init__(
        self,
        store: database.Store,
        urls: Sequence[str],
        *,
        clock: clocks.Clock = clocks.SYSTEM,
        slots: int = SLOTS,
        telemetry_bytes: int = KEPT_BYTES,
    ) -> None:
        self.store = store
        self.clock = clock
        self.nodes = Nodes(store, clock=clock)
        self.tokens = Tokens(store, clock=clock)
        self.admission = Admission(store, self.nodes, clock=clock)
        self.documents = Documents(store, clock=clock)
        self.trusts = Trusts(store, clock=clock)
        self.offers = Offers(store, self.documents, self.trusts, clock=clock)
        self.previews = Previews(store, self.documents, self.nodes, urls)
        self.saving = Saving(store, self.documents, self.nodes, self.previews, clock=clock)
        self.reports = Reports(store, self.nodes, clock=clock)
        self.rows = Rows(store)
        self.ingest = Ingest(store, clock=clock, kept_bytes=telemetry_bytes)
        self.waiting = Waiting(slots)
        self.rollouts = Book(store, self.nodes, self.documents, clock=clock)
        self.launching = Launching(self.rollouts, self.documents, self.offers, self.previews, clock=clock)
        self.controller = Controller(
            store, self.rollouts, self.nodes, self.documents, self.offers, clock=clock
        )
        self.floors = Floors(store, self.trusts)
        self.overviews = Overviews(store, self.nodes, self.offers, clock=clock)
        self.launching.changed.append(self.controller.stir)
        self.nodes.changed.append(lambda node: self.controller.stir())
        self.reports.taken.append(lambda node, report: self.controller.stir())
        self.nodes.changed.append(self._look_again)
        self.documents.changed.append(self.wake)
        self.trusts.changed.append(self._vouched_anew)

    async def open(self) -> Central:
        """Read what there is."""
        await self.documents.open()
        await self.trusts.open()
        await self.nodes.open()
        await self.admission.open()
        await self.rollouts.open()
        self.offers.choose = self.rollouts.choose
        await self.documents.add_tenant(TENANT, by="central")
        return self

    async def close(self) -> None:
        """Let everybody who waits go, and write down who was seen."""
        self.waiting.close()
        await self.nodes.write_seen()

    async def keep(self) -> None:
        """Write down from time to time who was seen, until cancelled."""
        since_tidied = 0.0
        while True:
            await asyncio.sleep(_SEEN_S)
            try:
                await self.nodes.write_seen()
            except errors.NodeError as error:
                _log.error("seen_not_written", error=str(error))
            since_tidied += _SEEN_S
            if since_tidied >= _TIDY_S:
                self.tidy()
                since_tidied = 0.0

    def tidy(self) -> None:
        """Let go of what nobody shows or is offered any more: it is on disk for whoever asks all the same."""
        self.admission.tidy()
        current = {(each.document, each.number) for each in self.rollouts.serving()}
        for tenant in self.documents.tenants:
            current |= {(each.id, each.published) for each in self.documents.of(tenant) if each.published}
        self.offers.tidy(current)
        self.documents.tidy(current)

    def _look_again(self, node: Node) -> None:
        if node.state == "revoked":
            self.admission.forget(node)
        self.waiting.wake(node.id)

    def _vouched_anew(self, tenant: str) -> None:
        self.offers.forget(tenant)
        self.wake(tenant)

    def wake(self, tenant: str) -> None:
        """Let every node of a tenant look again what it is offered."""
        for node in self.nodes.of(tenant):
            self.waiting.wake(node.id)

    async def publish(self, document: Document, number: int | None, *, by: str) -> None:
        """Let every node have a revision that no rollout has given another one; None takes the layer away.

        Raises:
            ConflictError: A rollout brings another one to some of them, some would have no document with it,
                the tenant's nodes ask for signatures and some are missing, or without the layer a node would
                be given what it must refuse.
        """
        # No rollout begins between the look and what is written.
        async with self.rollouts.changing:
            if number is None:
                self.launching.check_free(document)
                await self._check_moves(
                    self.nodes.of(document.tenant),
                    document.tenant,
                    lambda node: [each for each in self.offers.chosen(node)[0] if each[0] is not document],
                )
            else:
                await self.launching.check_startable(document, number)
            await self.documents.publish(document, number, by=by)

    async def payloads(self, document: Document, number: int) -> list[Served]:
        """Return the bytes that nodes would get with a revision: one for each combination of layers."""
        return await self.launching.payloads(document, number)

    def check_resolves(self, tenant: str, group: str | None, labels: Mapping[str, str]) -> None:
        """Refuse a join token whose nodes would meet no document.

        Raises:
            ConflictError: They would.
        """
        if group is not None:
            self.documents.group(tenant, group)
        node = Node(
            id="",
            tenant=tenant,
            name="",
            labels=dict(labels),
            public_key="",
            state="active",
            join_token="",
            assigned_group=group,
            created_at=0.0,
        )
        if not any(each.published is not None for each in self.documents.of_node(node)):
            raise errors.ConflictError(
                "a node that joins with this would find no document",
                code="central.nothing_published",
                hint="toft central document save FILE --publish, then make the token",
            )

    async def label(
        self, node: Node, labels: Mapping[str, str], *, name: str, group: str | None, by: str
    ) -> None:
        """Give a node other labels, another name, or another group.

        Raises:
            ConflictError: It would be given what it must refuse: older than what it may go back to.
        """
        moved = dataclasses.replace(node, labels=layers.check_labels(labels), assigned_group=group)
        async with self.rollouts.changing:
            await self._check_moves([node], node.tenant, lambda _: self.offers.chosen(moved)[0])
            await self.nodes.label(node, labels, name=name, group=group, by=by)

    async def put_group(self, group: Group, *, by: str) -> None:
        """Make a group, or change which nodes are in it.

        Raises:
            ConflictError: A node would be given what it must refuse.
        """
        layers.check_selector(group.selector)
        await self._regroup(group.tenant, group.name, group, lambda: self.documents.put_group(group, by=by))

    async def delete_group(self, tenant: str, name: str, *, by: str) -> None:
        """Take a group away that has no document.

        Raises:
            NotFoundError: There is none of that name.
            ConflictError: It has a document, or a node would be given what it must refuse.
        """
        await self._regroup(tenant, name, None, lambda: self.documents.delete_group(tenant, name, by=by))

    async def _regroup(
        self, tenant: str, name: str, group: Group | None, write: Callable[[], Awaitable[None]]
    ) -> None:
        async with self.rollouts.changing:
            among = self.documents.regrouped(tenant, name, group)
            await self._check_moves(
                self.nodes.of(tenant), tenant, lambda node: self.offers.chosen(node, among)[0]
            )
            await write()

    async def pin(self, node: Node, sha256: str, *, by: str) -> None:
        """Keep a node on a document that it was given, whatever is published.

        Raises:
            ConflictError: It was never given that, or must refuse it by now.
        """
        served = await self.given(node, sha256) if sha256 else None
        if served is None:
            raise errors.ConflictError(
                f"{node.name} was never given that document",
                code="central.never_given",
                details={"sha256": sha256[:64]},
                hint=f"toft central node show {node.id} tells what it has",
            )
        async with self.rollouts.changing:
            await self.floors.check(node.tenant, [Move(node=node, revision=served.revision)])
            await self.nodes.pin(node, sha256, by=by)

    async def unpin(self, node: Node, *, by: str) -> None:
        """Let a node have again what all others have.

        Raises:
            ConflictError: It would be given what it must refuse.
        """
        async with self.rollouts.changing:
            if node.pinned is not None:
                await self.floors.check(node.tenant, _moves([(node, self.offers.chosen(node)[0])]))
            await self.nodes.pin(node, None, by=by)

    async def _check_moves(self, nodes: Iterable[Node], tenant: str, after: Chosen) -> None:
        """Refuse what gives a node something older than what it may go back to."""
        if not self.floors.are_there(tenant):
            return
        moved = []
        for node in nodes:
            chosen = after(node)
            if node.state == "active" and node.pinned is None and chosen != self.offers.chosen(node)[0]:
                moved.append((node, chosen))
        await self.floors.check(tenant, _moves(moved))

    @property
    def urls(self) -> Sequence[str]:
        """Return by which addresses nodes reach it."""
        return self.previews.urls

    async def given(self, node: Node, sha256: str) -> Served | None:
        """Return bytes that a node was given once; None for all others, whosever they are."""
        values = {"node": node.id, "sha256": sha256}
        row = await self.store.read(
            lambda connection: connection.execute(_QUERIES["find_offer"], values).fetchone()
        )
        return None if row is None else await self.offers.find(node.tenant, sha256)

    async def note_offer(self, node: Node, sha256: str) -> None:
        """Take note of what a node was given, before it is."""
        etag = f"sha256-{sha256}"
        if node.offered_etag == etag:
            return
        now = self.clock.now()
        values = {"node": node.id, "sha256": sha256, "etag": etag, "now": now}

        def change(connection: database.Connection) -> None:
            connection.execute(_QUERIES["put_offer"], values)
            connection.execute(_QUERIES["note_offer"], values)

        def written(_: None) -> None:
            node.offered_etag, node.offered_at = etag, now

        await writing.commit(self.store, change, written)


def _moves(chosen: Iterable[tuple[Node, Sequence[tuple[Document, int]]]]) -> list[Move]:
    """Return which document comes of what nodes are to be made of; those with nothing stay where they are."""
    newest = [(node, max(each, key=lambda one: one[1])) for node, each in chosen if each]
    return [Move(node=node, revision=number, document=document.id) for node, (document, number) in newest]
