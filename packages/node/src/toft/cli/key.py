"""`toft key`: keys that documents are signed with, far from any node if need be, and who trusts which."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toft.cli import documents
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


@app.command("new")
def new(
    context: typer.Context,
    file: Annotated[Path, argument("FILE", "Where the private key goes; never over another file.")],
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key; what is printed is its public half, which nodes are told to trust."""
    from toft.managed import keys, signatures  # noqa: PLC0415 - `toft --help` does not pay for it

    made = signatures.PrivateKey.make()
    keys.write_key(file, made, _passphrase(passphrase_file))
    _show(sessions.of(context), made.public, as_json=as_json)


@app.command("show")
def show(
    context: typer.Context,
    file: Annotated[str, argument("FILE|KEY", "A private key, or a public one.")],
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the public half of a key, and its name."""
    from toft.managed import keys  # noqa: PLC0415 - as above

    found = keys.public_of(file, _passphrase(passphrase_file))
    _show(sessions.of(context), found, as_json=as_json)


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
    from toft.managed import document, keys, signatures  # noqa: PLC0415 - as above

    session = sessions.of(context)
    data = documents.read_bytes(file)
    if make is not None:
        from toft.store import durable  # noqa: PLC0415 - as above

        data = document.author(data, file).data
        durable.write_file(make, data)
        file = str(make)
    else:
        document.parse(data, file)
    private = keys.read_key(key, _passphrase(passphrase_file))
    place = into or Path(f"{'document.json' if file == '-' else file}.sigs")
    found = keys.sign_file(place, signatures.DOCUMENT_TYPE, data, private)
    told = {"file": file, "etag": document.etag_of(data), "signatures": str(place)}
    _signed(session, told, found, as_json=as_json)


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
    from toft.managed import generations, joining, keys, signatures  # noqa: PLC0415 - as above

    session = sessions.of(context)
    if (key is None) is not anybody:
        raise UsageError("name a key, or --anybody", code="request.command_line")
    root = None if key is None else signatures.read_key(keys.text_of(key))
    joining.trust(generations.Generations.at(session.settings().home), root)
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
    from toft.managed import keys, signatures  # noqa: PLC0415 - as above

    session = sessions.of(context)
    if file.exists():
        raise UsageError(f"{file} is there already", code="request.command_line")
    version = 1 if after is None else keys.read_root(after)[0].version + 1
    root = signatures.Root.of(version, threshold, [keys.public_of(each) for each in key])
    keys.write_root(file, root)
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
    from toft.managed import keys  # noqa: PLC0415 - as above

    private = keys.read_key(key, _passphrase(passphrase_file))
    root, found = keys.sign_root(file, private)
    _tell_root(sessions.of(context), file, root, found, as_json=as_json)


@roots.command("show")
def show_root(context: typer.Context, file: RootArgument, as_json: JsonOption = False) -> None:
    """Show which keys a trust root names, and who has signed it so far."""
    from toft.managed import keys  # noqa: PLC0415 - as above

    root, signed = keys.read_root(file)
    _tell_root(sessions.of(context), file, root, signed.signatures, as_json=as_json)


def _passphrase(file: Path | None) -> bytes:
    if file is None:
        return b""
    found = file.read_bytes()[:4096].rstrip(b"\r\n")
    if not found:
        raise UsageError(f"{file} is empty, and no key is locked with nothing", code="request.command_line")
    return found


def _show(session: Session, key: PublicKey, *, as_json: bool) -> None:
    if as_json:
        session.terminal.json({"key_id": key.key_id, "public_key": key.text})
    else:
        session.terminal.line(key.text)
        session.terminal.note(f"its name is {key.key_id}; nodes trust it with toft join --server-key")


def _signed(session: Session, told: dict[str, Any], found: tuple[Signature, ...], *, as_json: bool) -> None:
    names = [each.key_id for each in found]
    if as_json:
        session.terminal.json({**told, "signed_by": names})
    else:
        session.terminal.line(told["signatures"])
        session.terminal.note(f"{told['etag']}, signed by {', '.join(names)}")


def _tell_root(
    session: Session, file: Path, root: Root, found: tuple[Signature, ...], *, as_json: bool
) -> None:
    from toft.managed import keys  # noqa: PLC0415 - as above

    left = keys.missing(root, found)
    names = [each.key_id for each in found]
    if as_json:
        value = {"file": str(file), "root": root.to_value(), "signed_by": names, "missing": left}
        session.terminal.json(value)
        return
    session.terminal.line(f"version {root.version}: {root.threshold} of {', '.join(sorted(root.keys))}")
    session.terminal.note(f"signed by {', '.join(names) or 'nobody'}; of its own keys {left} more must sign")
