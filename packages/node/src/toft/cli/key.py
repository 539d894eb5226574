"""`toft key`: keys that documents are signed with, far from any node if need be, and who trusts which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from toft.cli import session as sessions
from toft.cli.session import JsonOption, Session, argument, option
from toft.kernel.errors import UsageError

if TYPE_CHECKING:
    from toft.managed.signatures import PublicKey, Root, Signature

app = typer.Typer(no_args_is_help=True, help="Keys that documents are signed with: new, show, sign, trust.")
roots = typer.Typer(no_args_is_help=True, help="Trust roots: which keys count, and how many must sign.")
app.add_typer(roots, name="root")

KeyOption = Annotated[Path, option("--key", metavar="FILE", help="The private key to sign with.")]
PassphraseOption = Annotated[
    Path | None, option("--passphrase-file", metavar="FILE", help="Has what the private key is locked with.")
]
RootArgument = Annotated[Path, argument("FILE", "The trust root.")]
_LONGEST = 4096


@app.command("new")
def new(
    context: typer.Context,
    file: Annotated[Path, argument("FILE", "Where the private key goes; never over another file.")],
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key; what is printed is its public half, which nodes are told to trust."""
    session, room = sessions.of(context), _room()
    made = room.signatures.PrivateKey.make()
    room.keys.write_key(file, made, _passphrase(passphrase_file))
    _show(session, made.public, as_json=as_json)


@app.command("show")
def show(
    context: typer.Context,
    file: Annotated[str, argument("FILE|KEY", "A private key, or a public one.")],
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the public half of a key, and its name."""
    session, room = sessions.of(context), _room()
    with room.about(file):
        found = room.keys.public_of(file, _passphrase(passphrase_file))
    _show(session, found, as_json=as_json)


@app.command("sign")
def sign(
    context: typer.Context,
    file: Annotated[str, argument("FILE", "The document, JSON as a node gets it.")],
    key: KeyOption,
    passphrase_file: PassphraseOption = None,
    into: Annotated[
        Path | None, option("--into", metavar="FILE", help="Where signatures go; FILE.sigs by default.")
    ] = None,
    make: Annotated[
        Path | None,
        option("--make", metavar="FILE", help="Write FILE, that may be TOML or YAML, as JSON there first."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a document: its exact bytes, so that nothing of it may change any more, not even a space.

    Signatures of several keys come to lie in one file, one after the other.
    """
    session, room = sessions.of(context), _room()
    with room.about(key):
        private = room.keys.read_key(key, _passphrase(passphrase_file))
    told, found = room.sign(file, private, into=into, make=make)
    names = [each.key_id for each in found]
    if as_json:
        session.terminal.json({**told, "signed_by": names})
    else:
        session.terminal.line(told["signatures"])
        session.terminal.note(f"{told['etag']}, signed by {', '.join(names)}")


@app.command("trust")
def trust(
    context: typer.Context,
    key: Annotated[str | None, argument("[KEY|FILE]", "A public key, or a trust root.")] = None,
    anybody: Annotated[
        bool, option("--anybody", help="Take again what anybody at this machine applies.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Have this node take only documents that a key has signed, where no central says so.

    A node that joins is told whom to trust by toft join --server-key, or by its central.
    """
    session = sessions.of(context)
    if (key is None) is not anybody:
        raise UsageError("name a key, or --anybody", code="request.command_line")
    root = _room().trust(session, key)
    names = [] if root is None else sorted(root.keys)
    if as_json:
        session.terminal.json({"threshold": root.threshold if root else 0, "keys": names})
    elif root is None:
        session.terminal.note("documents need no signatures any more")
    else:
        session.terminal.note(f"from now on {root.threshold} of {', '.join(names)} must sign each document")


@roots.command("new")
def new_root(
    context: typer.Context,
    file: RootArgument,
    key: Annotated[
        list[str], option("--key", metavar="FILE|KEY", help="One that counts: public or private; repeatable.")
    ],
    threshold: Annotated[int, option("--threshold", metavar="N", min=1, help="So many must sign.")] = 1,
    after: Annotated[
        Path | None,
        option("--after", metavar="FILE", help="The one it follows; enough of its keys sign too."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say which keys count; then sign it with enough of them, and of those of the one before."""
    session = sessions.of(context)
    root = _room().new_root(file, key, threshold, after)
    _tell_root(session, file, root, (), as_json=as_json)


@roots.command("sign")
def sign_root(
    context: typer.Context,
    file: RootArgument,
    key: KeyOption,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a trust root with one more key."""
    session, room = sessions.of(context), _room()
    with room.about(key):
        private = room.keys.read_key(key, _passphrase(passphrase_file))
    with room.about(file):
        root, found = room.keys.sign_root(file, private)
    _tell_root(session, file, root, found, as_json=as_json)


@roots.command("show")
def show_root(context: typer.Context, file: RootArgument, as_json: JsonOption = False) -> None:
    """Show which keys a trust root names, and who has signed it so far."""
    session = sessions.of(context)
    room = _room()
    with room.about(file):
        root, signed = room.keys.read_root(file)
    _tell_root(session, file, root, signed.signatures, as_json=as_json)


def _passphrase(file: Path | None) -> bytes:
    if file is None:
        return b""
    with file.open("rb") as opened:
        found = opened.read(_LONGEST).rstrip(b"\r\n")
    if not found:
        raise UsageError(f"{file} is empty, and no key is locked with nothing", code="request.command_line")
    return found


def _show(session: Session, key: PublicKey, *, as_json: bool) -> None:
    if as_json:
        session.terminal.json({"key_id": key.key_id, "public_key": key.text})
    else:
        session.terminal.line(key.text)
        session.terminal.note(f"its name is {key.key_id}; nodes trust it with toft join --server-key")


def _tell_root(
    session: Session, file: Path, root: Root, found: Sequence[Signature], *, as_json: bool
) -> None:
    left = _room().keys.missing(root, found)
    names = [each.key_id for each in found]
    if as_json:
        value = {"file": str(file), "root": root.to_value(), "signed_by": names, "missing": left}
        session.terminal.json(value)
        return
    session.terminal.line(f"version {root.version}: {root.threshold} of {', '.join(sorted(root.keys))}")
    session.terminal.note(f"signed by {', '.join(names) or 'nobody'}; of its own keys {left} more must sign")


def _room() -> ModuleType:
    from toft.cli import signing  # noqa: PLC0415 - a tenth of a second that `toft --help` does not pay

    return signing
