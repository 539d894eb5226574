"""`toft up`, `down`, `status`, `logs` and `service`: the node as a process that stays."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toft.cli import config_lines, shown
from toft.cli import follow as following
from toft.cli import session as sessions
from toft.cli.session import JsonOption, Session, option
from toft.kernel.errors import UsageError
from toft.kernel.quantities import duration, size
from toft.kernel.visible import visible

if TYPE_CHECKING:
    from toft.client.place import Record

service = typer.Typer(no_args_is_help=True, help="Let systemd keep the daemon: install, remove.")

_AS_DECLARED = ("ready", "disabled")
SystemOption = Annotated[bool, option("--system", help="For the machine, as root; for you by default.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    app.command("up")(up)
    app.command("down")(down)
    app.command("status")(status)
    app.command("logs")(logs)
    app.add_typer(service, name="service")


def up(
    context: typer.Context,
    detach: Annotated[bool, option("--detach", "-d", help="Return when it is ready; it goes on.")] = False,
    listen: Annotated[
        str | None, option("--listen", metavar="HOST:PORT", help="Let in whoever has a token there too.")
    ] = None,
    tls_cert: Annotated[
        Path | None, option("--tls-cert", metavar="FILE", help="The certificate to show there, PEM.")
    ] = None,
    tls_key: Annotated[Path | None, option("--tls-key", metavar="FILE", help="The key of that.")] = None,
    insecure_public: Annotated[
        bool,
        option("--insecure-public", help="Listen without TLS where others can read tokens on the way."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Start the daemon of this home.

    Jobs run while it does; commands and programs use it by themselves. Ctrl-C or toft down ends it.
    """
    session = sessions.of(context)
    chosen = session.settings(
        listen=listen,
        tls_cert=tls_cert.absolute() if tls_cert else None,
        tls_key=tls_key.absolute() if tls_key else None,
        insecure_public=insecure_public or None,
    )
    if (tls_cert or tls_key or insecure_public) and not chosen.listen:
        raise UsageError(
            "--tls-cert, --tls-key and --insecure-public are about a port, and none is named",
            code="request.command_line",
            hint="toft up --listen HOST:PORT ...",
        )
    room = _room()
    if not detach:
        # A process with nothing of the command line in it: what stays should be small.
        command = room.command(session, chosen)
        os.execve(command[0], command, dict(session.environ))
    found = room.control.start(chosen, session.environ, is_verbose=session.is_verbose)
    _ready(session, found, as_json=as_json)


def _ready(session: Session, found: Record, *, as_json: bool) -> None:
    if as_json:
        session.terminal.json(
            {
                "state": "ready",
                "pid": found.pid,
                "version": found.version,
                "socket": found.socket,
                "listen": found.listen or None,
            }
        )
    else:
        session.terminal.note(f"the daemon is ready: process {found.pid}, socket {found.socket}")
        if found.listen:
            session.terminal.note(f"listening on {found.listen}")


def down(
    context: typer.Context,
    now: Annotated[bool, option("--now", help="Interrupt what runs, without waiting for it.")] = False,
    timeout: Annotated[
        float | None, option("--timeout", metavar="SECONDS", min=0, help="Wait no longer than this.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """End the daemon of this home, and return when none of its processes is left.

    What runs gets the time that the setting drain_s allows, or the document of the node; then it is
    interrupted.
    """
    session, room = sessions.of(context), _room()
    chosen = session.settings()
    if not now and room.keeping.let_go(chosen, session.environ):
        session.terminal.note("its service is stopped until the machine starts, or toft service install")
    pid = room.end(chosen, timeout_s=timeout, is_urgent=now)
    if as_json:
        session.terminal.json({"state": "stopped", "pid": pid})
    else:
        session.terminal.note(f"ended process {pid}" if pid else f"no daemon runs for {chosen.home}")


def status(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show what the daemon of this home, or the node at a URL, is doing.

    The status of the command is 0 when all is well. Of a node with a document or a central it is 1 when
    something is amiss, 3 while it has not joined yet, 4 when a document went back and nobody has taken note.
    """
    session = sessions.of(context)
    if session.target() is not None:
        with session.node() as node:
            found = node.status()
    else:
        found = _room().look(session.settings().home)
    if as_json:
        session.terminal.json(found)
    else:
        _show(session, found)
    if found["config"] is not None and (code := found["config"]["exit_code"]):
        raise typer.Exit(code)


def _show(session: Session, found: dict[str, Any]) -> None:
    terminal = session.terminal
    _show_daemon(session, found)
    if found["config"] is not None:
        terminal.line("configuration")
        for line in config_lines.of(found["config"]):
            terminal.line(f"  {line}")
        for each in found["config"]["diagnostics"]:
            terminal.warn(visible(f"{each['message']}; {each['hint']}"))


def _show_daemon(session: Session, found: dict[str, Any]) -> None:
    terminal = session.terminal
    if found["state"] == "stopped":
        terminal.line("stopped; toft up --detach starts it")
        return
    terminal.line(f"{found['state']}: process {found['pid']}, version {found['version']}")
    if found["uptime_s"] is not None:
        terminal.line(f"  up       {duration(found['uptime_s'])}")
        terminal.line(f"  socket   {found['socket']}")
        if found.get("listen"):
            terminal.line(f"  listens  {found['listen']}")
    if found["queue"]:
        counts = (
            f"{count} {state}" for state, count in found["queue"].items() if isinstance(count, int) and count
        )
        terminal.line(f"  jobs     {', '.join(counts) or 'none'}; {found['lanes']} lanes")
    memory = found["memory"]
    if memory.get("daemon_bytes"):
        terminal.line(
            f"  memory   the daemon {size(memory['daemon_bytes'])}; "
            f"free {size(memory.get('available_bytes', 0))} of {size(memory.get('total_bytes', 0))}"
        )
    for each in found["gpu"]:
        terminal.line(f"  gpu {each['index']}    {each['name']}: free {size(each.get('free_bytes', 0))}")
    for each in found.get("instances", ()):
        terminal.line(f"  loaded   {each['instance']} ({each['plugin']}): {each['state']}")
    _show_document(session, found.get("document"))


def _show_document(session: Session, found: dict[str, Any] | None) -> None:
    """Say what the document declares that is not so, and what of this node it keeps from counting."""
    if not found:
        return
    terminal = session.terminal
    declared = found["instances"]
    ready = sum(each["state"] in _AS_DECLARED for each in declared)
    counted = f", {ready} of {len(declared)} instances as declared" if declared else ""
    terminal.line(f"  document {visible(found['etag'][:19])}{counted}")
    for each in declared:
        error = each["error"]
        if error:
            terminal.warn(visible(f"{each['instance']} is not loaded: {error['message']}"))
            if error.get("hint"):
                terminal.note(visible(f"next: {error['hint']}"))
    for each in found["schedules"]:
        began = f", last {shown.local(each['last_at'])}" if each["last_at"] else ""
        terminal.line(visible(f"  schedule {each['schedule']}: next {shown.local(each['next_at'])}{began}"))
        if each["error"]:
            terminal.warn(visible(f"{each['schedule']} submits no jobs: {each['error']['message']}"))
    for each in found["local_not_applied"]:
        terminal.note(visible(f"not applied: {each['section']}.{each['key']}: {each['reason']}"))


def logs(
    context: typer.Context,
    count: Annotated[int, option("--lines", "-n", metavar="COUNT", min=1, help="How many lines; 50.")] = 50,
    follow: Annotated[bool, option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the last lines of the daemon's own log, whether it runs or not."""
    session, room = sessions.of(context), _room()
    chosen = session.settings()
    path = room.Place(chosen.home).log
    lines = room.logs.read_tail(path, count, chosen.log_files)
    if as_json and not follow:
        session.terminal.json([{"text": line} for line in lines])
        return
    if not lines and not follow:
        session.terminal.note(f"no daemon has logged anything in {chosen.home}")
    for line in lines:
        _line(session, line, as_json=as_json)
    for line in following.lines(path) if follow else ():
        _line(session, line, as_json=as_json)


def _line(session: Session, text: str, *, as_json: bool) -> None:
    if as_json:
        session.terminal.json_line({"text": text})
    else:
        session.terminal.line(text)
        session.terminal.out.flush()


@service.command("install")
def install(
    context: typer.Context,
    system: SystemOption = False,
    show: Annotated[bool, option("--print", help="Print the unit file and change nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Let systemd start the daemon, now and at each start of the machine or session."""
    session, units = sessions.of(context), _room().units
    unit = units.Unit.of(session.settings(), is_system=system)
    if show:
        if as_json:
            session.terminal.json({"unit": unit.name, "file": str(unit.path), "text": unit.text()})
        else:
            session.terminal.write(unit.text())
        return
    _done(session, units.install(unit), as_json=as_json)


@service.command("remove")
def remove(context: typer.Context, system: SystemOption = False, as_json: JsonOption = False) -> None:
    """Let systemd forget the daemon, and end it."""
    session, units = sessions.of(context), _room().units
    _done(session, units.remove(units.Unit.of(session.settings(), is_system=system)), as_json=as_json)


def _done(session: Session, done: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        session.terminal.json(done)
    else:
        session.terminal.note(f"{done['unit']}: {done['did']} ({done['file']})")


def _room() -> ModuleType:
    from toft.cli import tending  # noqa: PLC0415 - 20 ms, and asyncio, that `toft --help` does not pay

    return tending
