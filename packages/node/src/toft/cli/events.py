"""`toft events`: everything that happens to jobs, as it happens, one JSON object a line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

import typer

from toft.cli import session as sessions
from toft.cli.session import JsonOption, Session, option
from toft.kernel.visible import one_line

FollowOption = Annotated[bool, option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")]
AfterOption = Annotated[
    int | None,
    option("--after", metavar="CURSOR", min=0, help="Only what came after the event with this cursor."),
]
_AT_ONCE = 1000
_ENVELOPE = ("cursor", "at", "type", "job", "attempt", "sequence")


def events(
    context: typer.Context,
    follow: FollowOption = False,
    after: AfterOption = None,
    job: Annotated[str | None, option("--job", metavar="ID", help="Only of this job.")] = None,
    sequence: Annotated[str | None, option("--sequence", metavar="ID", help="Only of this sequence.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Print what happens to jobs, one JSON object a line.

    With --follow only what comes, unless --after says from where on. A reader that remembers the last cursor
    and passes it to --after misses nothing.
    """
    session = sessions.of(context)
    with session.node(runs_jobs=False) as node:
        # What is not there would be waited for in silence.
        if job is not None:
            node.jobs.get(job)
        if sequence is not None:
            node.jobs.sequence(sequence)
        show(session, node, {"job": job, "sequence": sequence}, after=after, follow=follow, as_json=True)


def show(
    session: Session,
    node: Any,
    of: Mapping[str, str | None],
    *,
    after: int | None,
    follow: bool,
    as_json: bool,
) -> None:
    """Print events: JSON lines for scripts, else sentences; for ever when they are followed."""
    if follow and node.is_embedded:
        session.terminal.note("no node is running: toft up starts one, and then there is something to follow")
    wanted = {name: value for name, value in of.items() if value is not None}
    if not follow:
        _print(session, _stored(node, wanted, after), as_json=as_json)
        return
    # Of one job its past is wanted too; of everything it could be a million events.
    start = 0 if after is None and wanted else after
    with node.jobs.watch(after=start, **wanted) as watch:
        _print(session, watch, as_json=as_json)


def _stored(node: Any, wanted: Mapping[str, str], after: int | None) -> Iterator[Any]:
    cursor = after or 0
    while True:
        page = node.jobs.events(after=cursor, limit=_AT_ONCE, **wanted)
        yield from page
        if len(page) < _AT_ONCE:
            return
        cursor = page[-1].cursor


def _print(session: Session, source: Iterable[Any], *, as_json: bool) -> None:
    redactor = session.redactor()
    for event in source:
        told = redactor.value(event.to_dict())
        if as_json:
            session.terminal.json_line(told)
            continue
        data = {name: value for name, value in told.items() if name not in _ENVELOPE}
        rest = "  ".join(f"{name}={_word(value)}" for name, value in data.items() if value not in (None, ""))
        session.terminal.line(f"{told['cursor']:>8}  {told['at']}  {told['type']:<10} {rest}".rstrip())
        session.terminal.out.flush()


def _word(value: Any) -> str:
    return one_line(str(value), 80)
