"""`toft central …`: be a central, and administer one: who may join, and who has done what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from toft.cli import central_documents, central_nodes, central_rollouts, failures, shown
from toft.cli import session as sessions
from toft.cli.administering import Central, TenantOption, labels_of
from toft.cli.moments import lasting
from toft.cli.session import JsonOption, argument, option
from toft.cli.terminal import Terminal

app = typer.Typer(
    no_args_is_help=True,
    help="Be a central, or administer the one at --url with the token of --token-file.",
)
tokens = typer.Typer(no_args_is_help=True, help="Join tokens, which let machines become nodes.")
admins = typer.Typer(no_args_is_help=True, help="Tokens of those who administer a central.")
tenants = typer.Typer(no_args_is_help=True, help="Tenants: fleets that know nothing of each other.")
app.add_typer(tokens, name="token")
app.add_typer(admins, name="admin")
app.add_typer(tenants, name="tenant")
app.add_typer(central_documents.app, name="document")
app.add_typer(central_documents.groups, name="group")
app.add_typer(central_documents.artifacts, name="artifact")
app.add_typer(central_documents.roots, name="root")
app.add_typer(central_nodes.app, name="node")
app.add_typer(central_rollouts.app, name="rollout")
app.command("fleet")(central_rollouts.fleet)

_OWN = "/v1"
"""Below it is what a central and a node answer alike."""


@app.command("serve")
def serve(
    context: typer.Context,
    data: Annotated[Path, option("--data", metavar="DIR", help="Where it keeps everything.")],
    listen: Annotated[
        str, option("--listen", metavar="HOST:PORT", help="Where nodes and administrators ask.")
    ],
    url: Annotated[
        list[str] | None,
        option("--url", metavar="URL", help="How nodes reach it; repeat it, the first one first."),
    ] = None,
    tls_cert: Annotated[
        Path | None, option("--tls-cert", metavar="FILE", help="Its certificate, PEM.")
    ] = None,
    tls_key: Annotated[Path | None, option("--tls-key", metavar="FILE", help="The key of that, PEM.")] = None,
    insecure_public: Annotated[
        bool, option("--insecure-public", help="Listen to other machines without TLS.")
    ] = False,
    database: Annotated[
        str, option("--database", metavar="DSN", help="Such as postgresql:///toft; a file in DIR by default.")
    ] = "",
    admin_token_file: Annotated[
        Path | None,
        option("--admin-token-file", metavar="FILE", help="Write the first admin token there."),
    ] = None,
    telemetry_bytes: Annotated[
        int | None,
        option(
            "--telemetry-bytes",
            metavar="N",
            min=1,
            help="How much of each node's log, and of its samples, is kept; 4 MiB.",
        ),
    ] = None,
) -> None:
    """Be a central, in the foreground; SIGTERM ends it in order.

    With --database, or TOFT_CENTRAL_DATABASE, what it knows is in PostgreSQL; wheels stay in --data.

    On its first start it makes the token of the first administrator, and shows it once.
    """
    from toft.daemon import central  # noqa: PLC0415 - a third of a second that `toft --help` does not pay

    sessions.of(context)
    central.serve(
        data=data,
        listen=listen,
        urls=url or (),
        tls=(tls_cert, tls_key),
        insecure_public=insecure_public,
        token_file=admin_token_file,
        telemetry_bytes=telemetry_bytes,
        dsn=database,
    )


@app.command("status")
def status(context: typer.Context, tenant: TenantOption = None, as_json: JsonOption = False) -> None:
    """Tell how many nodes there are, how many wait for a document now, and where they ask."""
    Central(context, as_json, tenant).ask("GET", "status").show(_show_status)


def _show_status(terminal: Terminal, found: Mapping[str, Any]) -> None:
    counts = ", ".join(f"{count} {state}" for state, count in found["nodes"].items())
    terminal.line(f"nodes    {counts}; {found['waiting']} wait for a document")
    terminal.line(f"asked at {' '.join(found['urls'])}")
    terminal.line(f"version  {found['version']}")


@tokens.command("create")
def create_token(
    context: typer.Context,
    group: Annotated[
        str | None, option("--group", metavar="NAME", help="The group whose nodes it makes.")
    ] = None,
    label: Annotated[
        list[str] | None, option("--label", "-l", metavar="NAME=VALUE", help="Of its nodes; repeat it.")
    ] = None,
    uses: Annotated[int, option("--uses", metavar="N", min=1, help="Nodes that may join with it.")] = 1,
    expires: Annotated[
        str | None, option("--expires", metavar="TIME", help="Such as 12h; 1h by default.")
    ] = None,
    approve: Annotated[bool, option("--approve", help="Its nodes wait until you let them in.")] = False,
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a join token and show it, once.

    Its text alone goes to standard output, so that > FILE keeps it. --json prints everything about it.
    """
    central = Central(context, as_json, tenant)
    body = {
        "group": group,
        "labels": labels_of(label),
        "max_uses": uses,
        "lasts_s": None if expires is None else lasting(expires),
        "needs_approval": approve,
    }
    central.ask("POST", "tokens", body=body).show(_show_token)


def _show_token(terminal: Terminal, made: Mapping[str, Any]) -> None:
    terminal.line(made["token"])
    terminal.note(f"good until {shown.local(made['expires_at'])}; this is the only time it is shown")


@tokens.command("list")
def list_tokens(context: typer.Context, tenant: TenantOption = None, as_json: JsonOption = False) -> None:
    """List join tokens; never the tokens themselves."""
    Central(context, as_json, tenant).ask("GET", "tokens").table(
        ["token", "state", "group", "used", "expires", "made by"],
        lambda each: [
            *(each["id"], each["state"], each["group"] or "", f"{each['uses']}/{each['max_uses']}"),
            *(shown.local(each["expires_at"]), each["created_by"]),
        ],
    )


@tokens.command("revoke")
def revoke_token(
    context: typer.Context,
    id: Annotated[str, argument("ID", "The eight characters after jt_.")],
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a join token; the nodes that joined with it stay."""
    ended = Central(context, as_json, tenant).ask("DELETE", "tokens", id)
    ended.note(lambda each: f"nobody joins with {each['id']} any more")


@admins.command("create")
def create_admin(
    context: typer.Context,
    name: Annotated[str, argument("NAME", "What you call it, such as ops.")],
    scope: Annotated[
        list[str],
        option("--scope", "-s", metavar="SCOPE", help="Such as fleet:read, document:write:TENANT or *."),
    ],
    expires: Annotated[
        str | None, option("--expires", metavar="TIME", help="Such as 90d; never by default.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token for an administrator and show it, once; nobody gives more than they have."""
    central = Central(context, as_json)
    body = {"name": name, "scopes": scope, "lasts_s": None if expires is None else lasting(expires)}
    central.ask("POST", "tokens", body=body, root=_OWN).show(_show_admin)


def _show_admin(terminal: Terminal, made: Mapping[str, Any]) -> None:
    terminal.line(made["token"])
    terminal.note("this is the only time it is shown")


@admins.command("list")
def list_admins(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the tokens of administrators; never the tokens themselves."""
    Central(context, as_json).ask("GET", "tokens", root=_OWN).table(
        ["token", "state", "scopes", "last used"],
        lambda each: [
            *(each["name"], each["state"], " ".join(each["scopes"])),
            shown.local(each["last_used_at"]) or "never",
        ],
    )


@admins.command("revoke")
def revoke_admin(
    context: typer.Context,
    name: Annotated[str, argument("NAME", "Its name, or its id.")],
    as_json: JsonOption = False,
) -> None:
    """End the token of an administrator."""
    ended = Central(context, as_json).ask("DELETE", "tokens", name, root=_OWN)
    ended.note(lambda each: f"token {each['name']} holds no more")


@tenants.command("create")
def create_tenant(
    context: typer.Context,
    name: Annotated[str, argument("NAME", "What it is called.")],
    as_json: JsonOption = False,
) -> None:
    """Make a tenant; there is always one called main."""
    made = Central(context, as_json).ask("POST", "tenants", body={"name": name})
    made.note(lambda each: f"there is a tenant {each['name']}")


@tenants.command("list")
def list_tenants(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the tenants that you may see."""
    Central(context, as_json).ask("GET", "tenants").show(_show_tenants)


def _show_tenants(terminal: Terminal, found: Sequence[Mapping[str, Any]]) -> None:
    for each in found:
        terminal.line(each["name"])


@app.command("audit")
def audit(
    context: typer.Context,
    verify: Annotated[bool, option("--verify", help="Look whether each line is what it was.")] = False,
    before: Annotated[int | None, option("--before", metavar="N", help="Only lines before this one.")] = None,
    most: Annotated[
        int, option("--limit", metavar="N", min=1, max=500, help="So many; 100 by default.")
    ] = 100,
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what was done, by whom, the newest first; status 1 when --verify finds a changed line.

    Who may not join is told here, and only here.
    """
    if verify:
        answer = Central(context, as_json).ask("GET", "audit", "verify")
        answer.show(_show_verified)
        if not answer.value["is_whole"]:
            raise typer.Exit(failures.FAILED)
        return
    Central(context, as_json, tenant).ask("GET", "audit", before=before, most=most).table(
        ["line", "at", "who", "did", "to", ""],
        lambda each: [
            *(str(each["seq"]), shown.local(each["at"]), each["actor"], each["action"], each["subject"]),
            _said(each),
        ],
    )


def _show_verified(terminal: Terminal, found: Mapping[str, Any]) -> None:
    if found["is_whole"]:
        terminal.line(f"{found['lines']} lines, each as it was written; the last is {found['head']}")
    else:
        terminal.line(f"line {found['broken_at']} is not what was written")


def _said(entry: Mapping[str, Any]) -> str:
    told: Sequence[str] = [
        f"{name}={value}" for name, value in entry["details"].items() if value not in (None, "", {}, [])
    ]
    return " ".join(told)[:120]
