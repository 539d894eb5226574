"""`toft job …`: durable jobs: submit, look, wait, cancel, move, and read what they printed and returned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toft.cli import awaiting, events, moments, rendering, run, shown
from toft.cli import session as sessions
from toft.cli import submit as submitting
from toft.cli.session import JsonOption, argument, option
from toft.kernel.errors import UsageError

app = typer.Typer(help="Work that survives whatever happens to the machine.", no_args_is_help=True)

JobArgument = Annotated[str, argument("ID", "The job, such as job_01J....")]


app.command("submit")(submitting.submit)


@app.command("list")
def list_jobs(
    context: typer.Context,
    state: Annotated[
        list[str] | None,
        option("--state", metavar="STATE", help=f"Only these, repeatable: {', '.join(shown.STATES)}."),
    ] = None,
    plugin: Annotated[str | None, option("--plugin", metavar="NAME", help="Only of this plugin.")] = None,
    instance: Annotated[str | None, option("--instance", metavar="NAME", help="Only of this one.")] = None,
    since: Annotated[
        str | None, option("--since", metavar="WHEN", help="Only submitted from then on.")
    ] = None,
    until: Annotated[str | None, option("--until", metavar="WHEN", help="Only submitted before.")] = None,
    error: Annotated[str | None, option("--error", metavar="TEXT", help="Only with it in the code.")] = None,
    sequence: Annotated[str | None, option("--sequence", metavar="ID", help="Only of this sequence.")] = None,
    limit: Annotated[int, option("--limit", "-n", metavar="N", min=1, max=1000, help="How many; 100.")] = 100,
    before: Annotated[str | None, option("--before", metavar="ID", help="Only older than this job.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs, the newest first."""
    session = sessions.of(context)
    for each in state or ():
        if each not in shown.STATES:
            raise UsageError(
                f"{each!r} is no state of a job", code="request.command_line", hint=", ".join(shown.STATES)
            )
    with session.node(runs_jobs=False) as node:
        found = node.jobs.list(
            state=state or None,
            plugin=plugin,
            instance=instance,
            sequence=sequence,
            since=None if since is None else moments.read(since, is_past=True),
            until=None if until is None else moments.read(until, is_past=True),
            error=error,
            limit=limit,
            before=before,
        )
        told = [each.to_dict() for each in found]
    if as_json:
        session.terminal.json(told)
        return
    if not told:
        session.terminal.note("no such jobs; toft job submit NAME makes one")
        return
    shown.table(session.terminal, told)
    if len(told) == limit:
        session.terminal.note(f"older ones: toft job list --before {told[-1]['id']}")


@app.command("show")
def show(context: typer.Context, id: JobArgument, as_json: JsonOption = False) -> None:
    """Show everything that is known of a job."""
    session = sessions.of(context)
    with session.node(runs_jobs=False) as node:
        told = node.jobs.get(id).to_dict()
    if as_json:
        session.terminal.json(told)
    else:
        shown.job(session, told)


@app.command("wait")
def wait(
    context: typer.Context,
    id: JobArgument,
    timeout: awaiting.TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Wait for a job's end and print its result.

    Ends with 0 when it completed, 1 when it failed or was cancelled or interrupted, 3 when it has not ended.
    Ctrl-C ends the waiting, not the job.
    """
    session = sessions.of(context)
    with awaiting.leaving_alone("job", id), session.node() as node:
        told = awaiting.until_end(session, node, "job", id, lambda: node.jobs.wait(id, timeout))
        submitting.show_end(session, node, told, as_json=as_json)


@app.command("result")
def result(
    context: typer.Context,
    id: JobArgument,
    output: Annotated[
        Path | None, option("--output", "-o", metavar="FILE", help="Write the result to a file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print what a job returned, or what it failed with."""
    session = sessions.of(context)
    run.check_output(output)
    with session.node(runs_jobs=False) as node:
        value = node.jobs.result(id)
    if output is not None:
        written = run.write(session.terminal, output, value)
        if as_json:
            session.terminal.json({"id": id, "result": written})
    elif as_json:
        session.terminal.json({"id": id, "result": rendering.to_json(value)})
    else:
        run.show(session.terminal, value)


@app.command("cancel")
def cancel(
    context: typer.Context,
    id: JobArgument,
    grace: Annotated[
        float | None,
        option("--grace", metavar="SECONDS", min=0, help="How long the plugin has to stop by itself."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """End a job: one that waits at once, one that runs first kindly and then by force."""
    session = sessions.of(context)
    with session.node(runs_jobs=False) as node:
        told = node.jobs.cancel(id, grace_s=grace).to_dict()
    shown.changed(session.terminal, told, as_json=as_json)
    if told["state"] == "running":
        session.terminal.note(f"it was asked to stop: toft job wait {id}")
    elif told["state"] != "cancelled":
        session.terminal.note(f"it had ended before; nothing was cancelled: toft why {id}")


@app.command("retry")
def retry(context: typer.Context, id: JobArgument, as_json: JsonOption = False) -> None:
    """Queue a failed or interrupted job again."""
    session = sessions.of(context)
    with session.node(runs_jobs=False) as node:
        shown.changed(session.terminal, node.jobs.retry(id).to_dict(), as_json=as_json)
        if node.is_embedded:
            session.terminal.note("no node is running: toft up runs it")


@app.command("reorder")
def reorder(
    context: typer.Context,
    id: JobArgument,
    priority: Annotated[int | None, option("--priority", metavar="N", help="Give it this priority.")] = None,
    before: Annotated[
        str | None, option("--before", metavar="ID", help="Put it just before this job.")
    ] = None,
    first: Annotated[bool, option("--first", help="Put it before all that wait for its instance.")] = False,
    last: Annotated[bool, option("--last", help="Put it behind all that wait for its instance.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Move a job that waits."""
    session = sessions.of(context)
    if sum((priority is not None, before is not None, first, last)) != 1:
        raise UsageError(
            "Say where to: one of --priority, --before, --first, --last", code="request.command_line"
        )
    with session.node(runs_jobs=False) as node:
        told = node.jobs.reorder(id, priority=priority, before=before, first=first, last=last).to_dict()
    shown.changed(session.terminal, told, as_json=as_json)


@app.command("logs")
def logs(
    context: typer.Context,
    id: JobArgument,
    count: Annotated[int, option("--lines", "-n", metavar="COUNT", min=1, help="How many lines; 200.")] = 200,
    as_json: JsonOption = False,
) -> None:
    """Show what a job printed, and nothing that another one did."""
    session = sessions.of(context)
    with session.node(runs_jobs=False) as node:
        lines = node.jobs.logs(id, count)
    if as_json:
        session.terminal.json([shown.log_line(each) for each in lines])
        return
    for each in lines:
        session.terminal.line(each)
    if not lines:
        session.terminal.note(f"{id} has printed nothing")


@app.command("events")
def list_events(
    context: typer.Context,
    id: JobArgument,
    follow: events.FollowOption = False,
    after: events.AfterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what happened to a job, one event a line."""
    session = sessions.of(context)
    with session.node(runs_jobs=False) as node:
        node.jobs.get(id)
        events.show(session, node, {"job": id}, after=after, follow=follow, as_json=as_json)
