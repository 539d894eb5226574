"""`toft config …`: the document of a node: check one, apply it, see what runs and why, go back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from toft.cli import config_lines, documents, failures
from toft.cli import session as sessions
from toft.cli.session import JsonOption, Session, argument, option
from toft.kernel.errors import UsageError
from toft.kernel.quantities import counted
from toft.kernel.visible import visible

app = typer.Typer(no_args_is_help=True, help="The document of this node: check, apply, look, go back.")

FileArgument = Annotated[str, argument("FILE", "TOML, YAML or JSON; - is standard input.")]
_AGAINST = ("lkg", "served")


@app.command("validate")
def validate(context: typer.Context, file: FileArgument, as_json: JsonOption = False) -> None:
    """Say everything that is wrong with a document; changes nothing.

    What is right and not served by this node is told too.
    """
    session = sessions.of(context)
    found = _room().check(documents.read_bytes(file), file)
    if as_json:
        session.terminal.json({"path": file, **found})
    else:
        for each in found["problems"]:
            session.terminal.line(f"{each['path'] or 'the document'}: {each['message']}")
        for text in found["not_served"]:
            session.terminal.note(text)
        session.terminal.note(f"{file}: {counted(len(found['problems']), 'problem')}")
    if found["problems"]:
        raise typer.Exit(failures.FAILED)


@app.command("apply")
def apply(
    context: typer.Context,
    file: FileArgument,
    signatures: Annotated[
        Path | None,
        option(
            "--signatures", metavar="FILE", help="Of exactly the bytes of the document, which is JSON then."
        ),
    ] = None,
    wait: Annotated[
        float | None,
        option("--wait", metavar="SECONDS", min=0, help="Until it is confirmed; status 1 if not."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Put a document in the place of the one that runs, on trial.

    The daemon starts again with it and confirms it once its gates were green for settle_s; a gate that turns
    red, a daemon that keeps dying, and the end of its time lead back. Without a daemon the next toft up tries
    it.
    """
    session, room = sessions.of(context), _room()
    given = documents.read_bytes(file)
    data = room.author(given, file) if signatures is None else room.exact(given, file)
    signed = "" if signatures is None else documents.read_bytes(str(signatures)).decode("utf-8", "replace")
    source = "standard input" if file == "-" else str(Path(file).absolute())
    managed = room.of(session)
    found: dict[str, Any] = {**managed.apply(data, signatures=signed, source=source), "outcome": None}
    is_waited_for = wait is not None and found["action"] == "applied"
    if wait is not None and is_waited_for and found["daemon"]:
        found["outcome"] = room.outcome(managed, found["etag"], wait)
    if as_json:
        session.terminal.json(found)
    elif found["action"] == "noop_same_etag":
        session.terminal.note("that is the document which runs already; nothing was written")
    else:
        session.terminal.line(found["etag"])
        tries = "the daemon starts again with it" if found["daemon"] else "the next toft up tries it"
        where = f"in slot {found['slot']}, on trial"
        session.terminal.note(f"{where}: {tries}; toft config show tells how it stands")
        if found["outcome"] is not None:
            session.terminal.note(found["outcome"])
        elif is_waited_for:
            session.terminal.note("no daemon runs that could try it: toft up --detach starts one")
    if is_waited_for and found["outcome"] != "confirmed":
        raise typer.Exit(failures.FAILED)


@app.command("show")
def show(
    context: typer.Context,
    document: Annotated[bool, option("--document", help="Print the document itself, as JSON.")] = False,
    effective: Annotated[
        bool, option("--effective", help="Print what the node is, all layers together; no secrets.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show which document runs, its trial and gates, who is asked for the next one, and what was refused.

    Works without a daemon, from the files alone.
    """
    session = sessions.of(context)
    managed = _room().of(session)
    if document:
        session.terminal.write(_pretty(managed.text("running")))
        return
    if effective:
        found = managed.effective()
        session.terminal.json(found) if as_json else session.terminal.write(_pretty(found["body"]))
        return
    found = managed.describe()
    if as_json:
        session.terminal.json(found)
        return
    for line in config_lines.of(found):
        session.terminal.line(line)
    if not found["active"]:
        session.terminal.note("there is no document; toft config apply FILE gives this node one")
    for each in found["diagnostics"]:
        session.terminal.warn(visible(f"{each['message']}; {each['hint']}"))


@app.command("history")
def history(context: typer.Context, as_json: JsonOption = False) -> None:
    """List what happened to the documents of this node, the latest last."""
    session = sessions.of(context)
    found = _room().of(session).describe()["history"]
    if as_json:
        session.terminal.json(found)
    elif not found:
        session.terminal.note("nothing has happened yet")
    else:
        rows = [
            [
                each["at"],
                each["event"],
                each["etag"][:19],
                each["reason"] or "-",
                visible(each["detail"]) or "-",
            ]
            for each in found
        ]
        session.terminal.table(["at", "event", "document", "reason", "detail"], rows)


@app.command("diff")
def diff(
    context: typer.Context,
    file: Annotated[str | None, argument("[FILE]", "Compare with this one.")] = None,
    against: Annotated[
        str,
        option("--against", metavar="WHAT", help="lkg, the one before (default), or served by the central."),
    ] = "lkg",
) -> None:
    """Show how the document that runs differs from another one."""
    session, room = sessions.of(context), _room()
    if against not in _AGAINST and file is None:
        if not os.path.exists(against):
            raise UsageError(
                f"--against is lkg, served or a file, not {against!r:.100}", code="request.command_line"
            )
        file = against
    managed = room.of(session)
    # A file may be the first document that this node gets.
    running = managed.text("running") if file is None else room.other(managed, "running")
    if file is not None:
        written = json.loads(room.author(documents.read_bytes(file), file))
        lines = room.difference(running, written, ("running", file))
    elif against == "served":
        lines = room.difference(running, managed.text("served"), ("running", "served"))
    else:
        older = room.other(managed, "lkg")
        name = "held back" if room.is_held_back(managed, older) else "before"
        lines = room.difference(older, running, (name, "running"))
    for line in lines:
        session.terminal.line(visible(line))


@app.command("explain")
def explain(
    context: typer.Context,
    key: Annotated[str, argument("KEY", "A setting, such as lanes, or a place, such as health.settle_s.")],
    as_json: JsonOption = False,
) -> None:
    """Tell where a value is from: the document, the command line, a variable, a file, or nobody."""
    session = sessions.of(context)
    found = _room().of(session).explain(key)
    if as_json:
        session.terminal.json(found)
        return
    session.terminal.line(visible(f"{found['key']} = {_value(found['value'])}"))
    for index, each in enumerate(found["layers"]):
        where = f" ({each['where']})" if each["where"] else ""
        mark = "wins" if index == 0 else "dropped" if each["layer"] != "default" else "otherwise"
        session.terminal.line(visible(f"  {each['layer']:<12}{mark:<10}{_value(each['value'])}{where}"))


@app.command("drift")
def drift(context: typer.Context, as_json: JsonOption = False) -> None:
    """List how this machine differs from what its document says; status 1 if it does.

    Files that somebody has edited, local values that the document has dropped, code that was changed after it
    was installed.
    """
    session = sessions.of(context)
    found = _room().of(session).drift()
    if as_json:
        session.terminal.json(found)
    elif not found:
        session.terminal.note("this machine is what its document says")
    else:
        session.terminal.table(
            ["kind", "what", "how"],
            [[each["kind"], visible(each["key"]), visible(each["detail"])] for each in found],
        )
    if any(each["kind"] != "override" for each in found):
        raise typer.Exit(failures.FAILED)


@app.command("rollback")
def rollback(
    context: typer.Context,
    reason: Annotated[str, option("--reason", metavar="TEXT", help="Why; it is kept.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Go back to the document before, and take nothing new until toft config unpin."""
    session = sessions.of(context)
    found = _room().of(session).roll_back(reason)
    if as_json:
        session.terminal.json(found)
    else:
        session.terminal.line(found["active"] or "no document")
        loads = "the daemon starts again with it" if found["daemon"] else "the next toft up loads it"
        session.terminal.note(loads)


@app.command("pin")
def pin(
    context: typer.Context,
    reason: Annotated[str, option("--reason", metavar="TEXT", help="Why; it is kept.")] = "pinned",
) -> None:
    """Take nothing new from anybody but the person at this machine."""
    _pin(sessions.of(context), reason or "pinned")


@app.command("unpin")
def unpin(context: typer.Context) -> None:
    """Take new documents again; the last way back counts as seen."""
    _pin(sessions.of(context), "")


@app.command("ack")
def ack(context: typer.Context) -> None:
    """Take note of the last way back: toft status no longer answers with 4 for it."""
    session = sessions.of(context)
    _room().of(session).acknowledge()
    session.terminal.note("noted; toft config history keeps it")


def _pin(session: Session, reason: str) -> None:
    _room().of(session).pin(reason)
    session.terminal.note(f"pinned: {visible(reason)}" if reason else "new documents are taken")


def _room() -> ModuleType:
    from toft.cli import configuring  # noqa: PLC0415 - a tenth of a second that `toft --help` does not pay

    return configuring


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
