"""Jobs and sequences as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from toft.cli import failures
from toft.cli.session import Session
from toft.cli.terminal import Terminal
from toft.jobs import reasons, story
from toft.jobs.glance import called, note, took
from toft.kernel.errors import NodeError
from toft.kernel.visible import one_line

__all__ = [
    "STATES",
    "called",
    "changed",
    "job",
    "local",
    "log_line",
    "note",
    "outcome",
    "table",
    "took",
    "trouble",
]
STATES = ("pending", "running", "completed", "failed", "cancelled", "interrupted")


def table(terminal: Terminal, jobs: Sequence[Mapping[str, Any]]) -> None:
    """Print jobs, one a line."""
    rows = [
        [
            each["id"],
            each["state"],
            called(each),
            str(each["priority"]),
            local(each["submitted_at"]),
            note(each),
        ]
        for each in jobs
    ]
    terminal.table(["job", "state", "plugin", "priority", "submitted", ""], rows)


def local(at: str | None) -> str:
    """Return a moment in the time of this machine."""
    return datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else ""


def job(session: Session, told: Mapping[str, Any]) -> None:
    """Print all that is known of a job."""
    terminal = session.terminal
    terminal.line(f"{told['id']}  {told['state']}")
    fields = {
        "runs": called(told),
        "instance": told.get("instance") if told.get("instance") != told["plugin"] else None,
        "sequence": told.get("sequence"),
        "step": told.get("step"),
        "priority": told["priority"] or None,
        "attempt": told["attempt"] or None,
        "submitted": local(told["submitted_at"]),
        "not before": local(told.get("ready_at")),
        "deadline": local(told.get("deadline_at")),
        "started": local(told["started_at"]),
        "finished": local(told["finished_at"]),
        "took": took(told),
        "progress": note(told) if told["state"] == "running" else None,
        "waits": reasons.sentence(told["block_reason"]) if told.get("block_reason") else None,
        "used": story.used(told.get("usage") or {}),
        "key": told.get("idempotency_key"),
    }
    for name, value in fields.items():
        if value not in (None, ""):
            terminal.line(f"  {name:<11} {one_line(str(value))}")
    if told.get("error"):
        terminal.line(f"  {'error':<11} {one_line(str(told['error'].get('message', '')))}")
    if told["state"] == "completed":
        terminal.note(
            f"toft job result {told['id']} prints what it returned; toft why {told['id']} its story"
        )
    else:
        terminal.note(f"toft why {told['id']} tells its story")


def changed(terminal: Terminal, told: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what a job or a sequence is after a change."""
    if as_json:
        terminal.json(told)
    else:
        terminal.line(f"{told['id']} {told['state']}")


def outcome(told: Mapping[str, Any]) -> str:
    """Return the line that says how a job that completed went."""
    parts = [told["id"], took(told), f"attempt {told['attempt']}"]
    return " · ".join(part for part in parts if part)


def trouble(session: Session, told: Mapping[str, Any]) -> None:
    """Say on stderr why a job did not complete, with the evidence and the next command."""
    terminal, id, state = session.terminal, told["id"], told["state"]
    if state in ("pending", "running"):
        terminal.note(f"{id} is still {state}{(said := note(told)) and f': {said}'}")
        terminal.note(f"next: toft job wait {id}")
        return
    error = told.get("error") or {}
    message = error.get("message") or (reasons.INTERRUPTED if state == "interrupted" else f"it was {state}")
    failure = NodeError(
        f"{id} {state}: {message}",
        code=str(error.get("code") or f"job.{state}"),
        blame=error.get("blame"),
        details=error.get("details") or {},
        hint=f"toft why {id}"
        if state != "interrupted"
        else f"toft job retry {id} runs it again; toft why {id}",
    )
    failures.tell(terminal, failure, as_json=False, redactor=session.redactor())


def log_line(text: str) -> dict[str, Any]:
    """Take a line of a log apart, as `toft.plugins.logs` puts it together."""
    time, stream, call, said = (*text.split(" ", 3), "", "", "")[:4]
    return {"time": time, "stream": stream, "call": int(call) if call.isdigit() else None, "text": said}
