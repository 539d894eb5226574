"""Who vouches for bytes: vectors of the standard, thresholds, chains of roots, and what enemies send."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toft.managed import document, signatures
from toft.managed.signatures import (
    DOCUMENT_TYPE,
    ROOT_TYPE,
    BadKeyError,
    PrivateKey,
    PublicKey,
    Root,
    Signature,
    SignatureError,
    SignedRoot,
)

# RFC 8032, section 7.1: secret, public, message, signature.
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
        "387b2eaeb4302aeeb00d291612bb0c00",
    ),
]
DATA = b'{"schema_version":1}'
PRIME = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493


def key(number: int) -> PrivateKey:
    return PrivateKey(hashlib.sha256(b"key %d" % number).digest())


def root(*numbers: int, threshold: int = 1, version: int = 1) -> Root:
    return Root.of(version, threshold, [key(each).public for each in numbers])


def signed(*numbers: int, data: bytes = DATA, kind: str = DOCUMENT_TYPE) -> list[Signature]:
    return [signatures.sign(kind, data, key(each)) for each in numbers]


def signed_root(value: Root, *numbers: int) -> SignedRoot:
    return SignedRoot(value.data, tuple(signed(*numbers, data=value.data, kind=ROOT_TYPE)))


@pytest.mark.parametrize(("secret", "public", "message", "signature"), VECTORS)
def test_keys_sign_as_the_standard_has_it(secret: str, public: str, message: str, signature: str) -> None:
    private, data, value = PrivateKey(bytes.fromhex(secret)), bytes.fromhex(message), bytes.fromhex(signature)
    assert private.public.raw.hex() == public
    assert private.sign(data) == value
    assert private.public.verifies(value, data)
    assert not private.public.verifies(value, data + b"x")
    assert private.public.key_id == hashlib.sha256(bytes.fromhex(public)).hexdigest()[:16]


def test_what_is_signed_names_its_type_and_both_lengths() -> None:
    # The example of the DSSE specification.
    encoded = signatures.pae("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


@given(st.text(max_size=8), st.binary(max_size=8), st.text(max_size=8), st.binary(max_size=8))
def test_no_two_things_are_signed_as_the_same_bytes(one: str, data: bytes, two: str, other: bytes) -> None:
    assert (signatures.pae(one, data) == signatures.pae(two, other)) == ((one, data) == (two, other))


def test_a_threshold_counts_distinct_trusted_keys() -> None:
    trusted = root(1, 2, 3, threshold=2)
    assert len(signatures.verify(DOCUMENT_TYPE, DATA, signed(3, 1), trusted)) == 2
    for too_few in (signed(1), signed(1, 1, 1), signed(1, 8, 9), []):
        with pytest.raises(SignatureError, match="2 must"):
            signatures.verify(DOCUMENT_TYPE, DATA, too_few, trusted)


def test_a_signature_counts_for_no_other_bytes_type_or_name() -> None:
    trusted = root(1, 2)
    ours, theirs = signed(1)[0], signed(9)[0]
    for wrong in (
        signed(1, data=DATA + b" "),
        signed(1, kind=ROOT_TYPE),
        [Signature(key(2).public.key_id, ours.value)],
        [Signature(key(1).public.key_id, theirs.value)],
        [Signature(ours.key_id, ours.value[:-1])],
        [Signature(ours.key_id, ours.value + b"\0")],
        [Signature(ours.key_id, b"")],
        # The same signature with the order of the group added: other bytes, which the standard refuses.
        [Signature(ours.key_id, ours.value[:32] + _plus_order(ours.value[32:]))],
    ):
        with pytest.raises(SignatureError):
            signatures.verify(DOCUMENT_TYPE, DATA, wrong, trusted)


def test_what_does_not_count_does_no_harm() -> None:
    ours = signed(1)[0]
    mixed = [Signature(ours.key_id, bytes(64)), *signed(9), Signature("nonsense\0", b""), ours]
    assert signatures.verify(DOCUMENT_TYPE, DATA, mixed, root(1)) == (ours.key_id,)
    with pytest.raises(SignatureError, match="65 signatures"):
        signatures.verify(DOCUMENT_TYPE, DATA, [ours] * 65, root(1))


def test_a_key_with_which_nobody_could_sign_is_refused() -> None:
    for raw in _small_points():
        with pytest.raises(BadKeyError):
            PublicKey(raw)
    with pytest.raises(BadKeyError):  # y that is written a second way
        PublicKey((PRIME + 3).to_bytes(32, "little"))
    for length in (0, 31, 33):
        with pytest.raises(BadKeyError):
            PublicKey(bytes([7]) * length)


def test_a_root_is_read_from_its_own_bytes_only() -> None:
    trusted = root(1, 2, threshold=2)
    assert Root.parse(trusted.data) == trusted
    for data in (
        json.dumps(trusted.to_value(), indent=1).encode(),
        trusted.data + b"\n",
        trusted.data.replace(b'"version":1', b'"version":1,"version":1'),
        b"[" * 50_000,
        b"\xff",
        b" " * (signatures.MAX_ROOT_BYTES + 1),
    ):
        with pytest.raises(BadKeyError):
            Root.parse(data)


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 0},
        {"threshold": 3},
        {"threshold": True},
        {"threshold": 1.0},
        {"version": -1},
        {"version": "1"},
        {"version": 2**60},
        {"keys": {}},
        {"keys": []},
        {"keys": {"0" * 16: key(1).public.text}},
        {"keys": {key(1).public.key_id: key(1).public.text.rstrip("=")}},
        {"keys": {key(1).public.key_id: 7}},
        {"more": 1},
    ],
)
def test_a_root_that_is_none_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadKeyError):
        Root.of_value({**root(1, 2).to_value(), **change})


def test_roots_follow_when_enough_of_the_old_and_of_the_new_keys_say_so() -> None:
    first = root(1, 2, 3, threshold=2)
    second = root(3, 4, threshold=2, version=2)
    third = root(5, version=3)
    chain = [signed_root(second, 1, 3, 4), signed_root(third, 3, 4, 5)]
    assert signatures.follow(first, chain) == third
    # What is trusted already is passed over, whoever signed it.
    assert signatures.follow(second, [signed_root(second, 9), *chain]) == third
    assert signatures.follow(third, chain) == third
    assert signatures.follow(first, []) == first


@pytest.mark.parametrize("signers", [(3, 4), (1, 2), (1, 3), (1, 3, 3), (7, 8, 9), ()])
def test_a_root_that_too_few_of_either_side_signed_is_refused(signers: tuple[int, ...]) -> None:
    first, second = root(1, 2, 3, threshold=2), root(3, 4, threshold=2, version=2)
    with pytest.raises(SignatureError):
        signatures.follow(first, [signed_root(second, *signers)])


def test_a_root_cannot_be_left_out() -> None:
    first, third = root(1), root(1, version=3)
    with pytest.raises(SignatureError, match="does not follow") as caught:
        signatures.follow(first, [signed_root(third, 1)])
    assert caught.value.code == "signature.broken_chain"


def test_a_person_names_a_key_or_a_whole_root() -> None:
    assert signatures.read_key(key(1).public.text + "\n") == Root(0, 1, {key(1).public.key_id: key(1).public})
    assert signatures.read_key(json.dumps(root(1, 2).to_value(), indent=2)) == root(1, 2)
    # Who pinned a key by hand follows what that key signs.
    pinned = signatures.read_key(key(1).public.text)
    assert signatures.follow(pinned, [signed_root(root(1, 2), 1)]) == root(1, 2)
    with pytest.raises(BadKeyError, match="name of a key"):
        signatures.read_key(key(1).public.key_id)
    for text in ("", "{", "{}", "x" * 44, key(1).public.raw.hex()):
        with pytest.raises(BadKeyError):
            signatures.read_key(text)


def test_a_private_key_is_written_for_other_programs_and_never_shown() -> None:
    private = key(1)
    pem = private.to_pem()
    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert PrivateKey.of_pem(pem) == private
    assert PrivateKey.of_text(private.text) == private
    assert private.text not in repr(private)
    assert PrivateKey.make() != PrivateKey.make()
    for data, passphrase in ((b"", None), (b"nonsense", None), (pem, b"secret"), (_rsa_like(pem), None)):
        with pytest.raises(BadKeyError):
            PrivateKey.of_pem(data, passphrase)


def _rsa_like(pem: bytes) -> bytes:
    return pem.replace(b"PRIVATE KEY", b"RSA PRIVATE KEY")


def _plus_order(value: bytes) -> bytes:
    return (int.from_bytes(value, "little") + ORDER).to_bytes(32, "little")


def _small_points() -> set[bytes]:
    """Return every key whose eightfold is nothing, in every way it can be written; found by search."""
    d = -121665 * pow(121666, -1, PRIME) % PRIME

    def add(p: tuple[int, int], q: tuple[int, int]) -> tuple[int, int]:
        k = d * p[0] * q[0] * p[1] * q[1] % PRIME
        x = (p[0] * q[1] + q[0] * p[1]) * pow(1 + k, -1, PRIME) % PRIME
        return x, (p[1] * q[1] + p[0] * q[0]) * pow(1 - k, -1, PRIME) % PRIME

    def point(y: int) -> tuple[int, int] | None:
        square = (y * y - 1) * pow(d * y * y + 1, -1, PRIME) % PRIME
        x = pow(square, (PRIME + 3) // 8, PRIME)
        if (x * x - square) % PRIME:
            x = x * pow(2, (PRIME - 1) // 4, PRIME) % PRIME
        return (x, y) if (x * x - square) % PRIME == 0 else None

    def times(number: int, p: tuple[int, int]) -> tuple[int, int]:
        total = (0, 1)
        while number:
            total, p, number = (add(total, p) if number & 1 else total), add(p, p), number >> 1
        return total

    found: set[int] = set()
    for y in range(2, 40):  # any point times the order of the group leaves its part of small order
        if (start := point(y)) is not None:
            small = times(ORDER, start)
            found.update(times(step, small)[1] for step in range(8))
    assert len(found) == 5
    written = {y + extra for y in found for extra in (0, PRIME) if y + extra < 1 << 255}
    return {(y | sign << 255).to_bytes(32, "little") for y in written for sign in (0, 1)}


def test_the_bytes_of_a_root_are_those_of_any_document() -> None:
    assert root(1).data == document.encode(json.loads(root(1).data))
