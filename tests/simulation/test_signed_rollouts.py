"""Where documents are signed: what too few signed reaches nobody, and nodes are not sent back too far."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests import fleets
from tests.fleets import Fleet
from tests.simulation.test_rollouts import WAVES, begun, run, served

from toft.central.documents import Group
from toft.central.nodes import Node
from toft.central.rollouts import Stage, State
from toft.central.room import TENANT, Central
from toft.central.saving import Wish as Layer
from toft.kernel.clock import ManualClock
from toft.kernel.errors import ConflictError
from toft.managed import admission, messages, signatures
from toft.managed.signatures import PrivateKey, Root
from toft.store import database

KEYS = [PrivateKey(bytes([number]) * 32) for number in (1, 2)]
ROOT = Root.of(1, 2, [each.public for each in KEYS])


async def sign(central: Central, number: int, *keys: PrivateKey, scope: str = "tenant", of: str = "") -> None:
    """Sign what nodes would get with a revision, as people do it far away from central."""
    for each in await central.payloads(fleets.document(central, scope, of), number):
        by = [signatures.sign(signatures.DOCUMENT_TYPE, each.data, key) for key in keys]
        await central.trusts.sign(TENANT, each.data, by, by="ops")
    central.offers.forget(TENANT)


async def guarded(store: Any, clock: ManualClock, count: int) -> tuple[Central, Fleet]:
    """Open a central with a fleet that asks for two signatures, and runs a revision that has them."""
    central, fleet = await begun(store, clock, count)
    by = [signatures.sign(signatures.ROOT_TYPE, ROOT.data, key) for key in KEYS]
    await central.trusts.add_root(TENANT, signatures.SignedRoot(ROOT.data, tuple(by)), by="ops")
    await sign(central, 1, *KEYS)
    return central, fleet


async def test_what_too_few_have_signed_is_rolled_out_to_nobody_whatever_the_hurry(tmp_path: Path) -> None:
    async with fleets.opened(tmp_path / "central.db") as store:
        clock = ManualClock()
        central, fleet = await guarded(store, clock, 20)
        before = dict(fleet.runs)
        number = await fleets.save(central, 2)
        draft = await fleets.roll_out(central, rules=WAVES, is_draft=True)
        await sign(central, number, KEYS[0])
        for verb in ("start", "emergency"):
            with pytest.raises(ConflictError, match="not signed by enough keys") as refused:
                await central.launching.ask(TENANT, draft.id, verb, by="token:ops")
            assert refused.value.code == "central.unsigned"
            (payload,) = await central.payloads(fleets.document(central), number)
            assert refused.value.details["sha256"] == [payload.sha256]
            assert f"document payloads {draft.document} {number} " in refused.value.hint
        await central.launching.ask(TENANT, draft.id, "abort", by="token:ops")
        for is_emergency in (False, True):
            with pytest.raises(ConflictError) as refused:
                await fleets.roll_out(central, is_emergency=is_emergency)
            assert refused.value.code == "central.unsigned"
        await run(central, fleet, 2)
        assert fleet.runs == before
        assert [each.state for each in await central.rollouts.list(TENANT)] == [State.ABORTED]


async def test_an_emergency_leaves_out_what_is_not_signed_and_an_abort_needs_no_key(tmp_path: Path) -> None:
    async with fleets.opened(tmp_path / "central.db") as store:
        clock = ManualClock()
        central, fleet = await guarded(store, clock, 20)
        before = dict(fleet.runs)
        number = await fleets.save(central, 2)
        await sign(central, number, *KEYS)
        rollout = await fleets.roll_out(central, rules=WAVES)
        await run(central, fleet, 1, seconds=1.0)
        # Another layer comes meanwhile; signed with what is published, and not with what is under way.
        own = next(node for node in central.nodes if node.id not in rollout.reached)
        layer = Layer(tenant=TENANT, scope="node", target=own.id, layer={"x-note": 7}, author="ops")
        third = (await central.saving.save(layer)).number
        await sign(central, third, *KEYS, scope="node", of=own.id)
        await central.publish(fleets.document(central, "node", own.id), third, by="ops")
        await fleet.turn()
        before[own.id] = fleet.runs[own.id]
        await central.launching.ask(TENANT, rollout.id, "emergency", by="token:ops")
        await central.controller.step()
        await fleet.turn()
        assert (rollout.places[own.id].stage, rollout.places[own.id].reason) == (Stage.SKIPPED, "unsigned")
        assert await served(central, own.id) == before[own.id]
        assert sum(fleet.runs[id] != etag for id, etag in before.items()) == 19
        # The keys are far away: nothing new is signed from here on.
        signed = await store.read(_signatures)
        await central.launching.ask(TENANT, rollout.id, "abort", by="token:ops", reason="wrong day")
        await fleet.turn()
        assert fleet.runs == before
        assert await store.read(_signatures) == signed
        for node in central.nodes:
            offer = await central.offers.offered(node)
            assert offer is not None
            taken, key_ids = admission.admit(
                offer.served.data,
                etag=before[node.id],
                signed=messages.decode_signatures(offer.served.signatures),
                # It has run the new revision, and takes what it ran before that and later.
                node=admission.Node(root=ROOT, node_id=node.id, tenant=TENANT, floor=1),
                now_s=clock.now(),
            )
            assert len(key_ids) == 2
            assert taken.revision == (third if node is own else 1)


def _signatures(connection: database.Connection) -> list[tuple[Any, ...]]:
    query = "SELECT tenant, sha256, key_id, signature FROM document_signatures ORDER BY 1, 2, 3"
    return [tuple(row) for row in connection.execute(query)]


class Agent:
    """A node that takes what it is offered as the real one does, and goes back as far as that."""

    def __init__(self, central: Central, node: Node) -> None:
        self.central, self.node = central, node
        self.floor = 0
        self.runs: int | None = None

    async def take(self) -> int | None:
        """Ask once; returns the revision that it runs then."""
        offer = await self.central.offers.offered(self.node)
        assert offer is not None
        await self.central.note_offer(self.node, offer.served.sha256)
        taken, key_ids = admission.admit(
            offer.served.data,
            signed=messages.decode_signatures(offer.served.signatures),
            node=admission.Node(root=ROOT, node_id=self.node.id, tenant=TENANT, floor=self.floor),
            now_s=self.central.clock.now(),
        )
        self.floor = admission.floor(taken, revision=self.runs, is_signed=bool(key_ids))
        self.runs = taken.revision
        return self.runs


async def test_a_node_is_not_moved_to_a_group_whose_layer_it_would_have_to_refuse(tmp_path: Path) -> None:
    async with fleets.opened(tmp_path / "central.db") as store:
        clock = ManualClock()
        central, _ = await guarded(store, clock, 0)

        async def give(group: str) -> int:
            number = await fleets.save(central, len(group), scope="group", target=group)
            await sign(central, number, *KEYS, scope="group", of=group)
            await central.publish(fleets.document(central, "group", group), number, by="ops")
            return number

        async def move(team: str, name: str = "machine") -> int | None:
            clock.advance(60)
            await central.label(node, {"team": team}, name=name, group=None, by="ops")
            return await agent.take()

        for group in ("red", "blue"):
            await central.documents.put_group(
                Group(tenant=TENANT, name=group, selector={"team": group}, priority=0), by="ops"
            )
        red, blue = await give("red"), await give("blue")
        (node,) = await fleets.add_nodes(central, [0], labels={"team": "blue"})
        agent = Agent(central, node)
        assert await agent.take() == blue
        assert await move("red") == red, "after its first document a node still takes any"
        (node,) = await fleets.add_nodes(central, [1], labels={"team": "none"})
        agent = Agent(central, node)
        assert await agent.take() == 1
        assert await move("blue") == blue
        assert await move("red") == red, "one step back is possible"
        assert await move("blue") == blue
        for _ in range(2):
            clock.advance(60)
            blue = await give("blue")
            assert await agent.take() == blue
        with pytest.raises(ConflictError, match=f"revision {red}, and refuses what is older") as refused:
            await move("red")
        assert refused.value.code == "central.older_layer"
        older = fleets.document(central, "group", "red")
        assert refused.value.details == {
            "node": node.id,
            "document": older.id,
            "revision": red,
            "floor": agent.floor,
        }
        assert f"document show {older.id}" in refused.value.hint
        assert (node.labels, await agent.take()) == ({"team": "blue"}, blue), "nothing was changed"
        assert await move("blue", name="another") == blue, "what moves nothing is no matter"
        # Told otherwise, the node would have refused it for good; saved again it takes it.
        await central.nodes.label(node, {"team": "red"}, name="machine", group=None, by="ops")
        with pytest.raises(admission.DowngradeError):
            await agent.take()
        await central.nodes.label(node, {"team": "blue"}, name="machine", group=None, by="ops")
        red = await give("red")
        assert await move("red") == red > blue


async def test_no_other_way_leads_a_node_to_what_it_would_have_to_refuse(tmp_path: Path) -> None:
    async with fleets.opened(tmp_path / "central.db") as store:
        clock = ManualClock()
        central, _ = await guarded(store, clock, 0)

        def group(name: str, priority: int, selector: dict[str, str]) -> Group:
            return Group(tenant=TENANT, name=name, selector=selector, priority=priority)

        async def give(name: str) -> int:
            clock.advance(60)
            number = await fleets.save(central, len(name), scope="group", target=name)
            await sign(central, number, *KEYS, scope="group", of=name)
            await central.publish(fleets.document(central, "group", name), number, by="ops")
            return number

        await central.put_group(group("old", 1, {"team": "old"}), by="ops")
        await central.put_group(group("new", 2, {"team": "new"}), by="ops")
        old, first = await give("old"), await give("new")
        (node,) = await fleets.add_nodes(central, [0], labels={"team": "new"})
        agent = Agent(central, node)
        taken = [await agent.take()]
        for _ in range(2):
            await give("new")
            taken.append(await agent.take())
        assert taken[0] == first > old
        asked = await store.read(_first_offer)
        # Every way that would bring it to the older group, or to the tenant's document alone.
        new = fleets.document(central, "group", "new")
        ways: dict[str, Callable[[], Awaitable[Any]]] = {
            "another selector": lambda: central.put_group(group("new", 2, {"team": "none"}), by="ops"),
            "another priority": lambda: central.put_group(group("old", 3, {"team": "new"}), by="ops"),
            "an empty group": lambda: central.put_group(group("empty", 9, {}), by="ops"),
            "without the layer": lambda: central.publish(new, None, by="ops"),
            "pinned": lambda: central.pin(node, asked, by="ops"),
        }
        for name, way in ways.items():
            with pytest.raises(ConflictError) as refused:
                await way()
            assert refused.value.code == "central.older_layer", name
            assert refused.value.details["floor"] == agent.floor
            offer = await central.offers.offered(node)
            assert offer is not None
            assert offer.served.revision == taken[-1], name
        assert [each.name for each in central.documents.groups(TENANT)] == ["new", "old"]
        # Pinned meanwhile it is not moved by that; let go of, it would be.
        await central.pin(node, (node.offered_etag or "").removeprefix("sha256-"), by="ops")
        await central.put_group(group("old", 3, {"team": "new"}), by="ops")
        with pytest.raises(ConflictError, match="refuses what is older"):
            await central.unpin(node, by="ops")
        newest = await give("old")
        await central.unpin(node, by="ops")
        assert await agent.take() == newest
        # Who has nothing yet takes anything, and a group of theirs goes as it came.
        await central.put_group(group("empty", 1, {"team": "empty"}), by="ops")
        await fleets.add_nodes(central, [1], labels={"team": "empty"})
        await central.delete_group(TENANT, "empty", by="ops")


def _first_offer(connection: database.Connection) -> str:
    query = "SELECT sha256 FROM node_offers ORDER BY offered_at LIMIT 1"
    return str(connection.execute(query).fetchone()["sha256"])
