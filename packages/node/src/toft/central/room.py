"""Everything that central is, opened in order; one object for whoever serves it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Mapping, Sequence

from toft.central import layers, writing
from toft.central.admission import Admission
from toft.central.book import Book
from toft.central.controller import Controller
from toft.central.documents import Document, Documents
from toft.central.launching import Launching
from toft.central.nodes import Node, Nodes
from toft.central.offers import Offers, Served
from toft.central.overviews import Overviews
from toft.central.previews import Previews
from toft.central.reports import Reports
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


class Central:
    """The server's side of managed nodes.

    Args:
        store: The database, with the tables of `central`.
        urls: By which addresses nodes reach it, the first one first.
        clock: The time.
        slots: How many nodes may wait for a document at a time.
    """

    def __init__(
        self,
        store: database.Store,
        urls: Sequence[str],
        *,
        clock: clocks.Clock = clocks.SYSTEM,
        slots: int = SLOTS,
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
        self.waiting = Waiting(slots)
        self.rollouts = Book(store, self.nodes, self.documents, clock=clock)
        self.launching = Launching(self.rollouts, self.documents, self.offers, self.previews, clock=clock)
        self.controller = Controller(
            store, self.rollouts, self.nodes, self.documents, self.offers, clock=clock
        )
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
        """Let every node have a revision that no rollout has given another one.

        Raises:
            ConflictError: A rollout brings another one to some of them, some would have no document with it,
                or the tenant's nodes ask for signatures and some are missing.
        """
        # No rollout begins between the look and what is written.
        async with self.rollouts.changing:
            if number is None:
                self.launching.check_free(document)
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
        chosen, _ = self.offers.chosen(moved)
        if node.pinned is None and chosen and chosen != self.offers.chosen(node)[0]:
            document, number = max(chosen, key=lambda each: each[1])
            floor = await self._floor(node)
            if number < floor:
                raise errors.ConflictError(
                    f"{node.name} would be given revision {number}, and refuses what is older than {floor}",
                    code="central.older_layer",
                    details={"node": node.id, "document": document.id, "revision": number, "floor": floor},
                    hint=f"toft central document show {document.id} tells what it says; save that again, "
                    "have it signed and publish it, then label the node",
                )
        await self.nodes.label(node, labels, name=name, group=group, by=by)

    async def _floor(self, node: Node) -> int:
        """Return the lowest revision that a node takes as far as is known here; 0 for any."""
        if self.trusts.root(node.tenant) is None:
            return 0
        values = {"tenant": node.tenant, "node": node.id}
        given = await self.store.read(
            lambda connection: connection.execute(_QUERIES["last_offers"], values).fetchall()
        )
        said = json.loads(given[0]["data"]).get("revision_floor") if given else 0
        if said is not None:
            return int(said)
        # One step back stays possible where the document says nothing.
        return min(each["revision"] for each in given) if len(given) > 1 else 0

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
