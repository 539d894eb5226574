"""What `toft key` does: keys, signatures and trust roots as files, and whom a home is told to trust.

Imported when one of the commands runs, and not before: it brings along what signs.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from toft.cli import documents, hints
from toft.cli.session import Session
from toft.kernel.errors import UsageError
from toft.managed import document, generations, joining, keys, signatures
from toft.managed.protocol import MessageError
from toft.managed.signatures import BadKeyError, PrivateKey, Root, Signature
from toft.store import durable

__all__ = ["about", "keys", "new_root", "sign", "signatures", "trust"]


@contextlib.contextmanager
def about(word: str | Path) -> Iterator[None]:
    """Name the word or the file that is no key, no signature or no trust root."""
    try:
        yield
    except (BadKeyError, MessageError) as error:
        where = str(word)
        what = where if os.path.exists(where) else f"{where[:80]!r}, which is no file"
        raise type(error)(
            f"{what}: {error.message}",
            code=error.code,
            details=error.details,
            hint=error.hint or hints.BY_CODE["signature"],
        ) from error


def sign(
    file: str, private: PrivateKey, *, into: Path | None, make: Path | None
) -> tuple[dict[str, str], tuple[Signature, ...]]:
    """Sign the bytes of a document.

    Args:
        file: Of the document; `-` is standard input.
        private: With which key.
        into: Where signatures go; beside the document where None.
        make: Where what a person wrote is put as JSON first, which is signed then.

    Returns:
        What was signed, and all signatures that there are now.

    Raises:
        UsageError: It is no document.
        MessageError: What lies where the signatures go are none.
        OSError: The disk did not take them.
    """
    data = documents.read_bytes(file)
    if make is not None:
        if make.exists() and file != "-" and make.samefile(file):
            raise UsageError(
                f"--make would write over {file} itself",
                code="request.command_line",
                hint=f"another name, such as --make {make.with_suffix('.signed.json')}",
            )
        data = document.author(data, file).data
        durable.write_file(make, data)
        file = str(make)
    else:
        document.parse(data, file)
    place = into or Path(f"{'document.json' if file == '-' else file}.sigs")
    with about(place):
        found = keys.sign_file(place, signatures.DOCUMENT_TYPE, data, private)
    return {"file": file, "etag": document.etag_of(data), "signatures": str(place)}, found


def trust(session: Session, word: str | None) -> Root | None:
    """Have a home take only what a key has signed; None takes that back.

    Raises:
        BadKeyError: The word is no public key, no trust root, and no file of one.
        ConflictError: The home belongs to a central.
    """
    root = None
    if word is not None:
        text = keys.text_of(word)
        if text.startswith("-----"):
            raise BadKeyError(
                f"{word} is a private key, and nodes are told the public one",
                hint=f"toft key show {word} prints it",
            )
        with about(word):
            root = signatures.read_key(text)
    joining.trust(generations.Generations.at(session.settings().home), root)
    return root


def new_root(file: Path, words: list[str], threshold: int, after: Path | None) -> Root:
    """Write down which keys count, after another trust root or as the first one.

    Raises:
        UsageError: Something has that name already.
        BadKeyError: A word is no key, or they are too few.
        MessageError: There is no trust root before.
    """
    if file.exists():
        raise UsageError(
            f"{file} is there already, and a trust root is never written over",
            code="request.command_line",
            hint="choose another name; toft key root show tells what is in this one",
        )
    version = 1
    if after is not None:
        with about(str(after)):
            version += keys.read_root(after)[0].version
    known = []
    for each in words:
        with about(each):
            known.append(keys.public_of(each))
    root = Root.of(version, threshold, known)
    keys.write_root(file, root)
    return root
