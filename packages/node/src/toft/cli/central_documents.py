"""`toft central document …`, group, artifact and root: what nodes are to run, and who vouches for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from toft.cli import documents, shown
from toft.cli import session as sessions
from toft.cli.administering import TenantOption, ask, labels_of, query_of, target
from toft.cli.session import JsonOption, Session, argument, option
from toft.kernel.errors import UsageError
from toft.kernel.quantities import size

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
    session = sessions.of(context)
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
    found = ask(session, "POST", ("documents",), body, query=query_of(tenant, dry_run=1 if dry_run else None))
    if as_json:
        session.terminal.json(found)
        return
    _show_preview(session, found, is_published=publish and not dry_run)


def _show_preview(session: Session, found: Mapping[str, Any], *, is_published: bool) -> None:
    terminal = session.terminal
    for each in found["changes"]:
        whom = each["node"] or (f"group {each['group']}" if each["group"] else "nodes without a group")
        terminal.line(
            f"{whom}: {each['nodes']} nodes, {'changed' if each['is_changed'] else 'nothing changes'}"
        )
        for line in each["diff"].splitlines():
            terminal.line(f"  {line}")
    for each in found["artifacts"]:
        terminal.line(f"fetch {each['filename'] or each['name']} {each['sha256'][:12]}")
    id, number = found["document"]["id"], found["number"]
    if not found["is_saved"]:
        terminal.note(f"nothing is saved; {found['nodes']} nodes would change")
    elif is_published:
        terminal.note(f"revision {number} of {id} is saved, and {found['nodes']} nodes are offered it")
    else:
        terminal.note(f"revision {number} of {id} is saved; no node has it yet")
        terminal.note(
            f"next: toft central rollout create {id}, or at once: toft central document publish {id} {number}"
        )


@app.command("list")
def list_documents(context: typer.Context, tenant: TenantOption = None, as_json: JsonOption = False) -> None:
    """List the documents of a tenant: its own, those of groups, those of nodes."""
    session = sessions.of(context)
    found = ask(session, "GET", ("documents",), query=query_of(tenant))
    if as_json:
        session.terminal.json(found)
        return
    rows = [
        [
            each["id"],
            each["scope"],
            each["target"],
            "" if each["published"] is None else str(each["published"]),
        ]
        for each in found
    ]
    session.terminal.table(["document", "for", "which", "published"], rows)


@app.command("show")
def show(
    context: typer.Context,
    document: IdArgument,
    number: Annotated[int | None, option("--number", metavar="N", help="Which revision; the newest.")] = None,
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell of a document and its revisions, and what one of them says."""
    session = sessions.of(context)
    found = ask(session, "GET", ("documents", document), query=query_of(tenant, number=number))
    if as_json:
        session.terminal.json(found)
        return
    session.terminal.line(f"{found['id']}  {found['scope']} {found['target']}")
    for each in found["revisions"]:
        mark = "*" if each["is_published"] else " "
        at = shown.local(each["created_at"])
        session.terminal.line(f" {mark} {each['number']:>6}  {at}  {each['author']}  {each['message']}")
    session.terminal.line(json.dumps(found["layer"], indent=2, ensure_ascii=False, sort_keys=True))


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
    session = sessions.of(context)
    query = query_of(tenant, before=before, after=after)
    found = ask(session, "GET", ("documents", document, "diff"), query=query)
    if as_json:
        session.terminal.json(found)
    elif found["diff"]:
        session.terminal.line(found["diff"])
    else:
        session.terminal.note("they say the same")


@app.command("publish")
def publish(
    context: typer.Context,
    document: IdArgument,
    number: Annotated[int, argument("NUMBER", "Which revision; 0 takes the layer away.")],
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give every node a revision at once, without a rollout."""
    session = sessions.of(context)
    body = {"number": number or None}
    found = ask(session, "POST", ("documents", document, "publish"), body, query=query_of(tenant))
    if as_json:
        session.terminal.json(found)
    else:
        session.terminal.note(f"every node that {found['id']} reaches is offered revision {number or 'none'}")


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
    from toft.managed import signatures  # noqa: PLC0415 - `toft --help` does not pay for it

    session = sessions.of(context)
    query = query_of(tenant, number=number)
    found = ask(session, "GET", ("documents", document, "payloads"), query=query)
    if into is not None:
        into.mkdir(parents=True, exist_ok=True)
        for each in found:
            (into / f"{each['sha256']}.json").write_bytes(signatures.from_base64(each["payload"]))
    if as_json:
        session.terminal.json(found)
        return
    rows = [[each["sha256"], "signed" if each["is_signed"] else "not signed"] for each in found]
    session.terminal.table(["sha256", ""], rows)


@app.command("sign")
def sign(
    context: typer.Context,
    sha256: Annotated[str, argument("SHA256", "Of what was signed, as payloads tells it.")],
    file: Annotated[str, argument("FILE", "JSON: a list of objects with key_id and signature.")],
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring signatures that were made elsewhere, over the bytes that payloads has written."""
    session = sessions.of(context)
    value = documents.read(file)
    listed = value if isinstance(value, list) else [value]
    found = ask(session, "POST", ("signatures", sha256), {"signatures": listed}, query=query_of(tenant))
    if as_json:
        session.terminal.json(found)
    else:
        enough = "enough" if found["is_enough"] else "not enough yet"
        session.terminal.note(f"signed by {', '.join(found['keys'])}: {enough}")


@groups.command("list")
def list_groups(context: typer.Context, tenant: TenantOption = None, as_json: JsonOption = False) -> None:
    """List the groups of a tenant, the one that counts first in front."""
    session = sessions.of(context)
    found = ask(session, "GET", ("groups",), query=query_of(tenant))
    if as_json:
        session.terminal.json(found)
        return
    rows = [
        [each["name"], str(each["priority"]), json.dumps(each["selector"], sort_keys=True)] for each in found
    ]
    session.terminal.table(["group", "priority", "selector"], rows)


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
    session = sessions.of(context)
    body = {"selector": labels_of(selector), "priority": priority}
    found = ask(session, "PUT", ("groups", name), body, query=query_of(tenant))
    if as_json:
        session.terminal.json(found)
    else:
        session.terminal.note(f"group {name} is there")


@groups.command("delete")
def delete_group(
    context: typer.Context,
    name: Annotated[str, argument("NAME", "Which one.")],
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take away a group that has no document."""
    session = sessions.of(context)
    found = ask(session, "DELETE", ("groups", name), query=query_of(tenant))
    if as_json:
        session.terminal.json(found)
    else:
        session.terminal.note(f"group {name} is gone")


@artifacts.command("add")
def add_artifact(
    context: typer.Context,
    files: Annotated[list[Path], argument("FILE", "Wheels; each is stored under its sha256.")],
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a central wheels that documents may pin."""
    from toft.client import administration  # noqa: PLC0415 - 60 ms that `toft --help` does not pay

    session = sessions.of(context)
    made = [
        administration.upload(
            target(session),
            administration.path("artifacts", administration.digest(file)),
            file,
            query=query_of(tenant, filename=file.name),
        )
        for file in files
    ]
    if as_json:
        session.terminal.json(made)
        return
    for each in made:
        session.terminal.line(f"{each['sha256']}  {each['filename']}")


@artifacts.command("list")
def list_artifacts(context: typer.Context, tenant: TenantOption = None, as_json: JsonOption = False) -> None:
    """List the wheels of a tenant."""
    session = sessions.of(context)
    found = ask(session, "GET", ("artifacts",), query=query_of(tenant))
    if as_json:
        session.terminal.json(found)
        return
    rows = [[each["name"], each["version"], size(each["size_bytes"]), each["sha256"]] for each in found]
    session.terminal.table(["wheel", "version", "size", "sha256"], rows)


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
    session = sessions.of(context)
    value = documents.read(file)
    if not isinstance(value, Mapping):
        raise UsageError(f"{file} is no trust root with signatures", code="signature.bad_key")
    found = ask(session, "POST", ("roots",), value, query=query_of(tenant))
    if as_json:
        session.terminal.json(found)
    else:
        session.terminal.note(
            f"trust root {found['version']}: {found['threshold']} of {len(found['keys'])} keys must sign"
        )


@roots.command("list")
def list_roots(context: typer.Context, tenant: TenantOption = None, as_json: JsonOption = False) -> None:
    """Tell the chain of trust roots of a tenant, the first one first."""
    from toft.managed import signatures  # noqa: PLC0415 - `toft --help` does not pay for it

    session = sessions.of(context)
    found = ask(session, "GET", ("roots",), query=query_of(tenant))
    if as_json:
        session.terminal.json(found)
        return
    rows = []
    for each in found["roots"]:
        root = signatures.Root.parse(signatures.from_base64(each["root"]))
        rows.append([str(root.version), f"{root.threshold} of {len(root.keys)}", " ".join(sorted(root.keys))])
    session.terminal.table(["root", "must sign", "keys"], rows)
