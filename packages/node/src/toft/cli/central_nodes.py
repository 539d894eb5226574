"""`toft central node …`: who is in the fleet, what each one runs, and what is done about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from toft.cli import central_rows, shown
from toft.cli.administering import Central, NodeArgument, TenantOption, labels_of
from toft.cli.session import JsonOption, argument, option
from toft.cli.terminal import Terminal
from toft.kernel.visible import one_line

app = typer.Typer(no_args_is_help=True, help="The nodes of a fleet.")
app.command("logs")(central_rows.logs)
app.command("metrics")(central_rows.metrics)


@app.command("list")
def list_nodes(
    context: typer.Context,
    state: Annotated[
        str | None, option("--state", metavar="STATE", help="pending, active or revoked.")
    ] = None,
    group: Annotated[str | None, option("--group", metavar="NAME", help="Only those in this group.")] = None,
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the nodes of a fleet, what they run, and when they were last heard of."""
    Central(context, as_json, tenant).ask("GET", "nodes", state=state, group=group).table(
        ["node", "name", "state", "group", "runs", "phase", "last seen"],
        lambda each: [
            *(each["id"], one_line(each["name"], 40), each["state"], each["group"] or ""),
            *(_short(each["asked_etag"]), each["phase"] or "", shown.local(each["last_seen_at"]) or "never"),
        ],
    )


@app.command("show")
def show(
    context: typer.Context, node: NodeArgument, tenant: TenantOption = None, as_json: JsonOption = False
) -> None:
    """Tell everything about a node: what it runs, what it is offered, what happened on it."""
    Central(context, as_json, tenant).ask("GET", "nodes", node).show(_show)


def _show(terminal: Terminal, found: Mapping[str, Any]) -> None:
    terminal.line(f"{found['id']}  {one_line(found['name'])}  {found['state']}")
    offered = found["offered"] or {}
    fields = {
        "group": found["group"],
        "labels": " ".join(f"{name}={value}" for name, value in found["labels"].items()),
        "runs": _named(found["asked_etag"], found["running"]["revision"]) or "nothing of this central yet",
        "offered": _named(offered.get("etag"), offered.get("revision")),
        "pinned": _short(found["pinned"]),
        "phase": found["phase"],
        "host": found["hostname"],
        "system": f"{found['os']}, toft {found['agent_version']}",
        "joined": shown.local(found["created_at"]),
        "last seen": shown.local(found["last_seen_at"]) or "never",
        "set back": shown.local(found["restored_at"]),
    }
    for name, value in fields.items():
        if value:
            terminal.line(f"  {name:<10} {one_line(str(value))}")
    for each in found["history"][:20]:
        why = " ".join(str(each.get(name)) for name in ("reason", "detail") if each.get(name))
        terminal.line(f"  {each['at']:<24} {each['event']:<12} {_short(each.get('etag'))}  {one_line(why)}")


@app.command("diff")
def diff(
    context: typer.Context, node: NodeArgument, tenant: TenantOption = None, as_json: JsonOption = False
) -> None:
    """Tell how what a node runs differs from what it is offered."""
    found = Central(context, as_json, tenant).ask("GET", "nodes", node, "diff")
    found.difference("it runs what it is offered")


@app.command("revoke")
def revoke(
    context: typer.Context, node: NodeArgument, tenant: TenantOption = None, as_json: JsonOption = False
) -> None:
    """Throw a node out: it keeps what it runs, and gets nothing any more. This cannot be undone."""
    _do(Central(context, as_json, tenant), node, "revoke", "is out, and keeps what it runs")


@app.command("approve")
def approve(
    context: typer.Context, node: NodeArgument, tenant: TenantOption = None, as_json: JsonOption = False
) -> None:
    """Let a node in that waits for it."""
    _do(Central(context, as_json, tenant), node, "approve", "is in")


@app.command("label")
def label(
    context: typer.Context,
    node: NodeArgument,
    labels: Annotated[
        list[str] | None, argument("NAME=VALUE", "Labels to set; NAME- takes one away.")
    ] = None,
    name: Annotated[str | None, option("--name", metavar="TEXT", help="What people call it.")] = None,
    group: Annotated[
        str | None,
        option("--group", metavar="NAME", help="Its group, whatever its labels say; '' for none."),
    ] = None,
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change the labels of a node, its name or its group."""
    central = Central(context, as_json, tenant)
    body = {"labels": labels_of(labels, takes_away=True), "name": name, "group": group}
    _do(central, node, "label", "is changed", body)


@app.command("pin")
def pin(
    context: typer.Context,
    node: NodeArgument,
    sha256: Annotated[
        str | None, option("--sha256", metavar="SHA256", help="Of a document it was given; the last one.")
    ] = None,
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a node on a document, whatever is published."""
    _do(Central(context, as_json, tenant), node, "pin", "stays where it is", {"sha256": sha256})


@app.command("unpin")
def unpin(
    context: typer.Context, node: NodeArgument, tenant: TenantOption = None, as_json: JsonOption = False
) -> None:
    """Let a node have again what all others have."""
    _do(Central(context, as_json, tenant), node, "unpin", "goes with the others again")


@app.command("retry")
def retry(
    context: typer.Context, node: NodeArgument, tenant: TenantOption = None, as_json: JsonOption = False
) -> None:
    """Ask a node to try again what it has refused, without another revision."""
    _do(Central(context, as_json, tenant), node, "retry", "tries again when it asks next")


def _do(central: Central, node: str, verb: str, said: str, body: Mapping[str, Any] | None = None) -> None:
    changed = central.ask("POST", "nodes", node, verb, body=body)
    changed.note(lambda each: f"{one_line(each['name'])} {said}")


def _named(etag: str | None, revision: int | None) -> str:
    return f"{_short(etag)}{'' if revision is None else f' (revision {revision})'}" if etag else ""


def _short(etag: str | None) -> str:
    return etag.removeprefix("sha256-")[:12] if etag else ""
