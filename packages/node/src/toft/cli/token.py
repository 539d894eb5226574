"""`toft token`, `toft open` and `toft why-denied`: who else may use this node, and how."""

from __future__ import annotations

import hashlib
import os
import webbrowser
from typing import Annotated, Any
from urllib.parse import quote, unquote, urlencode

import typer

from toft.cli import documents, moments, shown
from toft.cli import session as sessions
from toft.cli.answers import Answer
from toft.cli.session import JsonOption, Session, argument, option
from toft.cli.terminal import Terminal
from toft.kernel.errors import UnavailableError, UsageError

app = typer.Typer(no_args_is_help=True, help="Let programs elsewhere use this node: create, list, revoke.")


def register(tree: typer.Typer) -> None:
    """Add the commands to the tree."""
    tree.add_typer(app, name="token")
    tree.command("open")(open_pages)
    tree.command("why-denied")(why_denied)


@app.command("create")
def create(
    context: typer.Context,
    name: Annotated[str, argument("NAME", "What you call it, such as ci.")],
    scope: Annotated[
        list[str],
        option("--scope", "-s", metavar="SCOPE", help="KIND:ACTION[:PLUGIN], read, write or *; repeat it."),
    ],
    expires: Annotated[
        str | None, option("--expires", metavar="TIME", help="Such as 90d, 12h or 30m; never by default.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token and show it, once.

    Its text alone goes to standard output, so that > FILE keeps it. --json prints everything about it.
    """
    session = sessions.of(context)
    lasts_s = None if expires is None else moments.lasting(expires)
    body = {"name": name, "scopes": scope, "lasts_s": lasts_s}
    Answer(session.terminal, _ask(session, "POST", "/v1/tokens", body), as_json).show(_show_made)


def _show_made(terminal: Terminal, made: dict[str, Any]) -> None:
    terminal.line(made["token"])
    until = f"until {shown.local(made['expires_at'])}" if made["expires_at"] else "until it is revoked"
    terminal.note(f"token {made['name']} holds {until}; this is the only time it is shown")


@app.command("list")
def list_tokens(context: typer.Context, as_json: JsonOption = False) -> None:
    """List tokens: names, scopes, when they were used; never the tokens themselves."""
    session = sessions.of(context)
    found = _ask(session, "GET", "/v1/tokens")
    if as_json:
        session.terminal.json(found)
    elif found:
        rows = [
            [
                *(each["name"], each["state"], _origin(each), " ".join(each["scopes"])),
                *(shown.local(each[moment]) or "never" for moment in ("expires_at", "last_used_at")),
            ]
            for each in found
        ]
        session.terminal.table(["token", "state", "from", "scopes", "expires", "last used"], rows)
    else:
        session.terminal.note("there are no tokens; toft token create NAME --scope read makes one")


@app.command("revoke")
def revoke(
    context: typer.Context,
    name: Annotated[str, argument("NAME", "Its name, or its id.")],
    as_json: JsonOption = False,
) -> None:
    """End a token; whatever is open with it ends within a second."""
    session = sessions.of(context)
    ended = _ask(session, "DELETE", f"/v1/tokens/{quote(name, safe='')}")
    Answer(session.terminal, ended, as_json).note(lambda each: f"token {each['name']} holds no more")


def _origin(token: dict[str, Any]) -> str:
    """Say where a token is from: a document is named by what its bytes hash to."""
    return f"document {token['declared_by'][7:19]}" if token["declared_by"] else "this node"


@app.command("hash")
def hash_token(
    context: typer.Context,
    new: Annotated[bool, option("--new", help="Make up a token, and print it before its hash.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print the hash of a token, for the access section of a document; nothing is kept.

    The token is read from standard input; with --new one is made up.
    """
    session = sessions.of(context)
    text = _made_up() if new else documents.read_bytes("-").decode(errors="replace").strip()
    if not text.startswith("toft_"):
        raise UsageError(
            "a token begins with toft_; nothing else is taken for one",
            code="access.no_token",
            hint="toft token hash --new",
        )
    digest = hashlib.sha256(text.encode()).hexdigest()
    if as_json:
        session.terminal.json({"token": text if new else None, "sha256": digest})
        return
    if new:
        session.terminal.line(text)
    session.terminal.line(digest)


def _made_up() -> str:
    from toft.access import token  # noqa: PLC0415 - only who makes one up needs it

    return token.make_up(os.urandom)


def open_pages(context: typer.Context, as_json: JsonOption = False) -> None:
    """Open the pages of this node, or of the node or central at --url, in a browser.

    Prints a link that works once, within a minute. A daemon that listens nowhere starts to, on this machine
    alone.
    """
    session = sessions.of(context)
    target = session.target()
    if target is None and _socket(session) is None:
        raise UnavailableError(
            "no daemon runs, and pages come from one", code="daemon.not_running", hint="toft up --detach"
        )
    made = _ask(session, "POST", "/v1/links")
    if target is not None:
        # As it is reached from here: through a tunnel or a proxy it has another address than it knows.
        _, _, path = made["url"].partition("://")[2].partition("/")
        made["url"] = f"{target.url}/{path}"
    if as_json:
        session.terminal.json(made)
        return
    session.terminal.line(made["url"])
    if _show(session, made["url"]):
        session.terminal.note("opened in a browser")
    else:
        session.terminal.note(f"works once, within {made['lasts_s']:.0f} s")


def why_denied(
    context: typer.Context,
    action: Annotated[str, argument("ACTION", "read, cancel, write or admin.")],
    kind: Annotated[str, argument("KIND", "Such as job, plugin, instance, result, secret or node.")],
    id: Annotated[str | None, argument("ID", "Which one; the kind as a whole by default.")] = None,
    token: Annotated[
        str | None, option("--token", metavar="NAME", help="Whose; you by default, who may do everything.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether somebody may do something, which rule says so, and what scope would do."""
    session = sessions.of(context)
    given = {"action": action, "kind": kind, "id": id, "token": token}
    query = urlencode({name: value for name, value in given.items() if value is not None})
    found = _ask(session, "GET", f"/v1/access/why?{query}")
    if as_json:
        session.terminal.json(found)
        return
    word = "may" if found["allowed"] else "may not"
    session.terminal.line(f"{found['principal']} {word}: {found['reason']}")
    session.terminal.line(f"  rule     {found['rule']}")
    session.terminal.line(f"  scopes   {' '.join(found['scopes']) or 'none'}")
    if found["needed"]:
        session.terminal.line(f"  needed   {found['needed']}")


def _ask(session: Session, method: str, route: str, body: dict[str, Any] | None = None) -> Any:
    """Ask the node elsewhere, or the daemon; without one, the tokens of the home themselves."""
    target = session.target()
    if target is not None:
        # Not by a session with a node: a central has the same tokens and pages, and no sessions.
        from toft.client import administration  # noqa: PLC0415 - 60 ms that `toft --help` does not pay

        return administration.ask(target, method, route, body)
    socket = _socket(session)
    if socket is not None:
        from toft.client import probe  # noqa: PLC0415 - 10 ms that `toft --help` does not pay

        return probe.ask(socket, method, route, body)
    if route.startswith("/v1/access"):
        raise UnavailableError(
            "no daemon runs, and nobody may ask for anything without one",
            code="daemon.not_running",
            hint="toft up --detach",
        )
    import asyncio  # noqa: PLC0415 - 20 ms that `toft --help` does not pay

    return asyncio.run(_without_daemon(session, method, route, body or {}))


async def _without_daemon(session: Session, method: str, route: str, body: dict[str, Any]) -> Any:
    from toft import wiring  # noqa: PLC0415 - a third of a second that `toft --help` does not pay

    async with wiring.open_tokens(session.settings()) as tokens:
        if method == "GET":
            return [tokens.told(each) for each in await tokens.list()]
        if method == "DELETE":
            return tokens.told(await tokens.revoke(unquote(route.rpartition("/")[2])))
        made, text = await tokens.create(body["name"], body["scopes"], lasts_s=body["lasts_s"])
        return {**tokens.told(made), "token": text}


def _socket(session: Session) -> Any:
    from toft.client import choice  # noqa: PLC0415 - 15 ms that `toft --help` does not pay

    return choice.find(session.settings().home)


def _show(session: Session, url: str) -> bool:
    """Open a browser where a person sits before one; say whether there was one."""
    has_screen = session.environ.get("DISPLAY") or session.environ.get("WAYLAND_DISPLAY")
    if not has_screen or not session.terminal.shows_results:
        return False
    return webbrowser.open(url)
