"""What nodes say, as central places it: late, after a restart, by a wrong clock, in half characters."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.unit.test_central import DAY_S, URL, join, save

from toft.api.central import polls
from toft.api.central.service import Service
from toft.central import audit, reports
from toft.central.convergence import Standing
from toft.central.nodes import Node
from toft.central.room import Central
from toft.kernel import clock as clocks
from toft.kernel import errors
from toft.managed import messages, protocol
from toft.store import database

ETAG = "sha256-" + "1" * 64


@pytest.fixture
def clock() -> clocks.ManualClock:
    return clocks.ManualClock()


@pytest.fixture
async def central(store: database.Database, clock: clocks.ManualClock) -> Central:
    return await Central(store, [URL], clock=clock).open()


async def told(central: Central, node: Node, boot: str, seq: int, **more: Any) -> tuple[str | None, bool]:
    """Report; returns which boot counts then, and whether its machine was just seen to be set back."""
    before = node.restored_at
    central.clock.advance(60.0)  # type: ignore[attr-defined]
    await central.reports.take(node, {"boot_nonce": boot, "seq": seq, **more})
    return node.boot_nonce, node.restored_at != before


async def accused(central: Central) -> int:
    return [each["action"] for each in await audit.entries(central.store)].count("node.restored")


async def test_a_late_report_of_an_earlier_boot_neither_counts_nor_accuses_its_machine(
    central: Central, store: database.Database, clock: clocks.ManualClock
) -> None:
    node, _, _ = await join(central)
    assert await told(central, node, "a", 4) == ("a", False)
    assert await told(central, node, "b", 6) == ("b", False)
    assert await told(central, node, "a", 5) == ("b", False), "on its way since before the restart"
    assert await told(central, node, "b", 7) == ("b", False)
    assert await accused(central) == 0
    # A machine that was set back with its memory goes on as the earlier boot, and counts once its numbers do.
    assert await told(central, node, "a", 7) == ("b", False)
    assert await told(central, node, "a", 8) == ("a", True)
    assert await told(central, node, "c", 2) == ("c", True), "another one begins where an older copy was"
    assert await accused(central) == 1, "once an hour is often enough"
    fresh = await Central(store, [URL], clock=clock).open()
    again = fresh.nodes.get("main", node.id)
    assert (again.boot_nonce, again.seq, again.restored_at) == ("c", 2, node.restored_at)


@pytest.mark.parametrize(
    "more",
    [
        {"history": [{"event": "\ud800", "at": "2026-01-01T00:00:00Z"}]},
        {"gates": [{"name": "web", "message": "half \udfff"}]},
        {"effective": {"sha256": "0" * 64, "body": {"\ud800": 1}}},
        {"clock": {"skew_s": float("inf")}},
        {"agent_version": "1\0"},
        {"platform": "\0"},
        {"history": [{"event": "\0", "at": "2026-01-01T00:00:00Z"}]},
        {"history": [{"event": "applied", "at": "\0"}]},
    ],
)
def test_what_no_database_could_hold_is_no_report(more: dict[str, Any]) -> None:
    with pytest.raises(errors.UsageError, match="not something JSON can say|does not match") as refused:
        reports.check(json.loads(json.dumps({"boot_nonce": "a", "seq": 1, **more})))
    assert refused.value.code == "report.invalid"


def happened(event: str, at: str, etag: str = ETAG) -> dict[str, Any]:
    return {"etag": etag, "event": event, "reason": "health_failed", "at": at}


async def test_trouble_is_told_of_by_when_it_was_heard_and_of_ones_own_nodes(central: Central) -> None:
    node, _, _ = await join(central)
    await told(central, node, "a", 1, history=[happened("rolled_back", "2099-01-01T00:00:00Z", "")])
    await told(central, node, "a", 2, history=[happened("rejected", "2026-01-01T00:00:00Z")])
    (look,) = await central.overviews.of("main")
    assert look == await central.overviews.one(node)
    assert (look.standing, look.bad and look.bad.event) == (Standing.WENT_BACK, "rejected")
    await central.documents.add_tenant("acme", by="me")
    assert await central.overviews.of("acme") == []
    await told(central, node, "a", 3, history=[happened("applied", "2026-01-01T00:01:00Z")])
    (look,) = await central.overviews.of("main")
    assert look.standing is not Standing.WENT_BACK


async def test_a_clock_that_was_years_ahead_pushes_nothing_out_of_the_history(
    central: Central, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "_HISTORY", 2)
    node, _, _ = await join(central)
    for seq, year in enumerate((2099, 2098, 2026, 2026)):
        event = happened("staged", f"{year}-01-01T00:00:0{seq}Z")
        await told(central, node, "a", seq, history=[event])
    assert [each["at"][:4] for each in await central.reports.history(node)] == ["2026", "2026"]


async def test_looking_at_a_fleet_reads_only_what_went_wrong(store: database.Database) -> None:
    query = database.read_queries("toft.central", "rollouts.sql")["last_troubles"]
    rows = await store.read(
        lambda connection: connection.execute(
            f"EXPLAIN QUERY PLAN {query}", {"tenant": "main", "node": ""}
        ).fetchall()
    )
    plan = [row["detail"] for row in rows]
    assert not [each for each in plan if "SCAN" in each], plan
    assert sum("node_history_troubles" in each for each in plan) == 2, plan


async def test_who_was_heard_of_is_not_new_after_a_kill(
    central: Central, store: database.Database, clock: clocks.ManualClock
) -> None:
    await save(central, {})
    (reported, _, _), (given, _, _), (new, _, _) = [await join(central) for _ in range(3)]
    for node in (reported, given):
        central.nodes.see(node, "")
    offer = await central.offers.offered(given)
    assert offer is not None
    await central.note_offer(given, offer.served.sha256)
    running = {"etag": offer.served.etag, "revision": offer.served.revision}
    await told(central, reported, "a", 1, running=running, phase="idle")
    fresh = await Central(store, [URL], clock=clock).open()
    stands = {
        each.node.id: (each.standing, each.to_dict()["runs"]) for each in await fresh.overviews.of("main")
    }
    assert stands == {
        reported.id: (Standing.CURRENT, offer.served.etag),
        given.id: (Standing.FOLLOWING, None),
        new.id: (Standing.NEW, None),
    }
    seen = fresh.nodes.get("main", reported.id).to_dict()["last_seen_at"]
    assert seen == clocks.rfc3339(clock.now())
    clock.advance(DAY_S)
    assert {each.standing for each in await fresh.overviews.of("main")} == {Standing.SILENT, Standing.NEW}


async def test_what_changes_while_a_node_is_looked_at_is_told_at_once(central: Central) -> None:
    await save(central, {"x-n": 1})
    node, credential, _ = await join(central)
    first = await central.offers.offered(node)
    assert first is not None
    offered = central.offers.offered

    async def slowly(node: Node) -> Any:
        found = await offered(node)
        if found == first:
            await save(central, {"x-n": 2})
        return found

    central.offers.offered = slowly  # type: ignore[method-assign]
    service = Service(central=central, gate=None, artifacts=None, request_bytes=1)  # type: ignore[arg-type]
    headers = {
        b"authorization": f"Bearer {credential}".encode(),
        b"if-none-match": protocol.quoted(first.served.etag).encode(),
        b"prefer": b"wait=55",
    }
    async with asyncio.timeout(5):
        status, _, body = await polls.answer(service, headers, "")
    assert (status, json.loads(body)["x-n"]) == (200, 2)


async def test_credentials_that_are_over_are_no_rows_for_ever(
    central: Central, store: database.Database, clock: clocks.ManualClock
) -> None:
    node, _, key = await join(central)

    def asked(number: int) -> messages.Refresh:
        return messages.read_refresh(messages.refresh(node.id, key, f"{number:032x}", clock.now()))

    for number in range(5):
        clock.advance(protocol.OVERLAP_S + 1)
        await central.admission.signed_refresh(asked(number))
    sql = "SELECT count(*) FROM node_credentials"
    count = await store.read(lambda connection: connection.execute(sql).fetchone()[0])
    assert count == 2, "the newest, and the one before for a while"
    for _ in range(3):
        clock.advance(protocol.OVERLAP_S + 1)
        _, credential, _ = await join(central, key)
    assert await store.read(lambda connection: connection.execute(sql).fetchone()[0]) == 2
    assert list(central.admission._credentials)[-1] == protocol.fingerprint(credential)

    def refuse(node: Node) -> None:
        raise errors.UnavailableError("too often")

    body = asked(5)
    with pytest.raises(errors.UnavailableError):
        await central.admission.signed_refresh(body, counted=refuse)
    await central.admission.signed_refresh(body)
