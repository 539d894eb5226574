"""`toft join` and `toft leave`: make this node belong to a central, and give it back to nobody."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from toft.cli import session as sessions
from toft.cli.session import JsonOption, Session, argument, option
from toft.kernel.errors import UsageError
from toft.kernel.visible import visible

TIMED_OUT = 3
_LONGEST = 4096


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    app.command("join")(join)
    app.command("leave")(leave)


def join(
    context: typer.Context,
    url: Annotated[str, argument("URL", "Of the central, such as https://central.example.")],
    token: Annotated[
        str | None, argument("[TOKEN]", "Left out, or -: read from standard input. Shown in process lists.")
    ] = None,
    token_file: Annotated[Path | None, option("--token-file", metavar="FILE", help="Has the token.")] = None,
    token_env: Annotated[
        str | None, option("--token-env", metavar="NAME", help="The variable that has the token.")
    ] = None,
    ca_file: Annotated[
        Path | None, option("--ca-file", metavar="FILE", help="Who may have signed its certificate, PEM.")
    ] = None,
    pin_sha256: Annotated[
        str, option("--pin-sha256", metavar="HEX", help="The one certificate that counts, by its hash.")
    ] = "",
    server_key: Annotated[
        str,
        option("--server-key", metavar="KEY|FILE", help="Who must sign documents; else the central says."),
    ] = "",
    wait: Annotated[
        float | None,
        option("--wait", metavar="SECONDS", min=0, help="For the first confirmed document; status 3 if not."),
    ] = None,
    no_daemon: Annotated[bool, option("--no-daemon", help="Write it down only; start nothing.")] = False,
    user: Annotated[
        bool, option("--user", help="A service of yours, not of the machine; it lingers.")
    ] = False,
    insecure_http: Annotated[
        bool, option("--insecure-http", help="Speak plain HTTP with another machine.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make this node belong to a central, and start it.

    The token may come as an argument, from --token-file, --token-env or standard input. The same said again
    changes nothing; cut off anywhere, it can be said again. Your own files stay as they are.
    """
    session = sessions.of(context)
    if no_daemon and wait is not None:
        raise UsageError(
            "--wait waits for a daemon, and --no-daemon starts none", code="request.command_line"
        )
    found = _room().join(
        session,
        url,
        _token(session, token, token_file, token_env),
        ca_file=str(ca_file or ""),
        pin_sha256=pin_sha256,
        server_key=server_key,
        insecure_http=insecure_http,
        starts=not no_daemon,
        is_users=user,
        wait_s=wait,
    )
    _tell(session, found, as_json=as_json)
    if wait is not None and found["outcome"] != "confirmed":
        raise typer.Exit(TIMED_OUT)


def leave(context: typer.Context, as_json: JsonOption = False) -> None:
    """Give this node back to nobody: its identity, its token and its documents go.

    The central is told when it can be reached. Plugins, jobs, secrets and your own files stay; said again,
    or after it was cut off, it comes to its end.
    """
    session = sessions.of(context)
    found = _room().leave(session)
    if as_json:
        session.terminal.json(found)
    elif not found["left"]:
        session.terminal.note("this node belongs to nobody")
    else:
        session.terminal.note("left" + ("; the daemon starts again without" if found["daemon"] else ""))
        if not found["central"]:
            session.terminal.note("no central has heard of it: toft central node revoke NODE tells it there")


def _room() -> ModuleType:
    from toft.cli import membership  # noqa: PLC0415 - a tenth of a second that `toft --help` does not pay

    return membership


def _token(session: Session, given: str | None, file: Path | None, variable: str | None) -> str:
    """Return the token from the one place that was named."""
    named = sum((given not in (None, "-"), file is not None, variable is not None))
    if named > 1:
        raise UsageError(
            "the token is given twice; name one place that it comes from",
            code="request.command_line",
        )
    if file is not None:
        with file.open(encoding="utf-8", errors="replace") as opened:
            text = opened.read(_LONGEST)
    elif variable is not None:
        text = session.environ.get(variable, "")
    elif given not in (None, "-"):
        text = given or ""
    elif sys.stdin is None or sys.stdin.isatty():
        raise UsageError(
            "there is no token",
            code="request.command_line",
            hint="pipe it in, or name --token-file FILE; toft central token create makes one",
        )
    else:
        text = sys.stdin.read(_LONGEST)
    if not text.strip():
        where = f" in {file}" if file else f": the variable {variable} has none" if variable else ""
        raise UsageError(
            f"there is no token{where}",
            code="request.command_line",
            hint="toft central token create makes one; it is shown once",
        )
    return text


_SAYS = {
    "joined": "joined {url}",
    "already_joining": "{url} was asked with this token before; nothing was changed",
    "already_joined": "this node belongs to {url} already, as {node_id}; nothing was changed",
}
_DAEMON = {
    None: "the next toft up asks for its first document",
    "told": "the daemon that runs asks for its first document",
    "started": "the daemon is started; nothing starts it again with the machine: toft service install",
    "service": "the service {unit} keeps the daemon",
}


def _tell(session: Session, found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        session.terminal.json(found)
        return
    session.terminal.line(visible(_SAYS[found["action"]].format(**found)))
    session.terminal.note(_DAEMON[found["daemon"]].format(**found))
    if found["outcome"] == "confirmed":
        session.terminal.note(f"confirmed after {found['waited_s']:.1f} s: {found['etag']}")
    elif found["outcome"] is not None:
        session.terminal.warn(
            f"no document has proven itself yet, the node is {found['outcome']}: "
            "toft status and toft logs tell what the central said"
        )
