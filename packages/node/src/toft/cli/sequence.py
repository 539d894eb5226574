"""`toft sequence …`: jobs that belong together: one after another, or a graph that passes results on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from toft.cli import awaiting, documents, shown
from toft.cli import session as sessions
from toft.cli import submit as submitting
from toft.cli.session import JsonOption, Session, argument, option
from toft.kernel.visible import one_line

app = typer.Typer(help="Jobs that belong together, one after another or as a graph.", no_args_is_help=True)

SequenceArgument = Annotated[str, argument("ID", "The sequence, such as seq_01J....")]
_STEPS = 1000


@app.command("submit")
def submit(
    context: typer.Context,
    file: Annotated[
        str, argument("FILE|-", "Its steps as JSON, YAML or TOML: a list, or an object with `steps`.")
    ],
    name: Annotated[str | None, option("--name", metavar="NAME", help="What to call it.")] = None,
    best_effort: Annotated[
        bool, option("--best-effort", help="After a failure go on with every step that still can run.")
    ] = False,
    priority: Annotated[
        int | None, option("--priority", metavar="N", help="Of every step that says none.")
    ] = None,
    wait: Annotated[bool, option("--wait", help="Wait for its end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Store a sequence or a graph of jobs: all of it, or nothing.

    Steps of a list run one after another; those of an object as soon as what they refer to is there.
    """
    session = sessions.of(context)
    document = documents.read(file)
    mode = "best_effort" if best_effort else None
    with session.node(runs_jobs=wait) as node:
        stored = node.jobs.submit_graph(document, name=name, mode=mode, priority=priority)
        if not wait:
            submitting.submitted(session, node, "sequence", stored.id, str(stored.state), as_json=as_json)
            return
        if not as_json:
            session.terminal.note(f"submitted {stored.id}")
        _wait(session, node, stored.id, None, as_json=as_json)


@app.command("list")
def list_sequences(
    context: typer.Context,
    limit: Annotated[int, option("--limit", "-n", metavar="N", min=1, max=1000, help="How many; 100.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """List sequences, the newest first."""
    session = sessions.of(context)
    with session.node(runs_jobs=False) as node:
        told = [each.to_dict() for each in node.jobs.sequences(limit=limit)]
    if as_json:
        session.terminal.json(told)
    elif not told:
        session.terminal.note("no sequences; toft sequence submit FILE makes one")
    else:
        rows = [
            [each["id"], each["state"], shown.local(each["submitted_at"]), one_line(str(each["name"]), 60)]
            for each in told
        ]
        session.terminal.table(["sequence", "state", "submitted", "name"], rows)


@app.command("show")
def show(context: typer.Context, id: SequenceArgument, as_json: JsonOption = False) -> None:
    """Show a sequence and how each of its steps stands."""
    session = sessions.of(context)
    with session.node(runs_jobs=False) as node:
        told = node.jobs.sequence(id).to_dict()
        if as_json:
            session.terminal.json(told)
        else:
            _show(session, node, told)


@app.command("wait")
def wait(
    context: typer.Context,
    id: SequenceArgument,
    timeout: awaiting.TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Wait for the end of a sequence.

    Ends with 0 when it completed, 1 when it failed or was cancelled, 3 when it has not ended.
    Ctrl-C ends the waiting, not the sequence.
    """
    session = sessions.of(context)
    with awaiting.leaving_alone("sequence", id), session.node() as node:
        _wait(session, node, id, timeout, as_json=as_json)


@app.command("cancel")
def cancel(context: typer.Context, id: SequenceArgument, as_json: JsonOption = False) -> None:
    """End a sequence: what waits at once, what runs first kindly and then by force."""
    session = sessions.of(context)
    with session.node(runs_jobs=False) as node:
        told = node.jobs.cancel_sequence(id).to_dict()
    shown.changed(session.terminal, told, as_json=as_json)
    if told["state"] in awaiting.OPEN:
        session.terminal.note(f"what runs was asked to stop: toft sequence wait {id}")
    elif told["state"] != "cancelled":
        session.terminal.note(f"it had ended before; nothing was cancelled: toft why {id}")


@app.command("retry")
def retry(context: typer.Context, id: SequenceArgument, as_json: JsonOption = False) -> None:
    """Run again what failed or was interrupted, and what was skipped because of it."""
    session = sessions.of(context)
    with session.node(runs_jobs=False) as node:
        told = node.jobs.retry_sequence(id).to_dict()
        shown.changed(session.terminal, told, as_json=as_json)
        if told["state"] not in awaiting.OPEN:
            session.terminal.note("nothing of it failed or was interrupted, so nothing runs again")
        elif node.is_embedded:
            session.terminal.note("no node is running: toft up runs it")


def _wait(session: Session, node: Any, id: str, timeout_s: float | None, *, as_json: bool) -> None:
    told = awaiting.until_end(session, node, "sequence", id, lambda: node.jobs.wait_sequence(id, timeout_s))
    if as_json:
        session.terminal.json(told)
    else:
        _show(session, node, told)
        if told["state"] in awaiting.OPEN:
            session.terminal.note(f"next: toft sequence wait {id}")
        elif told["state"] != "completed":
            session.terminal.note(f"next: toft why {id}")
    awaiting.end(told)


def _show(session: Session, node: Any, told: Mapping[str, Any]) -> None:
    terminal = session.terminal
    terminal.line(" ".join(str(part) for part in (told["id"], told["state"], told.get("name")) if part))
    counts = [f"{count} {state}" for state, count in (told.get("counts") or {}).items() if count]
    if counts:
        terminal.line(f"  {', '.join(counts)}")
    if told.get("error"):
        terminal.line(f"  {one_line(str(told['error'].get('message', '')))}")
    steps: dict[str, Mapping[str, Any]] = {}
    for each in node.jobs.list(sequence=told["id"], limit=_STEPS):
        job = each.to_dict()
        # Of a step that ran again the newest job, as it is counted.
        steps.setdefault(str(job.get("step") or ""), job)
    rows = [
        [step, job["state"], shown.called(job), job["id"], shown.note(job)]
        for step, job in reversed(steps.items())
    ]
    if rows:
        terminal.table(["step", "state", "plugin", "job", ""], rows)
