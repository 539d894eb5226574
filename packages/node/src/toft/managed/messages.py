"""Every message between a node and its central that carries a key or a signature: built here, read here.

What another machine sent is checked for its form before anybody believes it; one that is wrong raises a
`MessageError`. A request is signed over the encoded object without its signatures.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toft.kernel import clock as clocks
from toft.managed import document, protocol, signatures
from toft.managed.protocol import MessageError
from toft.managed.signatures import BadKeyError, PrivateKey, PublicKey, Root, Signature, SignedRoot

_LONGEST = 255
_NONCE = re.compile(r"[0-9a-f]{32}", re.ASCII)


@dataclass(frozen=True)
class Facts:
    """What a node says of itself when it enrols."""

    hostname: str = ""
    os: str = ""
    agent_version: str = ""
    machine_id_hash: str = ""


@dataclass(frozen=True)
class Enroll:
    """A request to become a node, its signature checked: whoever sent it has the key."""

    token: str = field(repr=False)
    key: PublicKey
    nonce: str
    facts: Facts


@dataclass(frozen=True)
class Refresh:
    """A request for a new credential, signed with the key of the node; `check` has yet to be called."""

    node_id: str
    nonce: str
    at: float
    body: Mapping[str, Any] = field(repr=False)

    def check(self, key: PublicKey) -> None:
        """Raise a `SignatureError` unless it is by this key."""
        check_request(protocol.REFRESH_TYPE, self.body, key)


@dataclass(frozen=True)
class RotateKey:
    """A request to change the key of a node; that the new one signed it is checked, the old one is to be."""

    node_id: str
    new_key: PublicKey
    nonce: str
    at: float
    body: Mapping[str, Any] = field(repr=False)

    def check(self, key: PublicKey) -> None:
        """Raise a `SignatureError` unless it is by this key, the one of the node so far."""
        check_request(protocol.ROTATE_KEY_TYPE, self.body, key)


@dataclass(frozen=True)
class Enrolled:
    """The answer to `Enroll` and to `Refresh`.

    Attributes:
        access_token: The credential for every other request.
        expires_at: In seconds since 1970.
        root: Whom this central's documents are signed by; None where they are not.
        control_urls: Where to ask from now on, the first one first; empty says nothing about it.
        tenant: Whose node it is; empty says nothing about it.
    """

    node_id: str
    access_token: str = field(repr=False)
    expires_at: float
    root: Root | None = None
    control_urls: tuple[str, ...] = ()
    tenant: str = ""

    def to_value(self) -> dict[str, Any]:
        """Return it as it is sent."""
        return {
            "node_id": self.node_id,
            "access_token": self.access_token,
            "expires_at": clocks.rfc3339(self.expires_at),
            "root": None if self.root is None else self.root.to_value(),
            "control_urls": list(self.control_urls),
            "tenant": self.tenant,
        }

    @classmethod
    def of_value(cls, value: Any) -> Enrolled:
        """Read what `to_value` wrote; fields a later central adds are left out.

        Raises:
            MessageError: It has not that form.
        """
        if not isinstance(value, Mapping):
            raise MessageError("the answer to an enrolment is no object")
        token, urls, root = value.get("access_token"), value.get("control_urls", []), value.get("root")
        if not isinstance(token, str) or not protocol.is_credential(token):
            raise MessageError("the answer to an enrolment has no access_token")
        if not isinstance(urls, Sequence) or isinstance(urls, str) or len(urls) > protocol.MAX_URLS:
            raise MessageError("the control_urls of the answer are no list of URLs")
        tenant = value.get("tenant", "")
        if not isinstance(tenant, str) or len(tenant) > _LONGEST:
            raise MessageError("the tenant of the answer is no name")
        return cls(
            node_id=_node_id(value),
            access_token=token,
            expires_at=_moment(value, "expires_at"),
            root=None if root is None else _root(root),
            control_urls=tuple(protocol.check_url(each) for each in urls),
            tenant=tenant,
        )


def enroll(token: str, key: PrivateKey, nonce: str, facts: Facts) -> dict[str, Any]:
    """Return the body of a request to become a node."""
    body = {
        "token": token,
        "public_key": key.public.text,
        "nonce": nonce,
        "facts": {
            "hostname": facts.hostname,
            "os": facts.os,
            "agent_version": facts.agent_version,
            "machine_id_hash": facts.machine_id_hash,
        },
    }
    return sign_request(protocol.ENROLL_TYPE, body, key)


def read_enroll(value: Any) -> Enroll:
    """Read such a request and check that it is signed by the key it brings.

    Raises:
        MessageError: It has not that form.
        SignatureError: It is by another key.
    """
    body = _fields(value, "token", "public_key", "nonce", "facts", "signature")
    facts = body["facts"]
    names = tuple(Facts.__dataclass_fields__)
    if not isinstance(facts, Mapping) or not set(facts) <= set(names):
        raise MessageError(f"facts has other fields than {', '.join(names)}")
    if not all(
        isinstance(each, str) and len(each) <= _LONGEST and "\0" not in each for each in facts.values()
    ):
        raise MessageError(f"facts are texts of at most {_LONGEST} characters, and NUL is none")
    token = body["token"]
    if not isinstance(token, str) or not token or len(token) > _LONGEST:
        raise MessageError("token is no text")
    key = _key(body, "public_key")
    check_request(protocol.ENROLL_TYPE, body, key)
    return Enroll(token, key, _nonce(body), Facts(**facts))


def refresh(node_id: str, key: PrivateKey, nonce: str, at: float) -> dict[str, Any]:
    """Return the body of a request for a new credential by a node whose old one is over."""
    return sign_request(
        protocol.REFRESH_TYPE, {"node_id": node_id, "nonce": nonce, "at": clocks.rfc3339(at)}, key
    )


def read_refresh(value: Any) -> Refresh:
    """Read such a request; whose key must have signed it, the node's row tells: `Refresh.check`.

    Raises:
        MessageError: It has not that form.
    """
    body = _fields(value, "node_id", "nonce", "at", "signature")
    return Refresh(_node_id(body), _nonce(body), _moment(body, "at"), body)


def rotate_key(node_id: str, old: PrivateKey, new: PrivateKey, nonce: str, at: float) -> dict[str, Any]:
    """Return the body of a request to change the key of a node."""
    body = {
        "node_id": node_id,
        "new_public_key": new.public.text,
        "nonce": nonce,
        "at": clocks.rfc3339(at),
    }
    signed = _signed_bytes(protocol.ROTATE_KEY_TYPE, body)
    return {
        **body,
        "signature": signatures.to_base64(old.sign(signed)),
        "new_signature": signatures.to_base64(new.sign(signed)),
    }


def read_rotate_key(value: Any) -> RotateKey:
    """Read such a request, and check that whoever sent it has the new key.

    Raises:
        MessageError: It has not that form.
        SignatureError: It is not signed by the new key.
    """
    body = _fields(value, "node_id", "new_public_key", "nonce", "at", "signature", "new_signature")
    key = _key(body, "new_public_key")
    check_request(protocol.ROTATE_KEY_TYPE, body, key, name="new_signature")
    return RotateKey(_node_id(body), key, _nonce(body), _moment(body, "at"), body)


def sign_request(payload_type: str, body: Mapping[str, Any], key: PrivateKey) -> dict[str, Any]:
    """Return a request with its `signature`: over the encoded object without it."""
    signed = _signed_bytes(payload_type, body)
    return {**body, "signature": signatures.to_base64(key.sign(signed))}


def check_request(
    payload_type: str, body: Mapping[str, Any], key: PublicKey, *, name: str = "signature"
) -> None:
    """Check the signature of a request that came in.

    Args:
        payload_type: What it must have been signed as.
        body: The whole object, as it was read.
        key: Whose signature it must be.
        name: Which of its fields has the signature.

    Raises:
        SignatureError: It is none of this key over this object.
    """
    try:
        value = signatures.from_base64(body.get(name), name)
    except BadKeyError as error:
        raise signatures.SignatureError(error.message) from error
    if not key.verifies(value, _signed_bytes(payload_type, body)):
        raise signatures.SignatureError(f"the {name} of the request is not by the key {key.key_id}")


def _signed_bytes(payload_type: str, body: Mapping[str, Any]) -> bytes:
    bare = {name: each for name, each in body.items() if name not in ("signature", "new_signature")}
    try:
        return signatures.pae(payload_type, document.encode(bare))
    except (ValueError, RecursionError) as error:  # half of a surrogate pair has no bytes
        raise MessageError("the request has text that nobody can sign") from error


def encode_signatures(found: Sequence[Signature]) -> str:
    """Return signatures as the header `SIGNATURES` carries them."""
    return signatures.to_base64(document.encode(signatures_value(found)))


def decode_signatures(text: str | None) -> tuple[Signature, ...]:
    """Read that header; without one there are none.

    Raises:
        MessageError: It is damaged.
    """
    if not text:
        return ()
    try:
        value = json.loads(signatures.from_base64(text.strip(), "the header"))
    except (BadKeyError, ValueError, RecursionError) as error:
        raise MessageError(f"the header {protocol.SIGNATURES} cannot be read") from error
    return read_signatures(value)


def signatures_value(found: Sequence[Signature]) -> list[dict[str, str]]:
    """Return signatures as they stand in JSON, in the header, an answer or a file."""
    return [{"key_id": each.key_id, "signature": signatures.to_base64(each.value)} for each in found]


def read_signatures(value: Any) -> tuple[Signature, ...]:
    """Read what `signatures_value` wrote.

    Raises:
        MessageError: It has not that form.
    """
    if not isinstance(value, list) or len(value) > signatures.MAX_SIGNATURES:
        raise MessageError(f"signatures are no list of at most {signatures.MAX_SIGNATURES}")
    found = []
    for each in value:
        if not isinstance(each, Mapping) or not isinstance(each.get("key_id"), str):
            raise MessageError("a signature has not the fields key_id and signature")
        try:
            found.append(
                Signature(each["key_id"], signatures.from_base64(each.get("signature"), "a signature"))
            )
        except BadKeyError as error:
            raise MessageError(error.message) from error
    return tuple(found)


def roots_value(roots: Sequence[SignedRoot]) -> dict[str, Any]:
    """Return trust roots as `ROOTS` answers them, in the order of their versions."""
    return {
        "roots": [
            {"root": signatures.to_base64(each.data), "signatures": signatures_value(each.signatures)}
            for each in roots
        ]
    }


def read_roots(value: Any) -> tuple[SignedRoot, ...]:
    """Read what `roots_value` wrote; whether to trust it, `signatures.follow` tells.

    Raises:
        MessageError: It has not that form.
    """
    roots = value.get("roots") if isinstance(value, Mapping) else None
    if not isinstance(roots, list) or len(roots) > signatures.MAX_STEPS:
        raise MessageError("there is no list of trust roots")
    found = []
    for each in roots:
        if not isinstance(each, Mapping):
            raise MessageError("a trust root has not the fields root and signatures")
        try:
            data = signatures.from_base64(each.get("root"), "a trust root")
        except BadKeyError as error:
            raise MessageError(error.message) from error
        found.append(SignedRoot(data, read_signatures(each.get("signatures"))))
    return tuple(found)


def _fields(value: Any, *names: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or set(value) != set(names):
        raise MessageError(f"the request is no object with exactly {', '.join(names)}")
    return value


def _node_id(body: Mapping[str, Any]) -> str:
    text = body.get("node_id")
    if not isinstance(text, str) or not protocol.is_node_id(text):
        raise MessageError("node_id is no name of a node")
    return text


def _nonce(body: Mapping[str, Any]) -> str:
    text = body.get("nonce")
    if not isinstance(text, str) or not _NONCE.fullmatch(text):
        raise MessageError("nonce is not 32 hexadecimal digits")
    return text


def _key(body: Mapping[str, Any], name: str) -> PublicKey:
    try:
        return PublicKey.of_text(body[name])
    except BadKeyError as error:
        raise MessageError(f"{name}: {error.message}") from error


def _root(value: Any) -> Root:
    try:
        return Root.of_value(value)
    except BadKeyError as error:
        raise MessageError(f"root: {error.message}") from error


def _moment(body: Mapping[str, Any], name: str) -> float:
    text = body.get(name)
    try:
        if isinstance(text, str) and text.endswith("Z") and len(text) <= 32:
            return clocks.from_rfc3339(text)
    except (ValueError, OverflowError, OSError):
        pass
    raise MessageError(f"{name} is no moment in UTC")
