"""`toft config …`: the document of this node: check one, apply it, see what runs, go back."""

from __future__ import annotations

import asyncio
import dataclasses
import difflib
import json
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toft.cli import documents, failures
from toft.cli import session as sessions
from toft.cli.session import JsonOption, Session, argument, option
from toft.kernel.clock import rfc3339
from toft.kernel.errors import ConflictError, NotFoundError
from toft.kernel.visible import visible

if TYPE_CHECKING:
    from toft.managed.generations import Generations, Standing

app = typer.Typer(no_args_is_help=True, help="The document of this node: check, apply, look, go back.")

FileArgument = Annotated[str, argument("FILE", "TOML, YAML or JSON; - is standard input.")]
_LOOK_S = 0.1


@app.command("validate")
def validate(context: typer.Context, file: FileArgument, as_json: JsonOption = False) -> None:
    """Say everything that is wrong with a document; changes nothing.

    What is right and not served by this node is told too.
    """
    from toft.kernel import schemas  # noqa: PLC0415 - `toft --help` does not pay for it
    from toft.managed import document  # noqa: PLC0415 - as above

    session = sessions.of(context)
    problems: list[dict[str, str]] = []
    made, missing = None, []
    try:
        made = document.author(documents.read_bytes(file), file)
        missing = [f"{schemas.path_text(each.path)} {each.message}" for each in made.not_served()]
    except document.DocumentError as error:
        if "problems" not in error.details:
            raise
        problems = error.details["problems"]
    if as_json:
        etag = None if made is None else made.etag
        found = {"path": file, "ok": not problems, "etag": etag, "problems": problems, "not_served": missing}
        session.terminal.json(found)
    else:
        for each in problems:
            session.terminal.line(f"{each['path'] or 'the document'}: {each['message']}")
        for text in missing:
            session.terminal.note(text)
        count = len(problems)
        session.terminal.note(f"{file}: {count or 'no'} problem{'' if count == 1 else 's'}")
    if problems:
        raise typer.Exit(failures.FAILED)


@app.command("apply")
def apply(
    context: typer.Context,
    file: FileArgument,
    wait: Annotated[
        float | None,
        option("--wait", metavar="SECONDS", min=0, help="Until it is confirmed; status 1 if not."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Put a document in the place of the one that runs, on trial.

    The daemon starts again with it and confirms it after the health section's settle_s; a daemon that keeps
    dying before, or is not there for too long, goes back. Without a daemon the next toft up tries it.
    """
    from toft import wiring  # noqa: PLC0415 - as above
    from toft.managed import document, gates, staging  # noqa: PLC0415 - as above

    session = sessions.of(context)
    offered = document.author(documents.read_bytes(file), file)
    engine = _engine(session)
    chosen = session.settings()
    staged = staging.stage(
        engine,
        offered,
        nonce=f"cli-{secrets.token_hex(8)}",
        source="standard input" if file == "-" else str(Path(file).absolute()),
        is_asked=True,
        installer=wiring.open_installer(chosen, session.environ),
        gated=gates.Bystander(gates.Allowed.of(chosen.gate_hosts, chosen.gate_commands, chosen.home)),
    )
    done = asyncio.run(staged)
    is_told = done.action == "applied" and _tell(session)
    found: dict[str, Any] = {"action": done.action, "etag": done.etag, "slot": done.slot or None}
    found |= {"daemon": "restarts" if is_told else None, "outcome": None}
    if wait is not None and done.action == "applied":
        found["outcome"] = _outcome(engine, done.etag, wait)
    if as_json:
        session.terminal.json(found)
    elif done.action == "noop_same_etag":
        session.terminal.note("that is the document which runs already; nothing was written")
    else:
        session.terminal.line(done.etag)
        tries = "the daemon starts again with it" if is_told else "the next toft up tries it"
        session.terminal.note(f"in slot {done.slot}, on trial: {tries}; toft config show tells how it stands")
        if wait is not None:
            session.terminal.note(f"{found['outcome']}")
    if found["outcome"] not in (None, "confirmed"):
        raise typer.Exit(failures.FAILED)


@app.command("show")
def show(
    context: typer.Context,
    document: Annotated[bool, option("--document", help="Print the document itself, as JSON.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show which document runs, whether it has proven itself, and what was refused.

    Reads the files alone, so that it works without a daemon.
    """
    session = sessions.of(context)
    standing = _read(session)
    if document:
        active = standing.slots.get(standing.active or "")
        session.terminal.write(_pretty(active.document if active else b"") + "\n")
        return
    found = _describe(standing)
    if as_json:
        session.terminal.json(found)
        return
    for name in ("active", "phase", "source", "revision", "pinned"):
        if found[name]:
            session.terminal.line(f"{name:<12}{visible(str(found[name]))}")
    if not found["active"]:
        session.terminal.note("there is no document; toft config apply FILE gives this node one")
    trial = found["trial"]
    if trial:
        session.terminal.line(f"{'on trial':<12}{trial['remaining_s']:.0f} s left, {trial['boots']} starts")
    if found["rolled_back"]:
        session.terminal.line(f"{'went back':<12}{_event(found['rolled_back'])}")
    for each in found["bad"]:
        why = visible(f"{each['etag']} ({each['reason']}, {each['severity']})")
        session.terminal.line(f"{'held back':<12}{why}")
    for text in found["problems"]:
        session.terminal.warn(visible(text))


@app.command("history")
def history(context: typer.Context, as_json: JsonOption = False) -> None:
    """List what happened to the documents of this node, the latest last."""
    session = sessions.of(context)
    found = _describe(_read(session))["history"]
    if as_json:
        session.terminal.json(found)
    elif not found:
        session.terminal.note("nothing has happened yet")
    else:
        rows = [[each["at"], each["event"], each["etag"][:19], each["reason"] or "-"] for each in found]
        session.terminal.table(["at", "event", "document", "reason"], rows)


@app.command("diff")
def diff(
    context: typer.Context,
    file: Annotated[
        str | None, argument("[FILE]", "Compare with this one; with the one before, when left out.")
    ] = None,
) -> None:
    """Show how the document that runs differs from another one."""
    session = sessions.of(context)
    standing = _read(session)
    active = standing.slots.get(standing.active or "")
    running = active.document if active else b""
    if file is not None:
        from toft.managed import document as documents_of  # noqa: PLC0415 - as above

        older, newer = running, documents_of.author(documents.read_bytes(file), file).data
        names = ("running", file)
    else:
        spare = next((each for name, each in standing.slots.items() if name != standing.active), None)
        older, newer = (spare.document if spare else b""), running
        names = ("before", "running")
    lines = difflib.unified_diff(
        _pretty(older or b"{}").splitlines(), _pretty(newer).splitlines(), *names, lineterm=""
    )
    for line in lines:
        session.terminal.line(visible(line))


@app.command("rollback")
def rollback(
    context: typer.Context,
    reason: Annotated[str, option("--reason", metavar="TEXT", help="Why; it is kept.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Go back to the document before, and take nothing new until toft config unpin."""
    from toft.managed import phases  # noqa: PLC0415 - as above

    session = sessions.of(context)
    engine = _engine(session)
    if not engine.revert(phases.OPERATOR, phases.Severity.PERMANENT, reason):
        raise ConflictError(
            "there is no other whole document to go back to",
            code="generation.nowhere_to_go",
            hint="toft config show tells what there is; toft config apply FILE gives another one",
        )
    is_told = _tell(session)
    found = _describe(engine.read())
    if as_json:
        session.terminal.json(found)
    else:
        session.terminal.line(found["active"] or "no document")
        session.terminal.note("the daemon starts again with it" if is_told else "the next toft up loads it")


@app.command("pin")
def pin(
    context: typer.Context,
    reason: Annotated[str, option("--reason", metavar="TEXT", help="Why; it is kept.")] = "pinned",
) -> None:
    """Take nothing new from anybody but the person at this machine."""
    _pin(sessions.of(context), reason or "pinned")


@app.command("unpin")
def unpin(context: typer.Context) -> None:
    """Take new documents again."""
    _pin(sessions.of(context), "")


def _pin(session: Session, reason: str) -> None:
    from toft.managed import phases  # noqa: PLC0415 - as above

    _engine(session).record(lambda state: phases.pinned(state, reason))
    session.terminal.note(f"pinned: {reason}" if reason else "new documents are taken")


def _engine(session: Session) -> Generations:
    from toft.managed.generations import Generations  # noqa: PLC0415 - as above

    return Generations.at(session.settings().home)


def _read(session: Session) -> Standing:
    from toft.managed import moments  # noqa: PLC0415 - as above
    from toft.managed.generations import Generations  # noqa: PLC0415 - as above

    return Generations(session.settings().home / "managed", moments.read).read()


def _tell(session: Session) -> bool:
    from toft.client.place import Place  # noqa: PLC0415 - as above
    from toft.daemon import control  # noqa: PLC0415 - as above

    return control.tell_generation(Place(session.settings().home))


def _outcome(engine: Generations, etag: str, wait_s: float) -> str:
    """Wait until a trial is over, and say how it ended."""
    until = time.monotonic() + wait_s
    while True:
        state = engine.read().state
        if state.trial is None or state.trial.etag != etag:
            last = next((each for each in reversed(state.history) if each.etag == etag), None)
            if state.ok == etag:
                return "confirmed"
            return f"{last.event}: {last.reason}" if last else "gone"
        if time.monotonic() >= until:
            return "still on trial"
        time.sleep(_LOOK_S)


def _describe(standing: Standing) -> dict[str, Any]:
    from toft.managed import moments  # noqa: PLC0415 - as above

    state = standing.state
    active = standing.slots.get(standing.active or "")
    found: dict[str, Any] = {
        "active": active.meta.etag or None if active else None,
        "slot": standing.active,
        "source": active.meta.source or None if active else None,
        "revision": active.meta.revision if active else None,
        "phase": str(state.phase),
        "confirmed": state.ok or None,
        "pinned": state.pinned or None,
        "trial": None,
        "rolled_back": None,
        "bad": [_plain(each, "since") for each in state.bad],
        "history": [{**_plain(each), "at": rfc3339(each.at)} for each in state.history],
        "problems": [*standing.problems, *([active.problem] if active and active.problem else ())],
    }
    if state.trial is not None:
        found["trial"] = _plain(state.trial, "since", "earlier", "left_s")
        found["trial"]["remaining_s"] = state.trial.remaining_s(moments.read())
    if state.rolled_back is not None:
        found["rolled_back"] = {**_plain(state.rolled_back), "at": rfc3339(state.rolled_back.at)}
    return found


def _plain(value: Any, *without: str) -> dict[str, Any]:
    return {name: each for name, each in dataclasses.asdict(value).items() if name not in without}


def _event(event: dict[str, Any]) -> str:
    detail = f": {visible(event['detail'])}" if event["detail"] else ""
    return f"from {event['etag'][:19]} at {event['at']} ({event['reason']}{detail})"


def _pretty(document: bytes) -> str:
    if not document:
        raise NotFoundError(
            "there is no document", code="generation.no_document", hint="toft config apply FILE gives one"
        )
    return json.dumps(json.loads(document), indent=2, sort_keys=True, ensure_ascii=False)
