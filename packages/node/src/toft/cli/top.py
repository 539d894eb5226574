"""`toft top`: lanes, queue, memory and what is running, as it changes."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer

from toft.cli import session as sessions
from toft.cli import shown
from toft.cli.session import JsonOption, Session, option
from toft.jobs import reasons
from toft.kernel.clock import SYSTEM, from_rfc3339
from toft.kernel.quantities import duration, size
from toft.kernel.visible import one_line, visible

_BAR = 20
_LISTED = 12
_HEADINGS = ("job", "runs", "for", "")


def top(
    context: typer.Context,
    once: Annotated[bool, option("--once", help="Print it once and end.")] = False,
    interval: Annotated[
        float, option("--interval", metavar="SECONDS", min=0.1, help="Look again after this long; 1.")
    ] = 1.0,
    as_json: JsonOption = False,
) -> None:
    """Show lanes, queue, memory and running jobs as they change; q or Ctrl-C ends it.

    Without a terminal, or with --once or --json, they are printed once.
    """
    session = sessions.of(context)
    with session.node(runs_jobs=False) as node:
        if as_json:
            now, running, waiting = look(node)
            session.terminal.json({**now, "running": running, "waiting": waiting})
        elif once or not session.terminal.shows_results:
            for line in frame(*look(node)):
                session.terminal.line(line)
        else:
            with contextlib.suppress(KeyboardInterrupt), _keys() as pressed:
                _live(session, node, lambda: pressed(interval))


def look(node: Any) -> tuple[Mapping[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """Return what the node is doing, the jobs that run, and those that wait."""
    now = node.jobs.status()
    running = [each.to_dict() for each in node.jobs.list(state="running", limit=100)]
    waiting = [each.to_dict() for each in node.jobs.list(state="pending", limit=_LISTED)]
    return now, running, waiting


def frame(
    now: Mapping[str, Any],
    running: Sequence[Mapping[str, Any]],
    waiting: Sequence[Mapping[str, Any]],
    *,
    height: int = 1000,
) -> Iterator[str]:
    """Yield the lines of one look, the most important ones first.

    Args:
        now: What `Jobs.status` says.
        running: Jobs that run.
        waiting: Jobs that wait.
        height: Lines there is room for.
    """
    # The node's own moment: the clock of a machine elsewhere may be hours away from the one here.
    now_s = from_rfc3339(now["at"]) if now.get("at") else SYSTEM.now()
    return itertools.islice(_lines(now, running, waiting, now_s), height)


def _lines(
    now: Mapping[str, Any],
    running: Sequence[Mapping[str, Any]],
    waiting: Sequence[Mapping[str, Any]],
    now_s: float,
) -> Iterator[str]:
    queue = now.get("queue") or {}
    counts = [f"{queue[state]:,} {state}" for state in shown.STATES if queue.get(state)]
    lanes = now.get("lanes")
    parts = (
        [f"{len(running)} of {lanes} lanes taken"] if lanes else ["no node is running: toft up starts one"]
    )
    yield " · ".join(parts + (counts or ["no jobs"]))
    memory = now.get("memory") or {}
    yield from _amount("memory", memory.get("available_bytes"), memory.get("total_bytes"), _promised(now))
    for each in now.get("gpu") or ():
        name = str(each.get("gpu") or f"gpu{each.get('index', '')}")
        yield from _amount(name, each.get("free_bytes"), each.get("total_bytes"))
    yield ""
    if running:
        yield from _table([_row(each, "started_at", now_s) for each in _by(running, "started_at")])
        yield ""
    if waiting:
        more = (queue.get("pending") or 0) - len(waiting)
        yield f"waiting{f', and {more:,} more' if more > 0 else ''}"
        yield from _table([_row(each, "submitted_at", now_s) for each in _by(waiting, "submitted_at")])


def _by(jobs: Sequence[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    return sorted(jobs, key=lambda each: str(each.get(name) or ""))


def _promised(now: Mapping[str, Any]) -> str:
    reserved = now.get("reserved_bytes") or {}
    total = sum(amounts.get("memory", 0) for amounts in reserved.values())
    return f", {size(total)} promised to running jobs" if total else ""


def _amount(name: str, free: Any, total: Any, more: str = "") -> Iterator[str]:
    if isinstance(free, (int, float)) and isinstance(total, (int, float)) and total > 0:
        taken = max(total - free, 0)
        yield f"{name:<7} {bar(taken / total)} {size(taken)} of {size(total)} taken{more}"


def bar(share: float) -> str:
    """Return a share between 0 and 1 as a bar of characters."""
    full = round(min(max(share, 0.0), 1.0) * _BAR)
    return f"[{'#' * full}{' ' * (_BAR - full)}]"


def _row(job: Mapping[str, Any], since: str, now_s: float) -> tuple[str, ...]:
    began = job.get(since)
    lasts = duration(max(now_s - datetime.fromisoformat(began).timestamp(), 0.0)) if began else ""
    progress, message = job.get("progress"), one_line(str(job.get("message") or ""))
    if job["state"] == "pending":
        said = one_line(reasons.sentence(job["block_reason"])) if job.get("block_reason") else ""
    elif isinstance(progress, (int, float)) and progress >= 0:
        said = f"{bar(progress)} {progress:.0%} {message}"
    else:
        said = message
    return job["id"], shown.called(job), lasts, said


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[index]) for row in (_HEADINGS, *rows)) for index in range(len(_HEADINGS))]
    for row in (_HEADINGS, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _live(session: Session, node: Any, has_enough: Callable[[], bool]) -> None:
    from rich.live import Live  # noqa: PLC0415 - 60 ms that a frame without a terminal does not pay
    from rich.text import Text  # noqa: PLC0415 - comes with the one before

    console = session.terminal.console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            lines = frame(*look(node), height=console.height - 1)
            text = "\n".join(visible(line)[: console.width] for line in lines)
            live.update(Text(text, no_wrap=True), refresh=True)
            if has_enough():
                return


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """Give a function that waits so many seconds for a `q`, and says whether it came."""
    if not sys.stdin or not sys.stdin.isatty():
        never = threading.Event()
        yield lambda seconds: never.wait(seconds)
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)
    try:
        yield lambda seconds: bool(select.select([fd], [], [], seconds)[0]) and _is_q(os.read(fd, 64))
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _is_q(typed: bytes) -> bool:
    return b"q" in typed.lower() or not typed
