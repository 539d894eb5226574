"""Waits for a job or a sequence on behalf of a person or a script, and says how it ended."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar

import typer

from toft.cli import failures
from toft.cli.live import Live
from toft.cli.session import Session, option
from toft.kernel.errors import NodeError, UnavailableError

TimeoutOption = Annotated[
    float | None, option("--timeout", metavar="SECONDS", min=0, help="Stop waiting after this long.")
]

TIMED_OUT = 3
_TIMEOUT = "job.wait_timeout"
OPEN = ("pending", "running")


class StillOpenError(NodeError):
    """Whoever waited has stopped; what was waited for goes on."""

    code = "job.wait_ended"
    blame = "caller"
    category = "cancelled"
    exit_code: ClassVar[int] = failures.CANCELLED


def until_end(session: Session, node: Any, kind: str, id: str, wait: Callable[[], Any]) -> dict[str, Any]:
    """Wait, showing progress to whoever watches, and return what it is when the waiting is over.

    Args:
        session: Whose terminal is used.
        node: Where it runs.
        kind: `job` or `sequence`.
        id: Its name.
        wait: Waits and returns it; a `TimeoutError` of it ends the waiting too.

    Raises:
        StillOpenError: Ctrl-C; the job was left alone.
    """
    with leaving_alone(kind, id, is_run_here=node.is_embedded), _progress(session, node, kind, id):
        try:
            told: dict[str, Any] = wait().to_dict()
        except (TimeoutError, UnavailableError) as error:
            if getattr(error, "code", _TIMEOUT) != _TIMEOUT:
                raise
            told = (node.jobs.get if kind == "job" else node.jobs.sequence)(id).to_dict()
    return told


@contextlib.contextmanager
def leaving_alone(kind: str, id: str, *, is_run_here: bool = False) -> Iterator[None]:
    """Tell whoever presses Ctrl-C in a `with` block how what they waited for stands, and how to go on.

    Args:
        kind: `job` or `sequence`.
        id: Its name.
        is_run_here: The end of this command is the end of the node that runs it.

    Raises:
        StillOpenError: Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        pass
    else:
        return
    if is_run_here:
        raise StillOpenError(
            f"Stopped waiting, and this command ran {id}: what was running is interrupted, what waits stays",
            details={kind: id},
            hint=f"toft why {id} tells how it stands; toft up --detach runs what waits",
        )
    raise StillOpenError(
        f"Stopped waiting; {id} was left alone and goes on",
        details={kind: id},
        hint=f"toft {kind} wait {id} waits again; toft {kind} cancel {id} ends it",
    )


def end(told: Mapping[str, Any]) -> None:
    """End the command with the status that says how it ended.

    Raises:
        typer.Exit: It did not complete.
    """
    if told["state"] in OPEN:
        raise typer.Exit(TIMED_OUT)
    if told["state"] != "completed":
        raise typer.Exit(failures.FAILED)


@contextlib.contextmanager
def _progress(session: Session, node: Any, kind: str, id: str) -> Iterator[None]:
    """Show what the job reports, for the length of a `with` block."""
    terminal = session.terminal
    if terminal.keeps_warnings:
        yield
        return
    redactor = session.redactor()
    with Live(terminal, id) as live, node.jobs.watch(**{kind: id}) as watch:

        def show() -> None:
            # Progress is only for the eye: what ends the watching is told by the waiting.
            with contextlib.suppress(NodeError):
                for event in watch:
                    _show(live, event.to_dict(), redactor.text)

        shower = threading.Thread(target=show, name="toft-progress", daemon=True)
        shower.start()
        try:
            yield
        finally:
            watch.close()
            shower.join(1.0)


def _show(live: Live, event: Mapping[str, Any], safe: Callable[[str], str]) -> None:
    if event["type"] == "progress":
        fraction = event.get("progress")
        live.progress(-1.0 if fraction is None else float(fraction), safe(str(event.get("message") or "")))
    elif event["type"] == "state" and event.get("to") in OPEN:
        live.progress(-1.0, str(event["to"]))
