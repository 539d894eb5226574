"""Keys and signatures as files, for people who sign far away from any node: what they hold in their hands.

KEY           a private key, PKCS #8 in PEM, mode 0600; `openssl pkey` reads it
FILE.sigs     JSON: a list of {key_id, signature} over the exact bytes of FILE
ROOT          JSON: {root: base64 of the exact bytes, signatures}, as a central takes and serves it
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toft.kernel.errors import ConflictError
from toft.managed import messages, protocol, signatures
from toft.managed.signatures import BadKeyError, PrivateKey, PublicKey, Root, Signature, SignedRoot
from toft.store import durable

MAX_FILE_BYTES = 1 << 20


def write_key(path: Path, key: PrivateKey, passphrase: bytes = b"") -> None:
    """Put a private key into a file of its own, for nobody else to read.

    Raises:
        ConflictError: Something has that name already: a key is never written over.
        OSError: The disk did not take it.
    """
    try:
        durable.SYSTEM.write(str(path), key.to_pem(passphrase), 0o600)
    except FileExistsError as error:
        raise ConflictError(
            f"{path} is there already, and a key is never written over",
            code="signature.key_exists",
            details={"path": str(path)},
            hint="choose another name",
        ) from error
    durable.SYSTEM.sync_directory(str(path.absolute().parent))


def read_key(path: Path, passphrase: bytes = b"") -> PrivateKey:
    """Read a private key.

    Raises:
        BadKeyError: It is none, of another kind, or locked with another passphrase.
        OSError: It cannot be read.
    """
    return PrivateKey.of_pem(_read(path), passphrase or None)


def public_of(text: str, passphrase: bytes = b"") -> PublicKey:
    """Return the public key that a word means: its base64, or a file with that or with the private one.

    Raises:
        BadKeyError: It is neither.
        OSError: The file cannot be read.
    """
    if not os.path.exists(text):
        return PublicKey.of_text(text.strip())
    data = _read(Path(text))
    if data.startswith(b"-----"):
        return PrivateKey.of_pem(data, passphrase or None).public
    return PublicKey.of_text(data.decode("utf-8", "replace").strip())


def text_of(word: str) -> str:
    """Return what a word says of keys: the text itself, or what is in the file of that name.

    Raises:
        OSError: The file cannot be read.
    """
    if word.lstrip().startswith("{") or not os.path.exists(word):
        return word
    return _read(Path(word)).decode("utf-8", "replace")


def sign_file(path: Path, payload_type: str, data: bytes, key: PrivateKey) -> tuple[Signature, ...]:
    """Add a signature over bytes to the file of their signatures; the same key's takes the place of its last.

    Returns:
        All that are in it now.

    Raises:
        MessageError: What is there are no signatures.
        OSError: The disk did not take it.
    """
    known = read_signatures(path) if path.exists() else ()
    made = signatures.sign(payload_type, data, key)
    found = (*(each for each in known if each.key_id != made.key_id), made)
    durable.write_json(path, messages.signatures_value(found))
    return found


def read_signatures(path: Path) -> tuple[Signature, ...]:
    """Read such a file.

    Raises:
        MessageError: It is none.
    """
    return messages.read_signatures(_json(path))


def write_root(path: Path, root: Root, signed: Sequence[Signature] = ()) -> None:
    """Put a trust root into a file, with the signatures that it has so far."""
    [value] = messages.roots_value([SignedRoot(root.data, tuple(signed))])["roots"]
    durable.write_json(path, value)


def read_root(path: Path) -> tuple[Root, SignedRoot]:
    """Read such a file; a bare trust root is one that nobody has signed.

    Raises:
        MessageError: It is none.
        BadKeyError: What it holds is no trust root.
    """
    value = _json(path)
    if isinstance(value, dict) and "threshold" in value:
        root = Root.of_value(value)
        return root, SignedRoot(root.data, ())
    [signed] = messages.read_roots({"roots": [value]})
    return Root.parse(signed.data), signed


def sign_root(path: Path, key: PrivateKey) -> tuple[Root, tuple[Signature, ...]]:
    """Add a signature to the file of a trust root.

    Returns:
        The root, and all signatures on it.

    Raises:
        MessageError: The file is none.
        BadKeyError: What it holds is no trust root.
    """
    root, known = read_root(path)
    made = signatures.sign(signatures.ROOT_TYPE, root.data, key)
    found = (*(each for each in known.signatures if each.key_id != made.key_id), made)
    write_root(path, root, found)
    return root, found


def missing(root: Root, signed: Sequence[Signature]) -> int:
    """Return how many more of a root's own keys have to sign it."""
    data = signatures.pae(signatures.ROOT_TYPE, root.data)
    good = {
        each.key_id
        for each in signed
        if each.key_id in root.keys and root.keys[each.key_id].verifies(each.value, data)
    }
    return max(0, root.threshold - len(good))


def _json(path: Path) -> Any:
    try:
        return json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise protocol.MessageError(f"{path} is no JSON") from error


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise BadKeyError(f"{path} is far too long for what it should be")
    return data
