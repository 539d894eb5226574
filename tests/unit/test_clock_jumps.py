"""Who is let in when the wall clock jumps: what was seen to have ended stays so, and nobody is locked out."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.job_queues import SetClock, open_queue, request

from toft.access import token
from toft.access.browsers import LINK_S, SESSION_S
from toft.access.gate import Caller, Gate, Shown
from toft.access.principals import OWNER
from toft.access.tokens import Tokens
from toft.kernel import clock as clocks
from toft.kernel import errors
from toft.store import database

HOUR_S, DAY_S = 3600.0, 86_400.0
START = 1_700_000_000.0
YEAR_S = 365 * DAY_S
JUMPS = (-YEAR_S, -DAY_S, DAY_S, YEAR_S)


@asynccontextmanager
async def opened(home: Path, clock: SetClock) -> AsyncIterator[Gate]:
    """A gate over what is on disk, as a start of the daemon opens it."""
    store = database.Database(home / "node.db")
    await store.open({"access": "toft.access"})
    gate = Gate(await Tokens(store, clock=clock).open(), clock=clock)
    try:
        yield gate
    finally:
        await gate.tokens.close()
        await store.close()


async def enter(gate: Gate, text: str) -> Caller | str:
    """Return who came in, or why they did not."""
    try:
        found = await gate.enter(Shown(method="GET", address="192.0.2.1", authorizations=[f"Bearer {text}"]))
    except errors.RefusedError as error:
        return str(error.details.get("reason", error.code))
    assert found is not None
    return found


@pytest.mark.parametrize("jump_s", JUMPS)
async def test_what_does_not_expire_holds_and_what_is_revoked_stays_revoked(
    tmp_path: Path, jump_s: float
) -> None:
    clock = SetClock()
    async with opened(tmp_path, clock) as gate:
        _, holds = await gate.tokens.create("holds", ["*"])
        _, ended = await gate.tokens.create("ended", ["*"])
        await gate.tokens.revoke("ended")
        clock.jump(jump_s)
        assert isinstance(await enter(gate, holds), Caller)
        assert await enter(gate, ended) == "revoked"
        _, new = await gate.tokens.create("new", ["read"], lasts_s=HOUR_S)
        assert isinstance(await enter(gate, new), Caller)
    clock.jump(-jump_s)
    async with opened(tmp_path, clock) as gate:
        assert isinstance(await enter(gate, holds), Caller)
        # A year ahead, a new token let the old one be forgotten; it is none now.
        assert await enter(gate, ended) in ("revoked", "unknown")
        assert [each.name for each in await gate.tokens.list()][-1] == "new"


@pytest.mark.parametrize("sees", ["a request", "a list", "a stream", "another token is made"])
async def test_what_was_seen_to_have_expired_stays_so_when_the_clock_is_set_right(
    tmp_path: Path, sees: str
) -> None:
    clock = SetClock()
    async with opened(tmp_path, clock) as gate:
        made, text = await gate.tokens.create("short", ["*"], lasts_s=HOUR_S)
        caller = await enter(gate, text)
        assert isinstance(caller, Caller)
        clock.jump(YEAR_S)
        if sees == "a request":
            assert await enter(gate, text) == "expired"
        elif sees == "a list":
            (listed,) = await gate.tokens.list()
            assert gate.tokens.told(listed)["state"] == "expired"
        elif sees == "a stream":
            over = asyncio.Event()
            with gate.leases.hold(made.id, caller.until, over.set):
                assert over.is_set()
        else:
            await gate.tokens.create("other", ["read"])
        clock.jump(-YEAR_S)
        assert await enter(gate, text) == "expired"
        assert gate.tokens.get("short") is None
    async with opened(tmp_path, clock) as gate:
        assert await enter(gate, text) == "expired"


async def test_a_jump_ahead_that_nobody_saw_ends_nothing_and_one_back_prolongs_nothing(
    tmp_path: Path,
) -> None:
    clock = SetClock()
    async with opened(tmp_path, clock) as gate:
        _, text = await gate.tokens.create("short", ["*"], lasts_s=HOUR_S)
        clock.jump(YEAR_S)
        clock.jump(-2 * YEAR_S)
        clock.advance(HOUR_S - 1)
        assert isinstance(await enter(gate, text), Caller)
        clock.advance(2)
        assert await enter(gate, text) == "expired"


async def test_a_start_with_a_clock_that_is_behind_prolongs_nothing(tmp_path: Path) -> None:
    clock = SetClock()
    async with opened(tmp_path, clock) as gate:
        _, text = await gate.tokens.create("short", ["*"], lasts_s=DAY_S)
        clock.advance(DAY_S - HOUR_S)
        assert isinstance(await enter(gate, text), Caller)
    # As a small machine without a battery starts, again and again.
    for is_last in (False, True):
        clock.jump(-YEAR_S)
        async with opened(tmp_path, clock) as gate:
            assert isinstance(await enter(gate, text), Caller)
            clock.advance(HOUR_S / 2)
            assert isinstance(await enter(gate, text), Caller) is not is_last
    async with opened(tmp_path, clock) as gate:
        assert await enter(gate, text) == "expired"


@pytest.mark.parametrize("jump_s", JUMPS)
async def test_a_browser_stays_no_longer_and_can_always_come_again(tmp_path: Path, jump_s: float) -> None:
    clock = SetClock()
    async with opened(tmp_path, clock) as gate:
        code, late = gate.browsers.link(OWNER), gate.browsers.link(OWNER)
        session = gate.open(code, "")
        shown = Shown(method="GET", cookie=f"toft_session={session.id}")
        clock.jump(jump_s)
        # Ahead, it is over: a machine that slept for a day looks the same.
        assert (await gate.enter(shown) is None) == (jump_s > 0)
        again = gate.open(gate.browsers.link(OWNER), "")
        assert await gate.enter(Shown(method="GET", cookie=f"toft_session={again.id}")) is not None
        clock.advance(LINK_S)
        with pytest.raises(errors.RefusedError):
            gate.open(late, "")
        clock.advance(SESSION_S)
        assert await gate.enter(shown) is None
        assert await gate.enter(Shown(method="GET", cookie=f"toft_session={again.id}")) is None


async def test_a_session_that_a_stream_has_seen_end_does_not_come_back(tmp_path: Path) -> None:
    clock = SetClock()
    async with opened(tmp_path, clock) as gate:
        session = gate.open(gate.browsers.link(OWNER), "")
        shown = Shown(method="GET", cookie=f"toft_session={session.id}")
        caller = await gate.enter(shown)
        assert caller is not None
        clock.jump(DAY_S)
        over = asyncio.Event()
        with gate.leases.hold(session.id, caller.until, over.set):
            assert over.is_set()
        clock.jump(-DAY_S)
        assert await gate.enter(shown) is None


@pytest.mark.parametrize("jump_s", JUMPS)
async def test_how_many_may_guess_does_not_change(tmp_path: Path, jump_s: float) -> None:
    clock = SetClock()
    async with opened(tmp_path, clock) as gate:
        reasons = [await enter(gate, f"toft_{number}") for number in range(11)]
        assert reasons == ["unknown"] * 10 + ["access.too_many_failures"]
        clock.jump(jump_s)
        assert await enter(gate, "toft_x") == "access.too_many_failures"
        clock.advance(6.1)
        assert await enter(gate, "toft_x") == "unknown"


@pytest.mark.parametrize("jump_s", JUMPS)
async def test_a_key_is_the_same_job_and_a_cursor_goes_on(jump_s: float) -> None:
    clock = SetClock()
    async with open_queue(clock=clock) as queue:
        (first,) = await queue.submit([request(idempotency_key="once")])
        clock.jump(jump_s)
        (second,) = await queue.submit([request(idempotency_key="once")])
        assert (second.job_id, second.is_new) == (first.job_id, False)
        (other,) = await queue.submit([request()])
        assert other.job_id > first.job_id
        events = await queue.events()
        assert [each.cursor for each in events] == sorted(each.cursor for each in events)
        before = await queue.events(after=events[-2].cursor)
        assert [each.job for each in before] == [other.job_id]


async def test_a_token_of_a_document_ends_once_though_the_clock_be_set_back_across_restarts(
    tmp_path: Path,
) -> None:
    text = "toft_" + "a" * 32
    digest, told = token.declared(
        "ci",
        hashlib.sha256(text.encode()).hexdigest(),
        ["read"],
        created_at=START,
        expires_at=START + 100,
        declared_by="sha256-1",
    )
    store = database.Database(tmp_path / "node.db")
    await store.open({"access": "toft.access"})

    async def lets_in(at: float, known: token.Token = told, *, most: int = 100) -> bool:
        """Say whether a process that starts at a moment lets it in then, and what is written is written."""
        process = Tokens(store, clock=clocks.ManualClock(at), declared={digest: known}, most=most)
        found = await (await process.open()).resolve(text)
        await process.close()
        return found is not None

    assert await lets_in(START + 10)
    assert await lets_in(START + 90)
    early = Tokens(store, clock=(clock := clocks.ManualClock(START + 10)), declared={digest: told})
    await early.open()
    assert await early.resolve(text) is not None
    clock.advance(20)
    assert await early.resolve(text) is None, "it was seen ten seconds before its end"
    await early.close()
    assert not await lets_in(START + 10), "it had ended"
    later = dataclasses.replace(told, expires_at=START + 200)
    assert await lets_in(START + 10, later), "another document lets it last longer"
    assert not await lets_in(START + 10), "and this one does not"
    for number in range(8):
        await lets_in(START + number, dataclasses.replace(told, expires_at=START + 1000 + number))
    await lets_in(START, most=2)
    rows = await store.read(lambda c: c.execute("SELECT count(*) AS n FROM declared_tokens").fetchone())
    assert rows["n"] <= 3, "what nobody declares any more is forgotten"
    await store.close()
