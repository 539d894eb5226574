"""Rollouts are the same after a restart, on every kind of database."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests import fleets, postgres
from tests.fleets import Fleet

from toft.central import audit, ledger
from toft.central.convergence import Standing
from toft.central.rollouts import State
from toft.central.room import TENANT, Central
from toft.kernel.clock import ManualClock
from toft.store import database
from toft.store.postgres import PostgresDatabase

RULES = {"waves": [{"percent": percent, "bake_s": 60} for percent in (20, 100)]}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres.running() as dsn:
        yield dsn


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[database.Store]:
    rooms = {"central": "toft.central"}
    if request.param == "sqlite":
        opened: database.Opened = database.Database(tmp_path / "central.db")
        await opened.open(rooms)
        yield opened
        await opened.close()
        return
    with postgres.empty(request.getfixturevalue("server"), f"t{secrets.token_hex(6)}") as dsn:
        opened = PostgresDatabase(dsn)
        await opened.open(rooms)
        yield opened
        await opened.close()


async def test_a_good_and_a_bad_rollout_are_the_same_after_a_restart(store: database.Store) -> None:
    clock = ManualClock()
    central = await Central(store, [fleets.URL], clock=clock).open()
    fleet = Fleet(central, clock, lambda id, etag: "applied")
    await fleets.save(central, 1)
    await central.publish(fleets.document(central), 1, by="ops")
    await fleet.add(10)
    await fleet.turn()
    await fleets.save(central, 2)
    good = await fleets.roll_out(central, rules=RULES, message="good")
    await turns(central, fleet, 4)
    assert (good.state, good.counts()["applied"]) == (State.DONE, 10)
    before = set(fleet.runs.values())
    await fleets.save(central, 3)
    fleet.fate = lambda id, etag: "applied" if etag in before else "health_failed"
    bad = await fleets.roll_out(central, rules=RULES, message="bad")
    await turns(central, fleet, 2)
    assert bad.state is State.ABORTED
    await central.close()
    again = await Central(store, [fleets.URL], clock=clock).open()
    assert fleets.document(again).published == 2
    listed = await again.rollouts.list(TENANT)
    assert [each.id for each in listed] == [bad.id, good.id]
    assert [each.id for each in await again.rollouts.list(TENANT, before=bad.id)] == [good.id]
    assert await again.rollouts.list(TENANT, document="doc_none") == []
    assert listed[0].to_dict() == {**bad.to_dict(), "rules": bad.rules.to_dict()}
    whole = await again.rollouts.get(TENANT, bad.id)
    told = {id: (each.stage, each.reason, each.wave) for id, each in whole.places.items()}
    assert told == {id: (each.stage, each.reason, each.wave) for id, each in bad.places.items()}
    node = next(iter(bad.reached))
    of_node = await store.read(lambda connection: ledger.of_node(connection, node))
    assert [each["node"]["stage"] for each in of_node] == ["rolled_back", "applied"]
    assert again.rollouts.attempts(fleets.document(again), 3) == 1
    looks = await again.overviews.of(TENANT)
    back = {each.node.id for each in looks if each.standing is Standing.WENT_BACK}
    assert back == set(bad.reached), "also after it was ended"
    assert {each.standing for each in looks if each.node.id not in back} == {Standing.CURRENT}
    for each in looks:
        assert (await again.overviews.one(each.node)).standing is each.standing
    clock.advance(25 * 3600)
    assert Standing.WENT_BACK not in {each.standing for each in await again.overviews.of(TENANT)}
    assert (await audit.verify(store)).broken_at is None


async def turns(central: Central, fleet: Fleet, count: int) -> None:
    for _ in range(count):
        await central.controller.step()
        await fleet.turn()
        await central.controller.step()
        fleet.clock.advance(61)
