"""How the nodes of a tenant stand to what they are offered: who follows, who lags, who went back and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from toft.central import convergence, ledger
from toft.central.convergence import Event, Standing
from toft.central.nodes import Node, Nodes
from toft.central.offers import Offers
from toft.kernel import clock as clocks
from toft.managed import document
from toft.store import database


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One node.

    Attributes:
        offered: The document that it is to run, and its number; None for none.
        bad: What went wrong when it tried what it is offered, or was lately; None unless it went back.
    """

    node: Node
    standing: Standing
    offered: str | None
    revision: int | None
    bad: Event | None

    @property
    def is_trouble(self) -> bool:
        """Say whether somebody ought to look at it."""
        return self.standing in convergence.TROUBLE

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        seen, bad = self.node.heard_at, self.bad
        return {
            "node": self.node.id,
            "name": self.node.name,
            "standing": str(self.standing),
            "runs": convergence.runs(self.node),
            "offered": self.offered,
            "revision": self.revision,
            "last_seen_at": None if seen is None else clocks.rfc3339(seen),
            "trouble": None
            if bad is None
            else {
                "event": bad.event, "etag": bad.etag, "reason": bad.reason, "detail": bad.detail, "at": bad.at
            },
        }  # fmt: skip


class Overviews:
    """Looks at fleets.

    Args:
        store: The database; only read.
        nodes: Who there is.
        offers: What they are given.
        clock: The time.
    """

    def __init__(
        self, store: database.Store, nodes: Nodes, offers: Offers, *, clock: clocks.Clock = clocks.SYSTEM
    ) -> None:
        self._store = store
        self._nodes = nodes
        self._offers = offers
        self._clock = clock

    async def of(self, tenant: str) -> list[Look]:
        """Return how every node of a tenant stands, in the order in which they joined."""
        troubles = await self._store.read(lambda connection: ledger.read_troubles(connection, tenant))
        now = self._clock.now()
        return [await self._look(node, troubles.get(node.id), now) for node in self._nodes.of(tenant)]

    async def one(self, node: Node) -> Look:
        """Return how a node stands."""
        troubles = await self._store.read(
            lambda connection: ledger.read_troubles(connection, node.tenant, node.id)
        )
        return await self._look(node, troubles.get(node.id), self._clock.now())

    async def _look(self, node: Node, bad: Event | None, now: float) -> Look:
        offer = await self._offers.offered(node) if node.state == "active" else None
        offered = offer.served.etag if offer is not None else None
        patience = convergence.patience_s(
            offer.served.poll_interval_s if offer is not None else document.DEFAULT_POLL_S
        )
        standing = convergence.standing(node, offered, patience, now, bad)
        return Look(
            node=node,
            standing=standing,
            offered=offered,
            revision=offer.served.revision if offer is not None else None,
            bad=bad if standing is Standing.WENT_BACK else None,
        )
