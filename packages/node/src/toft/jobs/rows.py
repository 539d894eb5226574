"""Between rows of the database and records."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from json import encoder
from typing import Any

from toft.jobs.records import ONCE, THRICE, Attempt, Event, Job, Request, ResultRef, RetryPolicy, State
from toft.kernel import ids


def _encoder() -> Callable[[Any], str]:
    """Return a maker of short JSON text, whose C half is made once and not for each text anew."""
    writer = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
    make = getattr(encoder, "c_make_encoder", None)
    if make is None:
        return writer.encode
    write = make(None, writer.default, encoder.encode_basestring, None, ":", ",", False, False, True)
    return lambda value: "".join(write(value, 0))


_short = _encoder()
_escaped = json.JSONEncoder(separators=(",", ":")).encode


def encode(value: Any) -> str:
    """Return JSON text that the database takes, whatever a plugin has put into an error or a note.

    The name of a file that is no UTF-8 comes as halves of surrogate pairs; one of them in one row would keep
    everything from being stored that is stored with it.
    """
    text = _short(value)
    return text if ids.is_text(text) else _escaped(value)


def text(said: str | None) -> str | None:
    """Return what a plugin said as text that the database takes."""
    if said is None or ids.is_text(said):
        return said
    return said.encode("utf-8", "backslashreplace").decode()


def optional(value: Any) -> str | None:
    """Return JSON text, or None for what is empty."""
    return encode(value) if value else None


def stored_policy(request: Request) -> str | None:
    """Return the retry policy as text; None when it is the one that `idempotent` implies."""
    return None if request.retry is None else encode(request.retry.to_dict())


def policy(text: str | None, idempotent: int) -> RetryPolicy:
    """Return the retry policy of a row."""
    if text is None:
        return THRICE if idempotent else ONCE
    return RetryPolicy.from_dict(json.loads(text))


def job(row: Sequence[Any], kind: type[Job] = Job) -> Job:
    """Return the job of a row of `job_rows`."""
    size, blob, data = row[23], row[24], row[25]
    return kind(
        seq=row[0],
        id=row[1],
        plugin=row[2],
        instance=row[3],
        action=row[4],
        kind=row[5],
        state=State(row[6]),
        attempt=row[7],
        priority=row[8],
        rank=row[9],
        waiting=row[10],
        submitted_at=row[11],
        ready_at=row[12],
        started_at=row[13],
        finished_at=row[14],
        timeout_s=row[15],
        deadline_at=row[16],
        idempotent=bool(row[17]),
        idempotency_key=row[18],
        retry=policy(row[19], row[17]),
        progress=row[20],
        message=row[21],
        block_reason=_loaded(row[22]) if row[22] else None,
        result=None if size is None else ResultRef(size, data, blob),
        error=_loaded(row[26]) if row[26] else None,
        usage=_loaded(row[27]),
        sequence=row[28],
        step=row[29],
        cancel_requested_at=row[30],
    )


def attempt(row: Sequence[Any]) -> Attempt:
    """Return the attempt of a row."""
    return Attempt(
        attempt=row[0],
        state=State(row[1]),
        started_at=row[2],
        finished_at=row[3],
        because=row[4],
        error=_loaded(row[5]) if row[5] else None,
        usage=_loaded(row[6]),
        lane=_loaded(row[7]),
    )


def event(row: Sequence[Any]) -> Event:
    """Return the event of a row."""
    return Event(row[0], row[1], row[2], row[3], row[4], row[5], json.loads(row[6]))


def _loaded(text: str | None) -> Mapping[str, Any]:
    return json.loads(text) if text else {}
