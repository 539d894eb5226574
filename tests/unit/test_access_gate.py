"""Tokens, links, failures: who is let in, and who no longer is."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from toft.access import tokens as rooms
from toft.access.browsers import LINK_S, SESSION_S
from toft.access.failures import Failures
from toft.access.gate import Gate, Shown
from toft.access.hosts import Hosts
from toft.access.principals import OWNER, Principal
from toft.access.terms import Term
from toft.daemon import network
from toft.kernel import errors, settings
from toft.kernel.clock import ManualClock
from toft.store import database

CLOCK_START = 1_700_000_000.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(CLOCK_START)


@pytest_asyncio.fixture
async def gate(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Gate]:
    store = database.Database(tmp_path / "node.db")
    await store.open({"access": "toft.access"})
    found = Gate(await rooms.Tokens(store, clock=clock).open(), clock=clock)
    yield found
    await found.tokens.close()
    await store.close()


def bearer(text: str, **more: str) -> Shown:
    return Shown(method="GET", address="192.0.2.1", authorizations=[f"Bearer {text}"], **more)


async def refusal(gate: Gate, shown: Shown) -> errors.RefusedError:
    with pytest.raises(errors.RefusedError) as found:
        await gate.enter(shown)
    return found.value


async def test_a_token_lets_in_with_its_scopes_and_only_its_hash_is_stored(
    gate: Gate, tmp_path: Path
) -> None:
    made, text = await gate.tokens.create("ci", ["job:write", "job:write", "result:read"])
    assert text.startswith("toft_")
    assert len(text) == len("toft_") + 32
    caller = await gate.enter(bearer(text))
    assert caller is not None
    assert caller.principal.scopes == ("job:write", "result:read")
    assert (caller.principal.principal_id, caller.token) == ("token:ci", made.id)
    with sqlite3.connect(tmp_path / "node.db") as connection:
        stored = str(connection.execute("SELECT * FROM access_tokens").fetchall())
    connection.close()
    assert text not in stored
    assert text[5:] not in stored


async def test_a_token_is_still_there_after_a_restart_and_says_when_it_was_used(
    gate: Gate, tmp_path: Path, clock: ManualClock
) -> None:
    _, text = await gate.tokens.create("ci", ["read"], lasts_s=100)
    await gate.enter(bearer(text))
    await gate.tokens.close()
    again = database.Database(tmp_path / "node.db")
    await again.open({"access": "toft.access"})
    later = Gate(await rooms.Tokens(again, clock=clock).open(), clock=clock)
    (found,) = await later.tokens.list()
    assert (found.last_used_at, found.expires_at) == (CLOCK_START, CLOCK_START + 100)
    assert await later.enter(bearer(text)) is not None
    await later.tokens.close()
    await again.close()


async def test_a_token_that_expired_or_was_revoked_or_never_was_is_refused_with_the_reason(
    gate: Gate, clock: ManualClock
) -> None:
    _, short = await gate.tokens.create("short", ["read"], lasts_s=10)
    _, ended = await gate.tokens.create("ended", ["read"])
    await gate.tokens.revoke("ended")
    clock.advance(10)
    for text, reason in ((short, "expired"), (ended, "revoked"), ("toft_guess", "unknown"), ("", "unknown")):
        refused = await refusal(gate, bearer(text))
        assert (refused.code, refused.details["reason"]) == ("access.unauthenticated", reason)
        assert text not in str(refused.to_dict()) or not text


@pytest.mark.parametrize(
    "headers",
    [
        ["bearer {}"],
        ["Bearer  {}"],
        ["Bearer\t{}"],
        ["{}"],
        ["Basic {}"],
        ["Bearer {}", "Bearer {}"],
        ["Bearer {} "],
    ],
)
async def test_the_header_is_exactly_bearer(gate: Gate, headers: list[str]) -> None:
    _, text = await gate.tokens.create("ci", ["read"])
    shown = Shown(method="GET", authorizations=[each.format(text) for each in headers])
    assert (await refusal(gate, shown)).code == "access.unauthenticated"


async def test_a_name_is_taken_until_it_is_revoked(gate: Gate) -> None:
    _, first = await gate.tokens.create("ci", ["read"])
    with pytest.raises(errors.ConflictError, match="ci already"):
        await gate.tokens.create("ci", ["read"])
    await gate.tokens.revoke("ci")
    with pytest.raises(errors.NotFoundError):
        await gate.tokens.revoke("ci")
    _, second = await gate.tokens.create("ci", ["read"])
    assert await gate.enter(bearer(second)) is not None
    await refusal(gate, bearer(first))


async def test_only_tokens_that_hold_take_up_room(tmp_path: Path, clock: ManualClock) -> None:
    store = database.Database(tmp_path / "few.db")
    await store.open({"access": "toft.access"})
    few = await rooms.Tokens(store, clock=clock, most=3).open()
    await few.create("long", ["read"])
    for _ in range(5):
        clock.advance(10)
        await few.create("job", ["read"], lasts_s=60)
        await few.revoke("job")
    clock.advance(1)
    await few.create("short", ["read"], lasts_s=1)
    assert {each.name for each in await few.list()} >= {"long", "short"}
    assert len(await few.list()) == 3
    clock.advance(2)
    for name in ("b", "c"):
        await few.create(name, ["read"])
    with pytest.raises(errors.ConflictError, match="3 tokens hold"):
        await few.create("d", ["read"])
    assert {each.name for each in await few.list()} == {"long", "b", "c"}
    again = await rooms.Tokens(store, clock=clock, most=3).open()
    assert [each.id for each in await again.list()] == [each.id for each in await few.list()]
    await store.close()


async def test_a_token_has_no_more_scopes_than_a_decision_can_look_through(gate: Gate) -> None:
    scopes = [f"job:read:p{number}" for number in range(rooms.MOST_SCOPES + 1)]
    with pytest.raises(errors.UsageError, match="at most 100"):
        await gate.tokens.create("many", scopes)
    await gate.tokens.create("many", scopes[1:])


async def test_nobody_gives_more_than_they_have(gate: Gate) -> None:
    maker = Principal("m", "local", "m", "token", ("token:admin", "job:write:ocr", "*:read"))
    for scope in ("job:cancel:ocr", "job:read", "node:read", "token:write", "read"):
        await gate.tokens.create(f"t{len(await gate.tokens.list())}", [scope], by=maker)
    for scope in ("*", "job:write", "job:cancel", "job:write:other", "*:admin", "secret:write", "write"):
        with pytest.raises(errors.RefusedError) as refused:
            await gate.tokens.create("more", [scope], by=maker)
        assert refused.value.code == "access.refused"
    await gate.tokens.create("all", ["*"], by=OWNER)


@pytest.mark.parametrize(
    ("name", "scopes", "lasts_s"),
    [
        ("No Name", ["read"], None),
        ("ok", [], None),
        ("ok", ["rea"], None),
        ("ok", ["read"], 0.0),
        ("ok", ["read"], 1e12),
    ],
)
async def test_what_cannot_be_a_token_is_refused(
    gate: Gate, name: str, scopes: list[str], lasts_s: float | None
) -> None:
    with pytest.raises(errors.UsageError):
        await gate.tokens.create(name, scopes, lasts_s=lasts_s)
    assert await gate.tokens.list() == []


async def test_what_is_open_ends_with_its_token(gate: Gate) -> None:
    made, _ = await gate.tokens.create("ci", ["read"])
    ended: list[str] = []
    with (
        gate.leases.hold(made.id, None, lambda: ended.append("a")),
        gate.leases.hold(made.id, None, lambda: ended.append("b")),
        gate.leases.hold("another", None, lambda: ended.append("c")),
    ):
        await gate.tokens.revoke("ci")
        assert sorted(ended) == ["a", "b"]
    assert gate.leases.count(made.id) == gate.leases.count("another") == 0


async def test_what_is_open_ends_when_its_token_expires(gate: Gate, clock: ManualClock) -> None:
    ended = asyncio.Event()
    with gate.leases.hold("t", Term.lasting(clock, 0.01), ended.set):
        assert not ended.is_set()
        clock.advance(1)
        await asyncio.wait_for(ended.wait(), 5)
    with gate.leases.hold("t", Term.lasting(clock, 0), ended.set):
        assert ended.is_set()


async def test_a_link_lets_one_browser_in_once_within_a_minute(gate: Gate, clock: ManualClock) -> None:
    code = gate.browsers.link(OWNER)
    session = gate.open(code, "127.0.0.1")
    caller = await gate.enter(Shown(method="GET", cookie=f"a=b; toft_session={session.id}; c=d"))
    assert caller is not None
    assert (caller.principal, caller.csrf) == (OWNER, session.csrf)
    with pytest.raises(errors.RefusedError, match="used before"):
        gate.open(code, "127.0.0.1")
    late = gate.browsers.link(OWNER)
    clock.advance(LINK_S)
    for each in (code, late, "guess"):
        with pytest.raises(errors.RefusedError) as refused:
            gate.open(each, "127.0.0.1")
        assert refused.value.code == "access.link"
    clock.advance(SESSION_S)
    assert await gate.enter(Shown(method="GET", cookie=f"toft_session={session.id}")) is None
    assert await gate.enter(Shown(method="GET", cookie="toft_session=guess")) is None
    assert await gate.enter(Shown(method="GET")) is None


@pytest.mark.parametrize(
    ("csrf", "site", "allowed"),
    [
        ("right", "same-origin", True),
        ("right", "", True),
        ("right", "cross-site", False),
        ("right", "same-site", False),
        ("", "same-origin", False),
        ("wrong", "same-origin", False),
        ("\xff", "", False),
    ],
)
async def test_a_change_by_cookie_comes_from_a_page_of_this_node(
    gate: Gate, csrf: str, site: str, allowed: bool
) -> None:
    session = gate.open(gate.browsers.link(OWNER), "")
    shown = Shown(
        method="POST",
        cookie=f"toft_session={session.id}",
        csrf=session.csrf if csrf == "right" else csrf,
        site=site,
    )
    if allowed:
        assert await gate.enter(shown) is not None
    else:
        assert (await refusal(gate, shown)).code == "access.csrf"


async def test_a_browser_that_a_token_let_in_leaves_with_it(gate: Gate) -> None:
    made, text = await gate.tokens.create("ci", ["read"])
    caller = await gate.enter(bearer(text))
    assert caller is not None
    session = gate.open(gate.browsers.link(caller.principal), "")
    shown = Shown(method="GET", cookie=f"toft_session={session.id}")
    inside = await gate.enter(shown)
    assert inside is not None
    assert (inside.token, inside.session) == (made.id, session.id)
    await gate.tokens.revoke("ci")
    assert await gate.enter(shown) is None


async def test_guessing_is_slowed_down_and_a_good_token_is_not_locked_out(
    gate: Gate, clock: ManualClock
) -> None:
    _, text = await gate.tokens.create("ci", ["read"])
    codes = [(await refusal(gate, bearer(f"toft_{number}"))).code for number in range(15)]
    assert codes == ["access.unauthenticated"] * 10 + ["access.too_many_failures"] * 5
    assert await gate.enter(bearer(text)) is not None
    other = Shown(method="GET", address="192.0.2.2", authorizations=["Bearer toft_x"])
    assert (await refusal(gate, other)).code == "access.unauthenticated"
    clock.advance(6.1)
    assert (await refusal(gate, bearer("toft_x"))).code == "access.unauthenticated"
    assert (await refusal(gate, bearer("toft_x"))).code == "access.too_many_failures"


def test_failures_of_any_number_of_addresses_take_bounded_memory(clock: ManualClock) -> None:
    failures = Failures(clock, addresses=100)
    for number in range(10_000):
        failures.add(f"10.0.{number // 256}.{number % 256}", "guess")
    assert len(failures) == 100
    # What one customer has under IPv6 is one.
    for number in range(10):
        failures.add(f"2001:db8::{number:x}", "guess")
    with pytest.raises(errors.RefusedError) as refused:
        failures.add("2001:db8::ffff:1", "guess")
    assert refused.value.retry_after_s == 6.0


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost", True),
        ("LOCALHOST:8700", True),
        ("127.0.0.1:1", True),
        ("[::1]:8700", True),
        ("10.0.0.7", True),
        ("node.example", True),
        ("node.example.:443", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("", False),
        ("127.0.0.1.evil.example", False),
        ("a:b:c", False),
    ],
)
def test_a_node_is_asked_by_its_own_names_only(host: str, known: bool) -> None:
    assert Hosts(["node.example"]).knows(host) is known


@pytest.mark.parametrize(
    ("text", "host", "port", "public"),
    [
        ("127.0.0.1:8700", "127.0.0.1", 8700, False),
        ("[::1]:0", "::1", 0, False),
        ("localhost:1", "localhost", 1, False),
        ("0.0.0.0:8700", "0.0.0.0", 8700, True),
        ("[::]:1", "::", 1, True),
        ("node.example:443", "node.example", 443, True),
    ],
)
def test_where_to_listen_is_host_and_port(text: str, host: str, port: int, public: bool) -> None:
    found = network.parse(text)
    assert (found.host, found.port, found.is_public) == (host, port, public)


@pytest.mark.parametrize("text", ["", "8700", ":8700", "host", "host:port", "::1:80", "host:70000", "h:-1"])
def test_what_is_no_place_to_listen_is_refused(text: str) -> None:
    with pytest.raises(errors.UsageError) as refused:
        network.parse(text)
    assert refused.value.code == "daemon.listen"


def test_other_machines_are_let_in_with_tls_or_when_told_in_as_many_words(tmp_path: Path) -> None:
    def listening(**given: object) -> settings.Settings:
        return settings.Settings(home=tmp_path, listen="0.0.0.0:8700", **given)  # type: ignore[arg-type]

    with pytest.raises(errors.UsageError) as refused:
        network.check(listening())
    assert refused.value.code == "daemon.insecure_listen"
    assert network.check(listening(insecure_public=True)) is not None
    pem = tmp_path / "x.pem"
    assert network.check(listening(tls_cert=pem, tls_key=pem)) is not None
    for half in ({"tls_cert": pem}, {"tls_key": pem, "insecure_public": True}):
        with pytest.raises(errors.UsageError) as refused:
            network.check(listening(**half))
        assert refused.value.code == "daemon.tls"
    pem.write_text("no key")
    with pytest.raises(errors.UsageError, match="TLS cannot use"):
        network.context(listening(tls_cert=pem, tls_key=pem))
    assert network.check(settings.Settings(home=tmp_path)) is None
