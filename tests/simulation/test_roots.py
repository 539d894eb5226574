"""Who signs may change: a node follows those it trusts to those they name, and nobody else.

The central, the disk and the time are those of the test of memberships.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.simulation.test_membership import (
    FIRST,
    SECOND,
    SIGNERS,
    URL,
    Server,
    Wire,
    World,
    asks,
    begin,
    run,
    signed_root,
)

from toft.managed import admission, document, messages, protocol, signatures, vouching
from toft.managed.signatures import Root, SignedRoot
from toft.managed.transport import AnswerError, UnreachableError

DATA = document.encode({"schema_version": 1, "revision": 7})
THIRD = Root.of(3, 1, [SIGNERS[3].public])
PAIR = Root.of(1, 2, [SIGNERS[number].public for number in (1, 4, 5)])
TO_SECOND = signed_root(SECOND, 1, 2)


def header(*keys: int) -> str:
    by = [signatures.sign(signatures.DOCUMENT_TYPE, DATA, SIGNERS[number]) for number in keys]
    return messages.encode_signatures(by)


def vouched(world: World, *keys: int, wire: Wire | None = None) -> tuple[signatures.KeyId, ...]:
    """Let a node that has just started look at a document that these have signed."""
    credentials = world.credentials(wire)
    found: Awaitable[Any] = vouching.signers(
        credentials, URL, DATA, etag=document.etag_of(DATA), header=header(*keys)
    )
    return run(world, found)  # type: ignore[no-any-return]


def kept(world: World) -> Root:
    found = world.files().read().enrollment
    assert found is not None
    return Root.of_value(found.root)


def enrolled(trusted: Root, *chain: SignedRoot) -> World:
    world = World().seeded(root=trusted.to_value())
    run(world, asks(world.credentials()))
    world.server.roots = list(chain)
    world.server.asked.clear()
    return world


def test_a_document_by_those_whom_the_trusted_keys_have_named_since_is_taken() -> None:
    world = enrolled(FIRST, TO_SECOND, signed_root(THIRD, 2, 3))
    assert vouched(world, 1) == (SIGNERS[1].public.key_id,)
    assert protocol.ROOTS not in world.server.asked, "nobody asks while the keys that are known will do"
    assert vouched(world, 3) == (SIGNERS[3].public.key_id,)
    assert world.server.asked == [protocol.ROOTS]
    membership = world.files().read().membership
    assert membership is not None
    node = admission.Node.of_membership(membership.to_enrollment())
    assert node.root == THIRD, "it is on the disk"
    admission.admit(DATA, signed=messages.decode_signatures(header(3)), node=node, now_s=0.0)
    world.server.roots = []
    assert vouched(world, 3) == (SIGNERS[3].public.key_id,)
    for former in (1, 2):
        with pytest.raises(admission.UnsignedError):
            vouched(world, former)
    assert kept(world) == THIRD


def test_newer_keys_are_kept_even_when_they_do_not_vouch_for_this_document() -> None:
    world = enrolled(FIRST, TO_SECOND)
    with pytest.raises(admission.UnsignedError) as refused:
        vouched(world, 3)
    assert refused.value.details["root_version"] == 2
    assert kept(world) == SECOND


CHAINS: dict[str, tuple[Root, list[SignedRoot], int]] = {
    "none": (FIRST, [], 2),
    "one is left out": (FIRST, [signed_root(THIRD, 1, 3)], 3),
    "one is left out later": (FIRST, [TO_SECOND, signed_root(Root.of(4, 1, [SIGNERS[3].public]), 2, 3)], 3),
    "by strangers": (FIRST, [signed_root(SECOND, 5, 2)], 2),
    "by the new key alone": (FIRST, [signed_root(SECOND, 2)], 2),
    "by the old key alone": (FIRST, [signed_root(SECOND, 1)], 2),
    "other bytes are signed": (FIRST, [SignedRoot(SECOND.data, signed_root(THIRD, 1, 2).signatures)], 2),
    "of the same version": (FIRST, [signed_root(Root.of(1, 1, [SIGNERS[2].public]), 1, 2)], 2),
    "of a lower version": (FIRST, [signed_root(Root.of(0, 1, [SIGNERS[2].public]), 1, 2)], 2),
    "by too few": (PAIR, [signed_root(SECOND, 1, 2)], 2),
    "by one twice": (PAIR, [signed_root(SECOND, 1, 1, 2)], 2),
    "no root": (FIRST, [SignedRoot(b"{}", TO_SECOND.signatures)], 2),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_that_does_not_hold_changes_nothing(name: str) -> None:
    trusted, chain, signer = CHAINS[name]
    world = enrolled(trusted, *chain)
    before = repr(world.root)
    with pytest.raises(admission.UnsignedError):
        vouched(world, signer)
    assert protocol.ROOTS in world.server.asked
    assert (kept(world), repr(world.root)) == (trusted, before), "who was trusted still is, and nobody else"
    assert vouched(world, *((1, 4) if trusted is PAIR else (1,)))


Answer = Callable[[Server], tuple[int, bytes]]


@pytest.mark.parametrize(
    "answer",
    [
        lambda server: (404, b"{}"),
        lambda server: (500, b""),
        lambda server: (200, b'{"roots": 1}'),
        lambda server: (200, b'{"roots": [{"root": "?", "signatures": []}]}'),
    ],
    ids=["404", "500", "no list", "no base64"],
)
def test_a_central_that_cannot_say_who_signs_makes_the_document_no_better(answer: Answer) -> None:
    class Odd(Server):
        def answer(self, path: str, token: str, body: bytes) -> tuple[int, bytes]:
            return answer(self) if path == protocol.ROOTS else super().answer(path, token, body)

    world = enrolled(FIRST)
    odd = Odd(world.clock, rows=world.server.rows, good=world.server.good)
    with pytest.raises(admission.UnsignedError):
        vouched(world, 2, wire=Wire(odd))
    assert kept(world) == FIRST


def test_whoever_cannot_be_asked_condemns_no_document() -> None:
    world = enrolled(FIRST, TO_SECOND)
    with pytest.raises(UnreachableError):
        vouched(world, 2, wire=Wire(world.server, lost=0))

    class Cut(Server):
        def answer(self, path: str, token: str, body: bytes) -> tuple[int, bytes]:
            return (200, b"{") if path == protocol.ROOTS else super().answer(path, token, body)

    cut = Cut(world.clock, rows=world.server.rows, good=world.server.good)
    with pytest.raises(AnswerError, match="no JSON"):
        vouched(world, 2, wire=Wire(cut))
    assert vouched(world, 2)


def test_a_disk_that_does_not_take_the_new_keys_leaves_the_old_ones() -> None:
    world = enrolled(FIRST, TO_SECOND)
    credentials = world.credentials(fail_at=1)
    with pytest.raises(OSError, match="space"):
        run(world, vouching.find_root(credentials, URL, FIRST))
    assert vouching.trusted(credentials) == kept(world) == FIRST, "nothing is believed that is not kept"
    assert vouched(world, 2)


def test_a_node_that_enrols_again_does_not_go_back_to_former_keys() -> None:
    world = begin(is_enrolled=False)
    credentials = world.credentials()
    run(world, asks(credentials))
    run(world, vouching.find_root(credentials, URL, FIRST))
    world.server.good.clear()
    world.server.rows = {"node_" + "0" * 26: SIGNERS[0].public}
    assert run(world, asks(credentials)) == 304
    assert protocol.ENROLL in world.server.asked[1:], "its token was still there"
    assert vouching.trusted(credentials) == kept(world) == SECOND
