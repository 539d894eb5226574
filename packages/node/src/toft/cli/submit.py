"""`toft job submit`: a job is stored, and its id is printed when it is on disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from toft.cli import awaiting, moments, run, shown, words
from toft.cli import session as sessions
from toft.cli.session import JsonOption, Session, argument, option
from toft.kernel.errors import RefusedError, UsageError

KeyOption = Annotated[
    str | None,
    option("--idempotency-key", metavar="KEY", help="Submitted twice with one key, it is one job."),
]
IdempotentOption = Annotated[
    bool, option("--idempotent", help="Running it twice does no harm: run it again when interrupted.")
]
TimeoutOption = Annotated[
    float | None, option("--timeout", metavar="SECONDS", min=0.001, help="End an attempt after this long.")
]
DeadlineOption = Annotated[
    float | None, option("--deadline", metavar="SECONDS", min=0.001, help="Too late so long from now.")
]
PriorityOption = Annotated[
    int, option("--priority", metavar="N", help="Higher goes first; a minute of waiting is worth 1.")
]
DelayOption = Annotated[
    float | None, option("--delay", metavar="SECONDS", min=0, help="Not before so much later.")
]
AtOption = Annotated[
    str | None, option("--at", metavar="TIME", help="Not before TIME, such as 18:30 or an RFC 3339 time.")
]
AfterOption = Annotated[
    list[str] | None, option("--after", metavar="ID", help="Only when this job completed; repeatable.")
]
RetryOption = Annotated[
    str | None,
    option(
        "--retry",
        metavar="N[,KEY=VALUE...]",
        help="N attempts in all; on=transient+resource, first_s=1, factor=2, most_s=300, jitter=0.2.",
    ),
]
WaitOption = Annotated[bool, option("--wait", help="Wait for its end and print its result.")]


def submit(
    context: typer.Context,
    target: Annotated[str, argument("NAME[.ACTION]", "The plugin, and which of its actions.")],
    arguments: run.ArgumentsArgument = None,
    input_json: run.InputOption = None,
    instance: run.InstanceOption = None,
    idempotency_key: KeyOption = None,
    idempotent: IdempotentOption = False,
    timeout: TimeoutOption = None,
    deadline: DeadlineOption = None,
    priority: PriorityOption = 0,
    delay: DelayOption = None,
    at: AtOption = None,
    after: AfterOption = None,
    retry: RetryOption = None,
    wait: WaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Store a job, to be run as soon as there is room.

    Its id is printed when it is on disk: from then on it is not lost, whatever happens.
    """
    session = sessions.of(context)
    name, action = words.target(target)
    given = list(arguments or ())
    words.check(
        given, f"An action is named like this: toft job submit {name}.ACTION (toft plugin show {name})"
    )
    if delay is not None and at is not None:
        raise UsageError("--delay and --at both say when; give one of them", code="request.command_line")
    options: dict[str, Any] = {
        "action": action,
        "instance": instance,
        "priority": priority,
        "delay_s": delay,
        "start_at": None if at is None else moments.read(at),
        "timeout_s": timeout,
        "deadline_s": deadline,
        "idempotent": idempotent,
        "idempotency_key": idempotency_key,
        "retry": None if retry is None else words.retry(retry),
        "after": tuple(after or ()),
    }
    with session.node(runs_jobs=wait) as node:
        bound = words.arguments(_signature(node, name, action), given, input_json)
        if session.target() is not None:
            bound = words.as_typed(bound, given)
        job = node.jobs.submit(name, bound, **options)
        if not wait:
            submitted(session, node, "job", job.id, str(job.state), as_json=as_json)
            return
        if not as_json:
            session.terminal.note(f"submitted {job.id}")
        told = awaiting.until_end(session, node, "job", job.id, job.wait)
        show_end(session, node, told, as_json=as_json)


def _signature(node: Any, plugin: str, action: str | None) -> Mapping[str, Any] | None:
    """Return what an action takes; None for whoever may submit to a plugin and not look at it."""
    try:
        return run.signature(node.installed.get(plugin), action)
    except RefusedError:
        return None


def submitted(session: Session, node: Any, kind: str, id: str, state: str, *, as_json: bool) -> None:
    """Print what was stored, and who runs it when nobody does."""
    if as_json:
        session.terminal.json({"id": id, "state": state})
    else:
        session.terminal.line(id)
    if node.is_embedded:
        session.terminal.note(f"stored; no node is running: toft up runs it, or toft {kind} wait {id}")


def show_end(session: Session, node: Any, told: Mapping[str, Any], *, as_json: bool) -> None:
    """Print how a job ended, and end the command with the status that says so."""
    if as_json:
        session.terminal.json(told)
    elif told["state"] == "completed":
        run.show(session.terminal, node.jobs.result(told["id"]))
        session.terminal.note(shown.outcome(told))
    else:
        shown.trouble(session, told)
    awaiting.end(told)
