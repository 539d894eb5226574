"""Central without a network: clocks, layers, numbers, restarts, and what nobody may change unseen."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping
from typing import Any

import pytest

from toft.api.central.pace import Pace
from toft.central import admission, audit, layers, literals, nodes, saving, tokens
from toft.central.documents import Group
from toft.central.nodes import Node
from toft.central.room import Central
from toft.central.waiting import Waiting
from toft.kernel import clock as clocks
from toft.kernel import errors, lasting
from toft.managed import document, messages, protocol
from toft.managed.signatures import PrivateKey
from toft.store import database

URL = "https://central.example"
DAY_S = 86_400.0


@pytest.fixture
def clock() -> clocks.ManualClock:
    return clocks.ManualClock()


@pytest.fixture
async def central(store: database.Database, clock: clocks.ManualClock) -> Central:
    return await Central(store, [URL], clock=clock).open()


async def save(
    central: Central, layer: Mapping[str, Any], *, publish: bool = True, **more: Any
) -> saving.Preview:
    place = {"tenant": "main", "scope": "tenant", "target": "", **more}
    if place["scope"] == "tenant":
        layer = {"control": {"urls": [URL]}, **layer}
    preview = await central.saving.save(saving.Wish(layer=layer, author="me", **place))
    if publish:
        await central.publish(preview.document, preview.number, by="me")
    return preview


async def join(
    central: Central, key: PrivateKey | None = None, text: str = "", **wish: Any
) -> tuple[Node, str, PrivateKey]:
    key = key or PrivateKey.make()
    if not text:
        _, text = await central.tokens.create(
            "main", tokens.Wish(labels=wish.pop("labels", {}), **wish), by="me"
        )
    asked = messages.read_enroll(
        messages.enroll(text, key, secrets.token_hex(16), messages.Facts(hostname="h"))
    )
    node, credential, _, _ = await central.admission.enroll(asked)
    return node, credential, key


async def test_a_credential_is_good_for_a_day_and_an_old_one_for_ten_minutes(
    central: Central, clock: clocks.ManualClock
) -> None:
    node, old, _ = await join(central)
    new, _ = await central.admission.refresh(node)
    assert central.admission.node_of(old) is central.admission.node_of(new) is node
    clock.advance(protocol.OVERLAP_S + 1)
    with pytest.raises(errors.RefusedError, match="not good"):
        central.admission.node_of(old)
    assert central.admission.node_of(new) is node
    clock.advance(protocol.CREDENTIAL_S)
    with pytest.raises(errors.RefusedError, match="not good"):
        central.admission.node_of(new)


async def test_a_key_brings_a_node_back_for_thirty_days(central: Central, clock: clocks.ManualClock) -> None:
    node, _, key = await join(central)

    def asked() -> messages.Refresh:
        body = messages.refresh(node.id, key, secrets.token_hex(16), clock.now())
        return messages.read_refresh(body)

    clock.advance(DAY_S + 29 * DAY_S)
    assert (await central.admission.signed_refresh(asked()))[0] is node
    clock.advance(DAY_S + 31 * DAY_S)
    with pytest.raises(errors.RefusedError):
        await central.admission.signed_refresh(asked())
    again, _, _ = await join(central, key)
    assert again is node, "a token brings back the same node"


async def test_a_join_token_ends_by_time_but_an_answer_that_was_lost_does_not(
    central: Central, clock: clocks.ManualClock
) -> None:
    made, text = await central.tokens.create("main", tokens.Wish(labels={}, lasts_s=60.0), by="me")
    node, _, key = await join(central, text=text)
    clock.advance(61)
    with pytest.raises(admission.JoinRefusedError) as expired:
        await join(central, text=text)
    assert (await join(central, key, text=text))[0] is node
    await central.tokens.revoke("main", made["id"], by="me")
    with pytest.raises(admission.JoinRefusedError) as revoked:
        await join(central, key, text=text)
    for refused in (expired, revoked):
        await central.admission.note_refused(refused.value)
    told = [
        each["details"]["reason"]
        for each in await audit.entries(central.store)
        if "reason" in each["details"]
    ]
    assert told == ["revoked token", "expired token"]


@pytest.mark.parametrize(
    "wish",
    [
        {"max_uses": 2},
        {"max_uses": 0},
        {"lasts_s": 8 * DAY_S},
        {"max_uses": 2, "group": "g", "lasts_s": 91 * DAY_S},
        {"lasts_s": 0.0},
        {"labels": {"Role": "x"}},
        {"labels": {"role": "\x1b"}},
    ],
)
async def test_a_join_token_allows_only_what_a_fleet_can_bear(central: Central, wish: dict[str, Any]) -> None:
    with pytest.raises(errors.UsageError):
        await central.tokens.create("main", tokens.Wish(**{"labels": {}, **wish}), by="me")


async def test_what_is_merged_is_the_same_bytes_before_and_after_a_restart(
    central: Central, store: database.Database, clock: clocks.ManualClock
) -> None:
    await save(central, {"x-a": 1, "settings": {"lanes": 1}})
    node, _, _ = await join(central)
    await save(central, {"x-b": 2, "settings": {"lanes": None}}, scope="node", target=node.id)
    offer = await central.offers.offered(node)
    assert offer is not None
    value = json.loads(offer.served.data)
    assert (value["x-a"], value["x-b"], value["settings"], value["tenant"]) == (1, 2, {}, "main")
    assert value["revision"] == offer.served.revision == 2
    again = await Central(store, [URL], clock=clock).open()
    known = again.nodes.find(node.id)
    assert known is not None
    served = await again.offers.offered(known)
    assert served is not None
    assert served.served.data == offer.served.data
    assert document.etag_of(served.served.data) == offer.served.etag


async def test_a_layer_that_does_not_fit_another_one_is_refused_for_whom_it_reaches(central: Central) -> None:
    await save(central, {})
    node, _, _ = await join(central)
    await save(central, {"health": {"settle_s": 5}}, scope="node", target=node.id)
    with pytest.raises(document.DocumentError, match=f"the node {node.id}"):
        await save(
            central, {"control": {"urls": ["https://elsewhere.example"]}}, scope="node", target=node.id
        )
    with pytest.raises(errors.ConflictError) as caught:
        await central.saving.save(
            saving.Wish(
                tenant="main",
                scope="tenant",
                target="",
                layer={"control": {"urls": [URL]}},
                author="me",
                base=0,
            )
        )
    assert caught.value.code == "central.revision_conflict"


async def test_a_preview_changes_nothing_and_says_what_would(central: Central) -> None:
    await save(central, {"x-note": "old"})
    group = Group(tenant="main", name="gpu", selector={"role": "gpu"}, priority=0)
    await central.documents.put_group(group, by="me")
    for role in ("gpu", "gpu", "cpu"):
        await join(central, labels={"role": role})
    before = await audit.verify(central.store)
    wish = saving.Wish(tenant="main", scope="group", target="gpu", layer={"x-note": "new"}, author="me")
    preview = await central.saving.save(wish, dry_run=True)
    (change,) = preview.changes
    assert (change.group, change.nodes) == ("gpu", 2)
    assert '-  "x-note": "old"' in change.diff
    assert '+  "x-note": "new"' in change.diff
    assert await audit.verify(central.store) == before
    assert central.documents.find("main", "group", "gpu") is None


async def test_the_audit_log_shows_what_was_changed_or_taken_out(
    central: Central, store: database.Database
) -> None:
    for n in range(5):
        await save(central, {"x-n": n})
    whole = await audit.verify(store)
    assert whole.broken_at is None
    sql = "UPDATE audit SET actor = 'nobody' WHERE seq = 4"
    await store.write(lambda connection: connection.execute(sql).close())
    assert (await audit.verify(store)).broken_at == 4
    sql = "DELETE FROM audit WHERE seq = 4"
    await store.write(lambda connection: connection.execute(sql).close())
    assert (await audit.verify(store)).broken_at == 4


async def test_a_report_changes_only_what_is_older(central: Central) -> None:
    node, _, _ = await join(central)
    heard: list[str] = []
    central.reports.taken.append(lambda _, report: heard.append(report["phase"]))

    async def report(boot: str, seq: int, phase: str) -> None:
        await central.reports.take(node, {"boot_nonce": boot, "seq": seq, "phase": phase})

    await report("a", 1, "one")
    await report("a", 3, "three")
    await report("a", 2, "two")
    await report("a", 3, "again")
    assert (heard, node.report["phase"], node.restored_at) == (["one", "three"], "three", None)
    await report("b", 4, "four")
    assert node.restored_at is None
    await report("c", 2, "back")
    assert node.restored_at is not None
    assert node.report["phase"] == "back"
    for boot in ("d", "e", "f"):
        await report(boot, 0, "back")
    told = [each["action"] for each in await audit.entries(central.store)]
    assert told.count("node.restored") == 1, "what a node says of itself fills nobody's log"


async def test_who_is_thrown_out_while_somebody_lets_it_in_stays_out(central: Central) -> None:
    node, _, _ = await join(central)
    node.state = "pending"
    done = await asyncio.gather(
        central.nodes.set_state(node, "revoked", by="one"),
        central.nodes.set_state(node, "active", by="another"),
        return_exceptions=True,
    )
    assert done[0] is None
    assert isinstance(done[1], errors.ConflictError)
    assert node.state == "revoked"


async def test_one_waits_for_each_node_and_only_so_many() -> None:
    waiting = Waiting(slots=2)
    first = asyncio.create_task(waiting.wait("a", 60))
    other = asyncio.create_task(waiting.wait("b", 60))
    await asyncio.sleep(0)
    assert not waiting.may("c")
    assert waiting.may("a")
    second = asyncio.create_task(waiting.wait("a", 60))
    assert await first is False, "its place was taken by the same node"
    waiting.wake("a")
    assert await second is True
    waiting.close()
    assert await other is False
    assert (len(waiting), waiting.may("a")) == (0, False)


def test_a_node_may_ask_often_for_a_moment_and_seldom_for_long() -> None:
    clock = clocks.ManualClock()
    pace = Pace(clock, at_once=3, each_s=4.0)
    for _ in range(3):
        pace.step("a")
    with pytest.raises(errors.UnavailableError) as caught:
        pace.step("a")
    assert caught.value.retry_after_s == 4.0
    pace.step("b")
    pace.give_back("a")
    pace.step("a")
    pace.give_back("c")
    for _ in range(10):
        clock.advance(4.0)
        pace.step("a")


def test_layers_replace_merge_and_take_away() -> None:
    assert layers.merge(
        [{"a": {"b": 1, "c": [1]}, "d": 1}, {"a": {"b": None, "c": [2]}}, {"d": {"e": 1}}]
    ) == {
        "a": {"c": [2]},
        "d": {"e": 1},
    }
    assert layers.matches({"role": ["gpu", "tpu"], "ring": "1"}, {"role": "tpu", "ring": "1"})
    assert not layers.matches({"role": "gpu"}, {})
    assert layers.matches({}, {})


@pytest.mark.parametrize(
    ("value", "is_secret"),
    [
        ({"api_key": "abc"}, True),
        ({"db_password": "x"}, True),
        ({"password": "store:db"}, False),
        ({"max_tokens": "4"}, False),
        ({"tokenizer": "bert"}, False),
        ({"note": "-----BEGIN RSA PRIVATE KEY-----"}, True),
        ({"url": "postgres://user:pw@db.example/db"}, True),
        ({"url": "https://db.example/path"}, False),
        ({"list": ["AKIA" + "A" * 16]}, True),
        ({"instances": {"ocr": {"secrets": {"token": "store:KEY"}}}}, False),
        ({"password": ""}, False),
    ],
)
def test_what_looks_like_a_secret_is_found_and_left_out(value: dict[str, Any], is_secret: bool) -> None:
    assert bool(list(literals.found_in(value))) is is_secret
    assert (literals.redacted(value) != value) is is_secret


async def test_what_no_node_is_given_any_more_is_let_go_and_read_again_for_who_asks(central: Central) -> None:
    first = await save(central, {"settings": {"lanes": 1}})
    node, _, _ = await join(central)
    old = await central.offers.offered(node)
    assert old is not None
    for lanes in range(2, 5):
        await save(central, {"settings": {"lanes": lanes}})
        new = await central.offers.offered(node)
    assert len(central.offers._merged) == len(central.offers._by_hash) == 4
    central.tidy()
    assert len(central.offers._merged) == len(central.offers._by_hash) == 1
    assert list(central.documents._layers) == [(first.document.id, 4)]
    assert await central.offers.offered(node) == new
    found = await central.offers.find("main", old.served.sha256)
    assert found is not None
    assert found.data == old.served.data


async def test_who_was_seen_is_written_down_once_the_disk_takes_it(
    store: database.Database, central: Central
) -> None:
    await save(central, {})
    node, _, _ = await join(central)
    await central.nodes.write_seen()

    class Full:
        read = store.read

        async def write(self, work: object) -> None:
            raise errors.UnavailableError("no space")

    central.nodes._store = Full()  # type: ignore[assignment]
    central.nodes.see(node, "sha256-" + "1" * 64)
    with pytest.raises(errors.UnavailableError):
        await central.nodes.write_seen()
    central.nodes._store = store
    await central.nodes.write_seen()
    known = nodes.Nodes(store)
    await known.open()
    assert known.get("main", node.id).asked_etag == "sha256-" + "1" * 64


async def test_work_that_ends_by_what_nobody_thought_of_is_begun_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun: list[int] = []
    again = asyncio.Event()

    async def work() -> None:
        begun.append(1)
        if len(begun) == 1:
            raise ZeroDivisionError
        again.set()
        await asyncio.Event().wait()

    kept = asyncio.create_task(lasting.keep_on(work, again_s=0.0))
    await again.wait()
    kept.cancel()
    assert "work_failed" in caplog.text


async def test_nothing_is_published_that_makes_no_document_with_other_layers(central: Central) -> None:
    await central.documents.put_group(Group(tenant="main", name="gpu", selector={}, priority=1), by="me")
    gate = {"health": {"gates": {"web": {"kind": "http", "url": "http://localhost/"}}}}
    await save(central, gate)
    bare = await save(central, {}, publish=False)
    off = {"health": {"gates": {"web": {"required": False}}}}
    group = await save(central, off, scope="group", target="gpu")
    with pytest.raises(errors.ConflictError) as refused:
        await central.publish(bare.document, bare.number, by="me")
    assert refused.value.code == "rollout.unfit"
    assert group.document.published == group.number
