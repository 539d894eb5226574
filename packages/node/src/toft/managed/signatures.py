"""Who vouches for bytes: Ed25519 over the exact bytes and what they are meant as, by enough distinct keys.

A signature is made over `pae(type, bytes)`, the pre-authentication encoding of DSSE, so that what was signed
as one thing is never taken for another. A `Root` says which keys count and how many of them are needed; the
next one is signed by enough keys of the one before it, and by enough of its own.

Importing this loads `cryptography`, 10 MB of the process: a node without a trust root goes without.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from toft.kernel.errors import RefusedError, UsageError
from toft.managed import document

DOCUMENT_TYPE = "application/vnd.toft.document+json"
ROOT_TYPE = "application/vnd.toft.root+json"

KEY_BYTES = 32
SIGNATURE_BYTES = 64
MAX_KEYS = 64
MAX_SIGNATURES = 64
MAX_ROOT_BYTES = 64 << 10
MAX_STEPS = 1000
"""So many roots after each other are followed in one go; more than any life of a fleet has."""

KeyId = str
"""The first 16 hexadecimal digits of the SHA-256 of a raw public key."""

_KEY_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)
_PRIME = (1 << 255) - 19
# The points of order 1, 2, 4 and 8 by their y: with such a "key", somebody without any key signs everything.
_LOW_ORDER = frozenset(
    (
        0,
        1,
        _PRIME - 1,
        int("7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7", 16),
        int("05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826", 16),
    )
)


class SignatureError(RefusedError):
    """What was offered is not signed as it must be; nothing of it is used."""

    code = "signature.invalid"


class BadKeyError(UsageError):
    """What was given is no key, or no set of keys."""

    code = "signature.bad_key"


@dataclass(frozen=True)
class Signature:
    """One signature, and the key it says it is by; whether it is, only `verify` tells."""

    key_id: KeyId
    value: bytes


@dataclass(frozen=True)
class PublicKey:
    """A key that signatures are checked with.

    Attributes:
        raw: Its 32 bytes.
    """

    raw: bytes

    def __post_init__(self) -> None:
        _check_key(self.raw)

    @property
    def key_id(self) -> KeyId:
        """Return its name."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    @property
    def text(self) -> str:
        """Return it as it is written and sent: base64 of its 32 bytes."""
        return to_base64(self.raw)

    def verifies(self, value: bytes, data: bytes) -> bool:
        """Say whether a signature over exactly these bytes is by this key."""
        if len(value) != SIGNATURE_BYTES:
            return False
        try:
            ed25519.Ed25519PublicKey.from_public_bytes(self.raw).verify(value, data)
        except (InvalidSignature, ValueError):
            return False
        return True

    @classmethod
    def of_text(cls, text: str) -> PublicKey:
        """Read what `text` wrote.

        Raises:
            BadKeyError: It is no such key.
        """
        return cls(from_base64(text, "a public key"))


@dataclass(frozen=True)
class PrivateKey:
    """A key that signs; never shown, not even in an error.

    Attributes:
        raw: The 32 bytes it is made from.
    """

    raw: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.raw) != KEY_BYTES:
            raise BadKeyError(f"a private key has {KEY_BYTES} bytes, not {len(self.raw)}")

    @property
    def public(self) -> PublicKey:
        """Return the other half."""
        return PublicKey(self._key().public_key().public_bytes_raw())

    @property
    def text(self) -> str:
        """Return it as it is kept in a file of JSON: base64 of its 32 bytes."""
        return to_base64(self.raw)

    def sign(self, data: bytes) -> bytes:
        """Return the 64 bytes of its signature over exactly these bytes."""
        return self._key().sign(data)

    def to_pem(self, passphrase: bytes = b"") -> bytes:
        """Return it as PKCS #8 in PEM, as `openssl pkey` reads it; locked when there is a passphrase."""
        locked: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase:
            locked = serialization.BestAvailableEncryption(passphrase)
        return self._key().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked
        )

    def _key(self) -> ed25519.Ed25519PrivateKey:
        return ed25519.Ed25519PrivateKey.from_private_bytes(self.raw)

    @classmethod
    def make(cls, randomness: Any = None) -> PrivateKey:
        """Return a new one; of the machine's own randomness unless other is given."""
        if randomness is not None:
            return cls(randomness(KEY_BYTES))
        return cls(ed25519.Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def of_text(cls, text: str) -> PrivateKey:
        """Read what `text` wrote.

        Raises:
            BadKeyError: It is no such key.
        """
        return cls(from_base64(text, "a private key"))

    @classmethod
    def of_pem(cls, data: bytes, passphrase: bytes | None = None) -> PrivateKey:
        """Read PKCS #8 in PEM.

        Raises:
            BadKeyError: It is not, is of another kind than Ed25519, or the passphrase is missing or wrong.
        """
        try:
            key = serialization.load_pem_private_key(data, passphrase)
        except TypeError:  # a passphrase where there is none, or none where there is one
            if passphrase is None:
                hint = "--passphrase-file FILE, with what it was made with; where only the public half is "
                hint += "needed, toft key show prints that"
                raise BadKeyError("the private key is locked with a passphrase", hint=hint) from None
            hint = "leave out --passphrase-file"
            raise BadKeyError("the private key is locked with no passphrase", hint=hint) from None
        except (ValueError, UnsupportedAlgorithm) as error:
            what = "is no private key in PEM" if passphrase is None else "does not open with that passphrase"
            raise BadKeyError(f"the file {what}") from error
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise BadKeyError("the private key is not of the kind Ed25519")
        return cls(key.private_bytes_raw())


@dataclass(frozen=True)
class Root:
    """Which keys count, and how many of them must have signed.

    Attributes:
        version: Counts up by one with every change; 0 is what a person pinned by hand.
        threshold: So many distinct keys.
        keys: Every key that counts, by its name.
    """

    version: int
    threshold: int
    keys: Mapping[KeyId, PublicKey]

    def to_value(self) -> dict[str, Any]:
        """Return it as it stands in JSON."""
        keys = {name: key.text for name, key in sorted(self.keys.items())}
        return {"version": self.version, "threshold": self.threshold, "keys": keys}

    @property
    def data(self) -> bytes:
        """Return the exact bytes that are signed; equal roots have equal ones."""
        return document.encode(self.to_value())

    @classmethod
    def pinned(cls, key: PublicKey) -> Root:
        """Return what somebody means who names one key."""
        return cls(0, 1, {key.key_id: key})

    @classmethod
    def of(cls, version: int, threshold: int, keys: Iterable[PublicKey]) -> Root:
        """Return one of its parts, checked.

        Raises:
            BadKeyError: There are too few keys, or too many.
        """
        found = {key.key_id: key for key in keys}
        return cls.of_value(
            {
                "version": version,
                "threshold": threshold,
                "keys": {name: key.text for name, key in found.items()},
            }
        )

    @classmethod
    def of_value(cls, value: Any) -> Root:
        """Read what `to_value` wrote.

        Raises:
            BadKeyError: It has not that form; the message names what is wrong.
        """
        if not isinstance(value, Mapping) or set(value) != {"version", "threshold", "keys"}:
            raise BadKeyError("a trust root has exactly version, threshold and keys")
        version, threshold, keys = value["version"], value["threshold"], value["keys"]
        if not _is_count(version) or version > 1 << 53:
            raise BadKeyError("the version of a trust root is no whole number")
        if not isinstance(keys, Mapping) or not 1 <= len(keys) <= MAX_KEYS:
            raise BadKeyError(f"a trust root has 1 to {MAX_KEYS} keys")
        if not _is_count(threshold) or not 1 <= threshold <= len(keys):
            raise BadKeyError(
                f"the threshold of a trust root is none of 1 to {len(keys)}, its number of keys"
            )
        found = {}
        for name, text in keys.items():
            key = PublicKey.of_text(text)
            if name != key.key_id:
                raise BadKeyError(f"the key {key.key_id} stands under another name in the trust root")
            found[key.key_id] = key
        return cls(version, threshold, found)

    @classmethod
    def parse(cls, data: bytes) -> Root:
        """Read the bytes that were signed.

        Raises:
            BadKeyError: They are no trust root, or say the same in other bytes than everybody.
        """
        if len(data) > MAX_ROOT_BYTES:
            raise BadKeyError(f"the trust root has {len(data)} bytes; {MAX_ROOT_BYTES} is the most")
        try:
            root = cls.of_value(json.loads(data))
        except (ValueError, RecursionError) as error:
            raise BadKeyError("the trust root is not JSON") from error
        if root.data != data:
            raise BadKeyError("the trust root is not in the one form that is signed")
        return root


@dataclass(frozen=True)
class SignedRoot:
    """A trust root with what vouches for it."""

    data: bytes
    signatures: tuple[Signature, ...]


def pae(payload_type: str, data: bytes) -> bytes:
    """Return what is really signed: the type and the bytes, each with its length."""
    kind = payload_type.encode()
    return b" ".join((b"DSSEv1", b"%d" % len(kind), kind, b"%d" % len(data), data))


def sign(payload_type: str, data: bytes, key: PrivateKey) -> Signature:
    """Return a signature over bytes that are meant as this type."""
    return Signature(key.public.key_id, key.sign(pae(payload_type, data)))


def verify(payload_type: str, data: bytes, signatures: Sequence[Signature], root: Root) -> tuple[KeyId, ...]:
    """Return which keys of a root have signed exactly these bytes as this type, when they are enough.

    Every key counts once, however often it signed; what is wrong, or by keys that the root does not name,
    counts for nothing and does no harm.

    Raises:
        SignatureError: They are not enough.
    """
    if len(signatures) > MAX_SIGNATURES:
        raise SignatureError(
            f"there are {len(signatures)} signatures; {MAX_SIGNATURES} is the most",
            details={"signatures": len(signatures), "most": MAX_SIGNATURES},
        )
    signed = pae(payload_type, data)
    found: set[KeyId] = set()
    for each in signatures:
        key = root.keys.get(each.key_id)
        if key is not None and key.key_id not in found and key.verifies(each.value, signed):
            found.add(key.key_id)
    if len(found) < root.threshold:
        raise SignatureError(
            f"{len(found)} of the trusted keys signed it, and {root.threshold} must",
            details={
                "signed_by": sorted(found),
                "claimed": sorted({each.key_id for each in signatures}),
                "threshold": root.threshold,
                "root_version": root.version,
            },
            hint="sign it with a key that the nodes trust: toft key sign",
        )
    return tuple(sorted(found))


def follow(root: Root, later: Iterable[SignedRoot]) -> Root:
    """Return the last of a chain of trust roots, every one vouched for by the one before it.

    Args:
        root: What is trusted now.
        later: What came after it, in order, each one version higher; those already passed are skipped.

    Raises:
        SignatureError: One of them is not signed by enough keys of the one before it and of its own, or is
            left out. Nothing of the chain is to be used then.
        BadKeyError: One of them is no trust root.
    """
    for count, each in enumerate(later):
        if count >= MAX_STEPS:
            raise SignatureError(f"there are more than {MAX_STEPS} trust roots after each other")
        found = Root.parse(each.data)
        if found.version <= root.version:
            continue
        if found.version != root.version + 1:
            raise SignatureError(
                f"trust root {found.version} does not follow on {root.version}",
                code="signature.broken_chain",
                details={"trusted": root.version, "offered": found.version},
            )
        verify(ROOT_TYPE, each.data, each.signatures, root)
        verify(ROOT_TYPE, each.data, each.signatures, found)
        root = found
    return root


def read_key(text: str) -> Root:
    """Read what a person names as the one to trust: a raw key in base64, or the JSON of a whole trust root.

    Raises:
        BadKeyError: It is neither.
    """
    text = text.strip()
    if text.startswith("{"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadKeyError("the trust root is not JSON") from error
        # As `toft key root` writes it: the exact bytes, and who has signed them so far.
        if set(value) == {"root", "signatures"}:
            return Root.parse(from_base64(value["root"], "the trust root"))
        return Root.of_value(value)
    if _KEY_ID.fullmatch(text):
        raise BadKeyError(
            "that is the name of a key, and the key itself is needed",
            hint="toft key show FILE prints it: 44 characters of base64",
        )
    return Root.pinned(PublicKey.of_text(text))


def to_base64(data: bytes) -> str:
    """Return bytes as they stand in JSON and headers: standard base64 with padding."""
    return base64.b64encode(data).decode("ascii")


def from_base64(text: Any, what: str = "a value") -> bytes:
    """Read what `to_base64` wrote, and only that: no other text stands for the same bytes.

    Raises:
        BadKeyError: It is not base64.
    """
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except (binascii.Error, ValueError):
        data = None
    if data is None or to_base64(data) != text:
        raise BadKeyError(f"{what} is not in base64")
    return data


def _check_key(raw: bytes) -> None:
    if len(raw) != KEY_BYTES:
        raise BadKeyError(f"a public key has {KEY_BYTES} bytes, not {len(raw)}")
    y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
    # The same point in other bytes would be a second name for one signer.
    if y >= _PRIME or y in _LOW_ORDER:
        raise BadKeyError("that is no public key of the kind Ed25519 that anybody could sign with")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
