"""`toft central document …`, group, artifact and root: what nodes are to run, and who vouches for it."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from toft.cli import documents, shown
from toft.cli.administering import Central, TenantOption, labels_of
from toft.cli.session import JsonOption, argument, option
from toft.cli.terminal import Terminal
from toft.kernel.errors import UsageError
from toft.kernel.quantities import counted, size

app = typer.Typer(no_args_is_help=True, help="Layered documents: a tenant's, its groups', its nodes'.")
groups = typer.Typer(no_args_is_help=True, help="Groups: nodes that are meant together.")
artifacts = typer.Typer(no_args_is_help=True, help="The wheels that documents pin.")
roots = typer.Typer(no_args_is_help=True, help="Trust roots: whose signatures nodes ask for.")

FileArgument = Annotated[str, argument("FILE", "TOML, YAML or JSON; - is standard input.")]
IdArgument = Annotated[str, argument("DOCUMENT", "Its id, as toft central document list tells it.")]


@app.command("save")
def save(
    context: typer.Context,
    file: FileArgument,
    group: Annotated[str | None, option("--group", metavar="NAME", help="For one group.")] = None,
    node: Annotated[str | None, option("--node", metavar="NODE", help="For one node.")] = None,
    message: Annotated[str, option("--message", "-m", metavar="TEXT", help="Why, for people.")] = "",
    base: Annotated[
        int | None, option("--base", metavar="N", help="Refuse when a newer one than this was saved.")
    ] = None,
    publish: Annotated[bool, option("--publish", help="Give it to every node at once.")] = False,
    dry_run: Annotated[bool, option("--dry-run", help="Only tell what would change for whom.")] = False,
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Save a layer as a new revision, and tell what it changes for whom.

    Without --publish no node gets it before a rollout or `toft central document publish`. Saved is only a
    layer with which every node it reaches still has a document that leads back to this central.
    """
    central = Central(context, as_json, tenant)
    if group is not None and node is not None:
        raise UsageError("a layer is for one group or for one node", code="request.command_line")
    scope = "group" if group is not None else "node" if node is not None else "tenant"
    layer = documents.read(file)
    if not isinstance(layer, Mapping):
        raise UsageError(f"{file} is no object of sections", code="document.invalid")
    body = {
        "scope": scope,
        "target": group or node,
        "layer": layer,
        "message": message,
        "base": base,
        "publish": publish,
    }
    saved = central.ask("POST", "documents", body=body, dry_run=1 if dry_run else None)
    saved.show(functools.partial(_show_preview, is_published=publish and not dry_run))


def _show_preview(terminal: Terminal, found: Mapping[str, Any], *, is_published: bool) -> None:
    for each in found["changes"]:
        whom = each["node"] or (f"group {each['group']}" if each["group"] else "nodes without a group")
        what = "changed" if each["is_changed"] else "nothing changes"
        terminal.line(f"{whom}: {counted(each['nodes'], 'node')}, {what}")
        for line in each["diff"].splitlines():
            terminal.line(f"  {line}")
    for each in found["artifacts"]:
        terminal.line(f"fetch {each['filename'] or each['name']} {each['sha256'][:12]}")
    id, number = found["document"]["id"], found["number"]
    if not found["is_saved"]:
        terminal.note(f"nothing is saved; {counted(found['nodes'], 'node')} would change")
    elif is_published:
        are = "is" if found["nodes"] == 1 else "are"
        whom = counted(found["nodes"], "node")
        terminal.note(f"revision {number} of {id} is saved, and {whom} {are} offered it")
    else:
        terminal.note(f"revision {number} of {id} is saved; no node has it yet")
        terminal.note(
            f"next: toft central rollout create {id}, or at once: toft central document publish {id} {number}"
        )


@app.command("list")
def list_documents(context: typer.Context, tenant: TenantOption = None, as_json: JsonOption = False) -> None:
    """List the documents of a tenant: its own, those of groups, those of nodes."""
    Central(context, as_json, tenant).ask("GET", "documents").table(
        ["document", "for", "which", "published"],
        lambda each: [
            *(each["id"], each["scope"], each["target"]),
            "" if each["published"] is None else str(each["published"]),
        ],
    )


@app.command("show")
def show(
    context: typer.Context,
    document: IdArgument,
    number: Annotated[int | None, option("--number", metavar="N", help="Which revision; the newest.")] = None,
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell of a document and its revisions, and what one of them says."""
    Central(context, as_json, tenant).ask("GET", "documents", document, number=number).show(_show_document)


def _show_document(terminal: Terminal, found: Mapping[str, Any]) -> None:
    terminal.line(f"{found['id']}  {found['scope']} {found['target']}")
    for each in found["revisions"]:
        mark = "*" if each["is_published"] else " "
        at = shown.local(each["created_at"])
        terminal.line(f" {mark} {each['number']:>6}  {at}  {each['author']}  {each['message']}")
    terminal.line(json.dumps(found["layer"], indent=2, ensure_ascii=False, sort_keys=True))


@app.command("diff")
def diff(
    context: typer.Context,
    document: IdArgument,
    before: Annotated[int | None, option("--from", metavar="N", help="The published one by default.")] = None,
    after: Annotated[int | None, option("--to", metavar="N", help="The newest by default.")] = None,
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell how two revisions of a document differ."""
    central = Central(context, as_json, tenant)
    found = central.ask("GET", "documents", document, "diff", before=before, after=after)
    found.difference("they say the same")


@app.command("publish")
def publish(
    context: typer.Context,
    document: IdArgument,
    number: Annotated[int, argument("NUMBER", "Which revision; 0 takes the layer away.")],
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give every node a revision at once, without a rollout."""
    central = Central(context, as_json, tenant)
    found = central.ask("POST", "documents", document, "publish", body={"number": number or None})
    if number:
        found.note(lambda each: f"every node that {each['id']} reaches is offered revision {number}")
    else:
        found.note(lambda each: f"{each['id']} is taken away from every node that it reached")


@app.command("payloads")
def payloads(
    context: typer.Context,
    document: IdArgument,
    number: Annotated[int, argument("NUMBER", "Which revision.")],
    into: Annotated[
        Path | None, option("--into", metavar="DIR", help="Write the exact bytes there, as SHA256.json.")
    ] = None,
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what must be signed before nodes can be given a revision; the key may be elsewhere."""
    central = Central(context, as_json, tenant)
    found = central.ask("GET", "documents", document, "payloads", number=number)
    if into is not None:
        into.mkdir(parents=True, exist_ok=True)
        for each in found.value:
            data = _signatures().from_base64(each["payload"])
            (into / f"{each['sha256']}.json").write_bytes(data)
    found.table(
        ["sha256", ""], lambda each: [each["sha256"], "signed" if each["is_signed"] else "not signed"]
    )


@app.command("sign")
def sign(
    context: typer.Context,
    sha256: Annotated[str, argument("SHA256", "Of what was signed, as payloads tells it.")],
    file: Annotated[str, argument("FILE", "JSON: a list of objects with key_id and signature.")],
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring signatures that were made elsewhere, over the bytes that payloads has written."""
    central = Central(context, as_json, tenant)
    value = documents.read(file)
    body = {"signatures": value if isinstance(value, list) else [value]}
    found = central.ask("POST", "signatures", sha256, body=body)
    found.note(
        lambda each: (
            f"signed by {', '.join(each['keys'])}: {'enough' if each['is_enough'] else 'not enough yet'}"
        )
    )


@groups.command("list")
def list_groups(context: typer.Context, tenant: TenantOption = None, as_json: JsonOption = False) -> None:
    """List the groups of a tenant, the one that counts first in front."""
    Central(context, as_json, tenant).ask("GET", "groups").table(
        ["group", "priority", "selector"],
        lambda each: [
            *(each["name"], str(each["priority"])),
            json.dumps(each["selector"], sort_keys=True),
        ],
    )


@groups.command("put")
def put_group(
    context: typer.Context,
    name: Annotated[str, argument("NAME", "What it is called.")],
    selector: Annotated[
        list[str] | None, option("--selector", "-s", metavar="NAME=VALUE", help="Labels of its nodes.")
    ] = None,
    priority: Annotated[int, option("--priority", metavar="N", help="Of several, the highest counts.")] = 0,
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a group, or change which nodes are in it."""
    central = Central(context, as_json, tenant)
    body = {"selector": labels_of(selector), "priority": priority}
    made = central.ask("PUT", "groups", name, body=body)
    made.note(lambda _: f"group {name} is there")


@groups.command("delete")
def delete_group(
    context: typer.Context,
    name: Annotated[str, argument("NAME", "Which one.")],
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take away a group that has no document."""
    gone = Central(context, as_json, tenant).ask("DELETE", "groups", name)
    gone.note(lambda _: f"group {name} is gone")


@artifacts.command("add")
def add_artifact(
    context: typer.Context,
    files: Annotated[list[Path], argument("FILE", "Wheels; each is stored under its sha256.")],
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a central wheels that documents may pin."""
    Central(context, as_json, tenant).upload(files, "artifacts").show(_show_artifacts)


def _show_artifacts(terminal: Terminal, made: Sequence[Mapping[str, Any]]) -> None:
    for each in made:
        terminal.line(f"{each['sha256']}  {each['filename']}")


@artifacts.command("list")
def list_artifacts(context: typer.Context, tenant: TenantOption = None, as_json: JsonOption = False) -> None:
    """List the wheels of a tenant."""
    Central(context, as_json, tenant).ask("GET", "artifacts").table(
        ["wheel", "version", "size", "sha256"],
        lambda each: [each["name"], each["version"], size(each["size_bytes"]), each["sha256"]],
    )


@roots.command("add")
def add_root(
    context: typer.Context,
    file: Annotated[str, argument("FILE", "JSON: an object with root, in base64, and signatures.")],
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take the next trust root, signed by the keys of the one before it and by its own.

    From the first one on, nodes of this tenant take only documents that are signed.
    """
    central = Central(context, as_json, tenant)
    value = documents.read(file)
    if not isinstance(value, Mapping):
        raise UsageError(f"{file} is no trust root with signatures", code="signature.bad_key")
    central.ask("POST", "roots", body=value).note(
        lambda each: (
            f"trust root {each['version']}: {each['threshold']} of {len(each['keys'])} keys must sign"
        )
    )


@roots.command("list")
def list_roots(context: typer.Context, tenant: TenantOption = None, as_json: JsonOption = False) -> None:
    """Tell the chain of trust roots of a tenant, the first one first."""
    Central(context, as_json, tenant).ask("GET", "roots").show(_show_roots)


def _show_roots(terminal: Terminal, found: Mapping[str, Any]) -> None:
    signatures = _signatures()
    rows = []
    for each in found["roots"]:
        root = signatures.Root.parse(signatures.from_base64(each["root"]))
        rows.append([str(root.version), f"{root.threshold} of {len(root.keys)}", " ".join(sorted(root.keys))])
    terminal.table(["root", "must sign", "keys"], rows)


def _signatures() -> ModuleType:
    from toft.managed import signatures  # noqa: PLC0415 - 60 ms that `toft --help` does not pay

    return signatures
