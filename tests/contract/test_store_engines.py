"""Every kind of database keeps the same promises, and central works on each."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests import centrals, postgres
from tests.centrals import Agent

from toft.access import tokens as access_tokens
from toft.central import audit, saving, tokens
from toft.central.room import Central
from toft.central.rows import Question
from toft.kernel import clock as clocks
from toft.kernel import errors
from toft.managed import messages, protocol
from toft.managed.signatures import PrivateKey
from toft.store import database
from toft.store.postgres import PostgresDatabase

URL = "https://central.example"
ROOMS = {"access": "toft.access", "central": "toft.central"}
TENANT = "INSERT INTO tenants (id, created_at) VALUES (:id, 1.0)"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres.running() as dsn:
        yield dsn


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where a database is: a path, or an address."""
    if request.param == "sqlite":
        yield str(tmp_path / "central.db")
        return
    with postgres.empty(request.getfixturevalue("server"), f"t{secrets.token_hex(6)}") as dsn:
        yield dsn


def make(place: str) -> database.Opened:
    return PostgresDatabase(place) if place.startswith("postgresql:") else database.Database(Path(place))


@pytest.fixture
async def store(place: str) -> AsyncIterator[database.Opened]:
    opened = make(place)
    await opened.open(ROOMS)
    yield opened
    await opened.close()


def insert(id: str) -> Any:
    return lambda connection: connection.execute(TENANT, {"id": id}).close()


async def names(store: database.Store) -> list[str]:
    rows = await store.read(
        lambda connection: connection.execute("SELECT id FROM tenants ORDER BY id").fetchall()
    )
    return [row["id"] for row in rows]


async def test_of_many_that_write_at_once_only_those_that_fail_do(store: database.Opened) -> None:
    def fail(connection: Any) -> None:
        connection.execute(TENANT, {"id": "lost"}).close()
        raise errors.ConflictError("no")

    works = [store.write(insert(f"t{n:02}")) for n in range(20)]
    works[7:7] = [store.write(fail), store.write(insert("t03"))]
    done = await asyncio.gather(*works, return_exceptions=True)
    failed = [each for each in done if each is not None]
    assert sorted(each.code for each in failed if isinstance(each, errors.NodeError)) == [
        "conflict",
        "store.conflict",
    ]
    assert await names(store) == [f"t{n:02}" for n in range(20)]


async def test_what_was_written_is_there_after_opening_again(place: str) -> None:
    first = make(place)
    await first.open(ROOMS)
    await first.write(insert("kept"))
    await first.close()
    second = make(place)
    await second.open(ROOMS)
    assert await names(second) == ["kept"]
    await second.write(
        lambda connection: connection.execute(
            "UPDATE schema_numbers SET number = 99 WHERE room = 'central'"
        ).close()
    )
    await second.close()
    with pytest.raises(errors.IntegrityError, match="schema 99"):
        await make(place).open(ROOMS)


async def test_a_number_that_nobody_can_store_is_the_callers_mistake(store: database.Opened) -> None:
    query = "SELECT id FROM tenants WHERE counter = :n"
    with pytest.raises(errors.UsageError):
        await store.write(
            lambda connection: connection.execute("UPDATE tenants SET counter = :n", {"n": 10**30}).close()
        )
    assert await store.read(lambda connection: connection.execute(query, {"n": 3}).fetchall()) == []


async def test_central_works_on_it(store: database.Opened) -> None:
    clock = clocks.SystemClock()
    central = await Central(store, [URL], clock=clock, telemetry_bytes=10_000).open()
    wish = saving.Wish(
        tenant="main", scope="tenant", target="", layer={"control": {"urls": [URL]}, "x-a": "ä"}, author="me"
    )
    saved = await central.saving.save(wish)
    await central.publish(saved.document, saved.number, by="me")
    _, text = await central.tokens.create("main", tokens.Wish(labels={"role": "gpu"}), by="me")
    asked = messages.read_enroll(
        messages.enroll(text, PrivateKey.make(), secrets.token_hex(16), messages.Facts())
    )
    node, credential, _, is_new = await central.admission.enroll(asked)
    assert is_new
    offer = await central.offers.offered(node)
    assert offer is not None
    await central.note_offer(node, offer.served.sha256)
    event = {"event": "applied", "at": "2026-01-01T00:00:00Z", "etag": offer.served.etag}
    for seq in range(60):
        await central.reports.take(
            node,
            {
                "seq": seq,
                "boot_nonce": "b",
                "history": [event],
                "effective": {"sha256": "a" * 64, "body": {}},
            },
        )
    for number in range(40):
        body = b'{"n": %d, "at": "\\u0000", "x": "%s"}\n' % (number, b"y" * 1000)
        name = protocol.chunk_key("logs", "file", number, body)
        for is_new in (True, False):
            taken = await central.ingest.take(node, "logs", name, body, counted=lambda: None)
            assert taken is is_new
    central.nodes.see(node, offer.served.etag)
    await central.close()
    again = await Central(store, [URL], clock=clock).open()
    known = again.admission.node_of(credential)
    assert (known.labels, known.seq, known.asked_etag) == ({"role": "gpu"}, 59, offer.served.etag)
    assert len(await again.reports.history(known)) == 1
    rows, is_more = await again.rows.read(known, "logs", Question(most=5))
    assert ([each.value["n"] for each in rows], is_more) == ([35, 36, 37, 38, 39], True)
    rows, is_more = await again.rows.read(known, "logs", Question(most=5, after=rows[2].id))
    assert ([each.value["n"] for each in rows], is_more) == ([38, 39], False)
    rows, is_more = await again.rows.read(known, "logs", Question(most=1000))
    assert 8 <= len(rows) <= 10, "ten thousand bytes are kept"
    found = await again.offers.offered(known)
    assert found is not None
    assert found.served.data == offer.served.data
    assert (await audit.verify(store)).broken_at is None
    gate = await access_tokens.Tokens(store, most=2).open()
    for n in range(4):
        made, raw = await gate.create(f"t{n}", ["read"], lasts_s=60.0)
        assert await gate.resolve(raw) is not None
        await gate.revoke(made.name)
    await gate.close()


async def test_one_process_has_a_database_and_a_connection_that_broke_is_made_again(server: str) -> None:
    with postgres.empty(server, f"t{secrets.token_hex(6)}") as dsn:
        first = PostgresDatabase(dsn)
        await first.open(ROOMS)
        with pytest.raises(errors.ConflictError, match="another process"):
            await PostgresDatabase(dsn).open(ROOMS)
        await asyncio.to_thread(_cut, dsn)
        with pytest.raises(errors.UnavailableError):
            await first.write(insert("cut"))
        await first.write(insert("after"))
        assert await names(first) == ["after"]
        await first.close()
    with pytest.raises(errors.UnavailableError):
        await PostgresDatabase("postgresql:///none?host=/nowhere").open(ROOMS)


def _cut(dsn: str) -> None:
    query = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND usename = 'toft'"
    )
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(query)


def test_a_central_that_is_killed_has_everything_on_the_server(server: str, tmp_path: Path) -> None:
    with (
        postgres.empty(server, f"t{secrets.token_hex(6)}") as dsn,
        centrals.running(tmp_path, "--database", dsn) as central,
    ):
        central.save({"x-note": "kept"})
        agent = Agent(central).join()
        assert agent.poll().status == 200
        central.kill()
        central.start()
        assert agent.poll().status == 304
        assert central.admin("GET", "audit/verify")["is_whole"]
        assert not (central.data / "central.db").exists()
