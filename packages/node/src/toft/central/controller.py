"""Carries rollouts out: one loop looks at what nodes say, asks `rollouts.plan`, and does what it orders.

Each order is one transaction with its line in the audit log; what is in memory follows what is on disk.
Whoever is killed between two orders goes on from the rows: nothing else has to be remembered.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

from toft.central import convergence, ledger, rollouts
from toft.central.book import Book
from toft.central.documents import Document, Documents
from toft.central.ledger import Placed, Record
from toft.central.nodes import Node, Nodes
from toft.central.offers import Offers
from toft.central.rollouts import Member, Order, Place, Stage, State
from toft.kernel import clock as clocks
from toft.kernel import errors, log
from toft.store import database

_log = log.get_logger("central.rollouts")
ACTOR = "central"
_GATHER_S = 0.2
_LONGEST_S = 30.0
_AGAIN_S = 5.0
_MOST_ORDERS = 10_000


class Controller:
    """The loop.

    Args:
        store: The database; here it is only read.
        book: The rollouts.
        nodes: Who there is, and what they said last.
        documents: The layers.
        offers: What nodes are given.
        clock: The time.
    """

    def __init__(
        self,
        store: database.Store,
        book: Book,
        nodes: Nodes,
        documents: Documents,
        offers: Offers,
        *,
        clock: clocks.Clock = clocks.SYSTEM,
    ) -> None:
        self._store = store
        self._book = book
        self._nodes = nodes
        self._documents = documents
        self._offers = offers
        self._clock = clock
        self._stirred = asyncio.Event()

    def stir(self) -> None:
        """Look again soon: a node was heard of, or came, or somebody asked for something."""
        self._stirred.set()

    async def run(self) -> None:
        """Carry rollouts out until cancelled."""
        while True:
            self._stirred.clear()
            try:
                await self.step()
                pause_s = self._pause_s()
            except (errors.NodeError, OSError) as error:
                _log.error("rollout_step_failed", error=str(error))
                await asyncio.sleep(_AGAIN_S)
                continue
            try:
                async with asyncio.timeout(pause_s):
                    await self._stirred.wait()
            except TimeoutError:
                continue
            # Two hundred nodes that report at once are looked at once.
            await asyncio.sleep(_GATHER_S)

    def _pause_s(self) -> float:
        now = self._clock.now()
        ends = [
            each.wave_opened_at + each.rules.waves[each.wave].bake_s - now
            for each in self._book.serving()
            if each.state is State.RUNNING and each.wave_opened_at is not None and each.wave >= 0
        ]
        return min([_LONGEST_S, *(max(each, 0.01) for each in ends if each > 0)])

    async def step(self) -> int:
        """Look once at every rollout and carry out all that is due; returns how many orders that were."""
        done = 0
        async with self._book.changing:
            for record in self._book.begun():
                await self._observe(record)
                while orders := self._plan(record):
                    for order in orders:
                        await self._carry_out(record, order)
                        done += 1
                    if done > _MOST_ORDERS:
                        raise errors.NodeError(
                            f"{record.id} never rests: {orders[:3]}",
                            code="rollout.restless",
                            hint="restart central and report it",
                        )
        return done

    def _plan(self, record: Record) -> tuple[Order, ...]:
        if not record.is_serving:
            return ()
        document = self._documents.get(record.tenant, record.document)
        members = [self._member(record, node) for node in self._book.about(document)]
        return rollouts.plan(record.known(), members, self._clock.now())

    def _member(self, record: Record, node: Node) -> Member:
        place = record.places.get(node.id)
        return Member(
            id=node.id,
            labels=node.labels,
            seen_at=max(node.heard_at or 0.0, node.created_at),
            place=None if place is None else Place(place.wave, place.stage, place.reason),
            kept_out="pinned" if node.pinned is not None else "",
        )

    async def _observe(self, record: Record) -> None:
        """Write down what nodes said since the last look."""
        since: dict[str, float] = {}
        etags: dict[str, str] = {}
        for id, place in record.places.items():
            node = self._nodes.find(id)
            if node is None or place.stage is Stage.SKIPPED:
                continue
            etags[id] = place.etag
            if record.is_serving and place.stage in rollouts.UNDER_WAY and node.pinned is None:
                # When another layer of it changed meanwhile, that is what it tries.
                offer = await self._offers.offered(node)
                etags[id] = offer.served.etag if offer is not None else place.etag
            if _seen(node, etags[id]) != place.seen:
                since[id] = place.offered_at
        if not since:
            return
        histories = await self._store.read(lambda connection: ledger.read_history(connection, since))
        changed = {}
        for id, events in histories.items():
            node, place = self._nodes.find(id), record.places[id]
            assert node is not None
            far = convergence.reached(node, etags[id], place.offered_at, events)
            place.seen = _seen(node, etags[id])
            is_other = (far.stage, far.reason, far.detail) != (place.stage, place.reason, place.detail)
            if is_other or etags[id] != place.etag:
                changed[id] = dataclasses.replace(
                    place,
                    stage=far.stage,
                    reason=far.reason,
                    detail=far.detail,
                    etag=etags[id],
                    changed_at=self._clock.now(),
                )
        if changed:
            await self._book.observe(record, changed)

    async def _carry_out(self, record: Record, order: Order) -> None:
        document = self._documents.get(record.tenant, record.document)
        match order:
            case rollouts.Open(wave):
                values: dict[str, Any] = {"wave": wave, "wave_opened_at": self._clock.now()}
                await self._book.change(record, "rollout.wave", ACTOR, values)
            case rollouts.Offer(nodes, wave):
                await self._offer(record, document, nodes, wave)
            case rollouts.Skip(nodes, reason):
                left_out = {id: self._skipped(record, reason) for id in nodes}
                await self._book.place(record, left_out, by=ACTOR)
            case rollouts.Pause(reason):
                await self._book.change(
                    record, "rollout.pause", ACTOR, {"state": State.PAUSED, "reason": reason}
                )
            case rollouts.Abort(reason):
                values = {"state": State.ABORTED, "reason": reason, "ended_at": self._clock.now()}
                await self._book.change(record, "rollout.abort", ACTOR, values)
            case rollouts.Finish():
                await self._book.finish(record, by=ACTOR)

    async def _offer(self, record: Record, document: Document, nodes: Sequence[str], wave: int) -> None:
        places: dict[str, Placed] = {}
        for id in nodes:
            node = self._nodes.find(id)
            if node is None:
                continue
            before = await self._offers.offered(node)
            chosen = []
            for each in self._documents.of_node(node):
                number = record.number if each.id == document.id else self._book.choose(node, each)[0]
                if number is not None:
                    chosen.append((each, number))
            served = await self._offers.merged(record.tenant, chosen)
            if not served.is_fit:
                places[id] = self._skipped(record, "unsigned" if not served.problems else "unfit", wave)
            elif before is not None and before.served.etag == served.etag:
                places[id] = self._skipped(record, "unchanged", wave)
            else:
                now = self._clock.now()
                places[id] = Placed(
                    wave=wave, stage=Stage.OFFERED, etag=served.etag, offered_at=now, changed_at=now
                )
        await self._book.place(record, places, by=ACTOR)
        for id in places:
            node = self._nodes.find(id)
            if node is not None:
                self._nodes.tell(node)

    def _skipped(self, record: Record, reason: str, wave: int | None = None) -> Placed:
        at = record.wave if wave is None else wave
        return Placed(wave=max(at, 0), stage=Stage.SKIPPED, reason=reason, changed_at=self._clock.now())


def _seen(node: Node, etag: str) -> tuple[object, ...]:
    """Return what a verdict depends on, without what stands in the history."""
    return (node.reported_at, node.seq, node.asked_etag, node.offered_etag, etag)
