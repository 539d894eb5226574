"""What central knows by heart is what stands on its disk, whatever becomes of who changes it."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from toft.central import saving, tokens
from toft.central.documents import Group
from toft.central.launching import Wish
from toft.central.nodes import Node
from toft.central.room import Central
from toft.kernel import clock as clocks
from toft.kernel import errors
from toft.managed import messages, signatures
from toft.managed.signatures import PrivateKey, Root
from toft.store import database

T = TypeVar("T")
URL = "https://central.example"
KEY, SIGNER = PrivateKey(bytes([1]) * 32), PrivateKey(bytes([2]) * 32)
NONCE = "0" * 32


class Frail:
    """A database that refuses one of its transactions, or during which whoever asks is cancelled.

    Args:
        store: The real one.
    """

    def __init__(self, store: database.Database) -> None:
        self._store = store
        self.writes = 0
        self.full_at: int | None = None
        self.cancelled_at: int | None = None
        self.task: asyncio.Task[Any] | None = None

    async def read(self, work: Callable[[database.Connection], T]) -> T:
        return await self._store.read(work)

    async def write(self, work: Callable[[database.Connection], T]) -> T:
        number, self.writes = self.writes, self.writes + 1
        if number == self.full_at:
            raise errors.UnavailableError("the disk is full", code="store.disk_full")
        if number == self.cancelled_at:
            assert self.task is not None
            self.task.cancel()
        return await self._store.write(work)


async def made(path: Path, clock: clocks.Clock) -> None:
    """Make a database with one of everything: the first revision is published, the second only saved."""
    store = database.Database(path)
    await store.open({"central": "toft.central"})
    central = await Central(store, [URL], clock=clock).open()
    await central.documents.put_group(Group(tenant="main", name="gpu", selector={}, priority=1), by="me")
    for number in (1, 2):
        await save(central, number)
        if number == 1:
            await central.publish(central.documents.of("main")[0], 1, by="me")
    for key, needs_approval in ((KEY, False), (SIGNER, True)):
        wish = tokens.Wish(labels={}, needs_approval=needs_approval)
        _, text = await central.tokens.create("main", wish, by="me")
        await central.admission.enroll(
            messages.read_enroll(messages.enroll(text, key, NONCE, messages.Facts(hostname="h")))
        )
    await store.close()


async def save(central: Central, number: int, scope: str = "tenant", target: str = "") -> saving.Preview:
    control = {"control": {"urls": [URL]}} if scope == "tenant" else {}
    layer = {"settings": {"lanes": number}, **control}
    return await central.saving.save(
        saving.Wish(tenant="main", scope=scope, target=target, layer=layer, author="me")
    )


def node(central: Central, state: str = "active") -> Node:
    return next(each for each in central.nodes if each.state == state)


async def offer(central: Central) -> None:
    found = await central.offers.offered(node(central))
    assert found is not None
    await central.note_offer(node(central), found.served.sha256)


async def enroll(central: Central, key: PrivateKey) -> None:
    _, text = await central.tokens.create("main", tokens.Wish(labels={"a": "b"}), by="me")
    body = messages.enroll(text, key, NONCE, messages.Facts(hostname="other"))
    await central.admission.enroll(messages.read_enroll(body))


async def refresh(central: Central) -> None:
    body = messages.refresh(node(central).id, KEY, secrets.token_hex(16), central.clock.now())
    await central.admission.signed_refresh(messages.read_refresh(body))


async def rotate(central: Central) -> None:
    new = PrivateKey(bytes([3]) * 32)
    body = messages.rotate_key(node(central).id, KEY, new, NONCE, central.clock.now())
    await central.admission.rotate(messages.read_rotate_key(body))


async def add_root(central: Central) -> None:
    root = Root.of(1, 1, [SIGNER.public])
    by = signatures.sign(signatures.ROOT_TYPE, root.data, SIGNER)
    await central.trusts.add_root("main", signatures.SignedRoot(root.data, (by,)), by="me")


async def sign(central: Central) -> None:
    await add_root(central)
    (payload, *_) = await central.payloads(central.documents.of("main")[0], 1)
    by = signatures.sign(signatures.DOCUMENT_TYPE, payload.data, SIGNER)
    await central.trusts.sign("main", payload.data, [by], by="me")


async def report(central: Central) -> None:
    await central.reports.take(node(central), {"boot_nonce": "a", "seq": 1, "phase": "idle", "platform": "x"})


async def roll_out(central: Central) -> None:
    document = central.documents.of("main")[0].id
    rollout = await central.launching.create(Wish(tenant="main", document=document, by="me"))
    await central.launching.ask("main", rollout.id, "pause", by="me")
    await central.launching.ask("main", rollout.id, "abort", by="me")


ACTS: dict[str, Callable[[Central], Awaitable[Any]]] = {
    "add a tenant": lambda central: central.documents.add_tenant("acme", by="me"),
    "make a group": lambda central: central.documents.put_group(
        Group(tenant="main", name="cpu", selector={"role": "cpu"}, priority=2), by="me"
    ),
    "take a group away": lambda central: central.documents.delete_group("main", "gpu", by="me"),
    "save another revision": lambda central: save(central, 3),
    "save the first revision of a group": lambda central: save(central, 3, "group", "gpu"),
    "publish": lambda central: central.publish(central.documents.of("main")[0], 2, by="me"),
    "publish nothing": lambda central: central.publish(central.documents.of("main")[0], None, by="me"),
    "add a trust root": add_root,
    "sign": sign,
    "approve": lambda central: central.nodes.set_state(node(central, "pending"), "active", by="me"),
    "revoke": lambda central: central.nodes.set_state(node(central), "revoked", by="me"),
    "label": lambda central: central.label(node(central), {"a": "b"}, name="n", group="gpu", by="me"),
    "pin": lambda central: central.nodes.pin(node(central), "1" * 64, by="me"),
    "retry": lambda central: central.nodes.retry(node(central), by="me"),
    "note what was given": offer,
    "join": lambda central: enroll(central, PrivateKey(bytes([4]) * 32)),
    "join again": lambda central: enroll(central, KEY),
    "refresh": refresh,
    "rotate a key": rotate,
    "report": report,
    "roll out": roll_out,
}


def known(central: Central) -> dict[str, Any]:
    """Return all that central goes by without looking at the disk."""
    nodes = ("public_key", "assigned_group", "boot_nonce", "seq", "report")
    return {
        "groups": {
            each: [group.to_dict() for group in central.documents.groups(each)]
            for each in central.documents.tenants
        },
        "documents": {
            each: [document.to_dict() for document in central.documents.of(each)]
            for each in central.documents.tenants
        },
        "nodes": {
            each.id: {**each.to_dict(), **{name: getattr(each, name) for name in nodes}}
            for each in central.nodes
        },
        "roots": [each.data for each in central.trusts.after("main", -1)],
        "credentials": dict(central.admission._credentials),
        "rollouts": {id: each.state for id, each in central.rollouts._records.items()},
        "attempts": dict(central.rollouts._attempts),
    }


async def vouched(central: Central) -> list[bool]:
    document = central.documents.of("main")[0]
    return [each.is_vouched for each in await central.payloads(document, 1)]


async def _act(path: Path, act: Callable[[Central], Awaitable[Any]], fails: str, at: int) -> bool:
    """Do something whose write of that number fails; say whether it had that many."""
    clock = clocks.ManualClock()
    store = database.Database(path)
    await store.open({"central": "toft.central"})
    try:
        frail = Frail(store)
        central = await Central(frail, [URL], clock=clock).open()
        await vouched(central)
        before, done = known(central), frail.writes
        setattr(frail, fails, done + at)
        frail.task = asyncio.ensure_future(act(central))
        error: BaseException | None = None
        try:
            await frail.task
        except (errors.UnavailableError, asyncio.CancelledError) as caught:
            error = caught
        if frail.writes == done + at:
            assert error is None
            return False
        assert error is not None
        fresh = await Central(store, [URL], clock=clock).open()
        seen = known(fresh)
        # An aborted rollout is known of until a restart: nodes that had it may be on their way back.
        ended = {id for id in known(central)["rollouts"] if id not in seen["rollouts"]}
        assert known(central) == {**seen, "rollouts": {**seen["rollouts"], **dict.fromkeys(ended, "aborted")}}
        assert await vouched(central) == await vouched(fresh)
        if fails == "full_at" and not at:
            assert known(central) == before
        return True
    finally:
        await store.close()


@pytest.mark.parametrize("fails", ["full_at", "cancelled_at"])
@pytest.mark.parametrize("name", ACTS)
async def test_it_is_what_a_restart_would_read(tmp_path: Path, name: str, fails: str) -> None:
    await made(tmp_path / "made.db", clocks.ManualClock())
    count = 0
    while True:
        path = tmp_path / f"{count}.db"
        await asyncio.to_thread(shutil.copyfile, tmp_path / "made.db", path)
        if not await _act(path, ACTS[name], fails, count):
            break
        count += 1
    assert count
