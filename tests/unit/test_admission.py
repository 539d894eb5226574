"""Which documents a node takes: the order of the checks, and what each of them refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from toft.kernel import clock as clocks
from toft.kernel.errors import IntegrityError, NodeError, UnavailableError
from toft.managed import admission, belonging, document, generations, moments, signatures, staging
from toft.managed.admission import Node
from toft.managed.phases import Severity
from toft.managed.signatures import DOCUMENT_TYPE, PrivateKey, Root, Signature

ONE, TWO, ENEMY = (PrivateKey(bytes([each]) * 32) for each in (1, 2, 3))
NODE_ID = "node_01ARZ3NDEKTSV4RRFFQ69G5FAV"
NOW = clocks.from_rfc3339("2026-11-27T12:00:00Z")
SIGNED = Node(root=Root.of(1, 1, [ONE.public]), node_id=NODE_ID, tenant="acme", group="edge")


def data(**values: Any) -> bytes:
    return document.encode({"schema_version": 1, "revision": 7, **values})


def signed(content: bytes, *keys: PrivateKey) -> list[Signature]:
    return [signatures.sign(DOCUMENT_TYPE, content, each) for each in keys]


def refusal(
    content: bytes, node: Node = SIGNED, *, etag: str = "", by: tuple[PrivateKey, ...] = (ONE,)
) -> str:
    with pytest.raises(NodeError) as caught:
        admission.admit(content, etag=etag, signed=signed(content, *by), node=node, now_s=NOW)
    return caught.value.code


def test_what_is_signed_for_this_node_and_in_time_is_taken() -> None:
    content = data(
        tenant="acme",
        audience={"node_id": NODE_ID, "group": "edge"},
        not_before="2026-11-27T12:00:00Z",
        expires_at="2026-11-27T12:00:01Z",
        min_agent_version="0.0.1",
    )
    node = Node(**{**vars(SIGNED), "floor": 7})
    found, key_ids = admission.admit(
        content, etag=document.etag_of(content), signed=signed(content, ENEMY, ONE), node=node, now_s=NOW
    )
    assert (found.data, key_ids) == (content, (ONE.public.key_id,))


def test_the_checks_have_an_order() -> None:
    # Everything is wrong with it; what is told is the first, and the form of it is not even looked at.
    bad = data(
        tenant="other", min_agent_version="99", expires_at="2020-01-01T00:00:00Z", nonsense=1, revision=1
    )
    node = Node(**{**vars(SIGNED), "floor": 5})
    assert refusal(bad, node, etag="sha256-" + "0" * 64) == "document.other_bytes"
    assert refusal(bad, node, by=(ENEMY,)) == "document.signature_invalid"
    assert refusal(bad, node) == "document.invalid"
    values = {
        "tenant": "other",
        "min_agent_version": "99",
        "expires_at": "2020-01-01T00:00:00Z",
        "revision": 1,
    }
    order = []
    for name in ("tenant", "revision", "expires_at", "min_agent_version"):
        order.append(refusal(data(**values), node))
        del values[name]
    assert order == [
        "document.other_audience",
        "document.downgrade_refused",
        "document.expired",
        "document.needs_newer",
    ]


def test_once_somebody_has_to_sign_nothing_else_is_taken() -> None:
    content = data()
    assert refusal(content, by=()) == "document.signature_invalid"
    assert refusal(content, by=(ENEMY,)) == "document.signature_invalid"
    two = Node(root=Root.of(1, 2, [ONE.public, TWO.public]))
    assert refusal(content, two, by=(ONE, ONE)) == "document.signature_invalid"
    with pytest.raises(admission.UnsignedError) as caught:
        admission.admit(data(revision=8), signed=signed(content, ONE), node=SIGNED, now_s=NOW)
    assert (caught.value.reason, caught.value.severity) == ("signature_invalid", Severity.PERMANENT)
    # Where nobody has to, nobody is asked.
    assert admission.admit(content, signed=signed(content, ENEMY), node=Node(), now_s=NOW)[1] == ()


@pytest.mark.parametrize(
    "values",
    [
        {"tenant": "acme2"},
        {"audience": {"node_id": NODE_ID[:-1] + "0"}},
        {"audience": {"group": "lab"}},
        {"audience": {"node_id": NODE_ID, "group": "lab"}},
    ],
)
def test_what_is_for_others_is_refused(values: dict[str, Any]) -> None:
    assert refusal(data(**values)) == "document.other_audience"


def test_a_node_that_was_not_told_its_group_takes_what_is_for_one() -> None:
    told_nothing = Node(root=SIGNED.root, node_id=NODE_ID)
    content = data(tenant="any", audience={"group": "any", "node_id": NODE_ID})
    assert admission.admit(content, signed=signed(content, ONE), node=told_nothing, now_s=NOW)
    # Who it is, it knows, also when it is nobody.
    assert refusal(content, Node(root=SIGNED.root)) == "document.other_audience"


def test_time_comes_in_and_decides_on_the_moment() -> None:
    content = data(not_before="2026-11-27T12:00:00.5Z")
    assert refusal(content) == "document.too_early"
    with pytest.raises(UnavailableError):
        admission.admit(content, signed=signed(content, ONE), node=SIGNED, now_s=NOW)
    assert refusal(data(expires_at="2026-11-27T12:00:00Z")) == "document.expired"
    assert refusal(data(min_agent_version="not a version")) == "document.needs_newer"


def test_an_old_document_is_no_way_back() -> None:
    node = Node(**{**vars(SIGNED), "floor": 7})
    assert refusal(data(revision=6), node) == "document.downgrade_refused"
    assert refusal(document.encode({"schema_version": 1}), node) == "document.downgrade_refused"
    # Where nobody signs, a document without a number is one that somebody wrote by hand.
    assert admission.admit(document.encode({"schema_version": 1}), node=Node(floor=7), now_s=NOW)
    assert refusal(data(revision=6), Node(floor=7)) == "document.downgrade_refused"
    old = document.parse(data(revision=6))
    admission.fit(old, (), node=Node(floor=7), now_s=NOW, is_asked=True)
    with pytest.raises(admission.DowngradeError):
        admission.fit(old, (ONE.public.key_id,), node=node, now_s=NOW, is_asked=True)


def test_one_step_back_stays_possible_unless_the_author_says_otherwise() -> None:
    def floor(revision: int | None, is_signed: bool = True, **values: Any) -> int:
        return admission.floor(document.parse(data(**values)), revision=revision, is_signed=is_signed)

    assert floor(5) == 5
    assert floor(9) == 7  # going back by one raises nothing
    assert floor(None) == 0
    assert floor(5, is_signed=False) == 0
    assert floor(5, revision_floor=2) == floor(5, False, revision_floor=2) == 2


class Home:
    """A node that belongs somewhere, its files and its time."""

    def __init__(self, path: Path, root: Root | None) -> None:
        self.engine = generations.Generations(path, moments.read)
        value = {"node_id": NODE_ID, "control_urls": ["https://c.example"]}
        value["root"] = None if root is None else root.to_value()  # type: ignore[assignment]
        (path / belonging.ENROLLMENT).write_text(json.dumps(value))
        self.engine.boot("first")

    async def stage(
        self, content: bytes, *keys: PrivateKey, nonce: str = "first", **known: Any
    ) -> staging.Staged:
        node = admission.Node.of_membership(self.engine.belonging.membership())
        key_ids = admission.vouch(content, signed=signed(content, *keys), root=node.root) if keys else ()
        return await staging.stage(
            self.engine, document.parse(content), nonce=nonce, source="test", key_ids=key_ids, **known
        )

    async def run(self, content: bytes, *keys: PrivateKey) -> None:
        assert (await self.stage(content, *keys)).action == "applied"
        assert self.engine.confirm(self.engine.boot("next"))
        self.engine.boot("first")


async def test_nobody_commits_what_nobody_has_vouched_for(tmp_path: Path) -> None:
    home = Home(tmp_path, SIGNED.root)
    for is_asked in (True, False):
        with pytest.raises(admission.UnsignedError):
            await home.stage(data(), is_asked=is_asked)
    [bad] = home.engine.read().state.bad
    assert (bad.reason, bad.severity) == ("signature_invalid", Severity.PERMANENT)
    assert (await home.stage(data(revision=8), ONE)).action == "applied"
    slot = home.engine.read().slots["b"]
    assert slot.meta.key_ids == (ONE.public.key_id,)


async def test_an_old_signed_document_cannot_be_played_back(tmp_path: Path) -> None:
    home = Home(tmp_path, SIGNED.root)
    for revision in (3, 5, 7):
        await home.run(data(revision=revision), ONE)
    await home.run(data(revision=5), ONE)
    with pytest.raises(admission.DowngradeError):
        await home.stage(data(revision=3), ONE)
    assert home.engine.read().state.floor == 5


async def test_the_later_of_two_clocks_counts(tmp_path: Path) -> None:
    home = Home(tmp_path, None)
    over = clocks.rfc3339(moments.read().wall_s + 3600)
    with pytest.raises(admission.ExpiredError):
        await home.stage(data(expires_at=over), now_s=moments.read().wall_s + 7200)
    [bad] = home.engine.read().state.bad
    assert (bad.reason, bad.severity) == ("document_expired", Severity.SUSPECT)
    with pytest.raises(UnavailableError):
        await home.stage(data(not_before=over), now_s=0.0)
    assert len(home.engine.read().state.bad) == 1


async def test_a_clock_that_is_ahead_condemns_no_document(tmp_path: Path) -> None:
    home = Home(tmp_path, None)
    now_s = moments.read().wall_s
    with pytest.raises(UnavailableError) as caught:
        await home.stage(data(expires_at=clocks.rfc3339(now_s - 60)), now_s=now_s - 120)
    assert caught.value.code == "document.clock_ahead"
    assert home.engine.read().state.bad == ()
    with pytest.raises(admission.ExpiredError):
        await home.stage(data(expires_at=clocks.rfc3339(now_s - 60)), now_s=0.0)


async def test_whom_to_trust_is_not_guessed(tmp_path: Path) -> None:
    home = Home(tmp_path, SIGNED.root)
    for text in ('{"root": ', "[]", ""):
        (tmp_path / belonging.ENROLLMENT).write_text(text)
        with pytest.raises(IntegrityError):
            await home.stage(data(), is_asked=True)
    (tmp_path / belonging.ENROLLMENT).write_text('{"root": {"keys": {}}}')
    with pytest.raises(signatures.BadKeyError):
        await home.stage(data(), is_asked=True)
    (tmp_path / belonging.ENROLLMENT).unlink()
    (tmp_path / belonging.SEED).write_text(json.dumps({"root": SIGNED.root and SIGNED.root.to_value()}))
    with pytest.raises(admission.UnsignedError):
        await home.stage(data(), is_asked=True)
