"""Values as bytes, with their exact types: what a job was asked and what it answered, at rest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from toft.plugins.packed import Packed
from toft_sdk import codec
from toft_sdk.codec import TAG


def pack(value: Any) -> bytes:
    """Return a value as bytes: plain JSON text when nothing bulky is in it.

    Raises:
        EncodeError: Something in it cannot be kept; its path says what.
    """
    if codec.is_plain(value):
        return codec.dumps(value).encode("ascii")
    return Packed.of(value).to_bytes()


def unpack(data: Any) -> Any:
    """Return the value that `pack` was given, with its exact types.

    Args:
        data: Bytes, or anything that has them in one piece; a mapped file say.

    Raises:
        IntegrityError: `pack` never gave this.
    """
    return Packed.read(data).take()


def arguments_hash(action: str, arguments: Mapping[str, Any]) -> str:
    """Return what is the same for the same request, whatever the order of keys and of sets.

    Raises:
        EncodeError: Something in it cannot be kept.
    """
    return _hash(action, Packed.of(dict(arguments)))


def packed_hash(action: str, data: bytes) -> str:
    """Do what `arguments_hash` does with arguments that are packed already.

    Raises:
        IntegrityError: `pack` never gave this.
    """
    return _hash(action, Packed.read(data))


def _hash(action: str, packed: Packed) -> str:
    digests = [_digest(data) for data in packed.buffers]
    text = codec.dumps([action, _canonical(packed.tree, digests)])
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _digest(data: Any) -> str:
    content = data.to_bytes() if hasattr(data, "copy_into") else data
    return hashlib.sha256(content).hexdigest()


def _canonical(tree: Any, digests: list[str]) -> Any:
    if type(tree) is list:
        return [_canonical(item, digests) for item in tree]
    if type(tree) is not dict:
        return tree
    tag = tree.get(TAG)
    fields = {name: _canonical(tree[name], digests) for name in sorted(tree)}
    if tag in ("dict", "set", "frozenset"):
        fields["v"] = sorted(fields["v"], key=codec.dumps)
    if tag is not None and "b" in fields:
        fields["b"] = digests[fields["b"]]
    return fields
