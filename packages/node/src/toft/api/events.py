"""Events of jobs: a page of what is stored, or a stream of what happens that can be resumed at any cursor."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from toft.access.resources import Action, Kind
from toft.api import bodies, following, permits, service, visible
from toft.api.service import Service

router = APIRouter(tags=["events"])
_CURSOR = re.compile(r"\d{1,18}", re.ASCII)
Serves = Annotated[Service, Depends(service.of)]
Cursor = Annotated[int | None, Query(ge=0, le=(1 << 63) - 1)]
Capacity = Annotated[int, Query(ge=1, le=100_000)]
Limit = Annotated[int, Query(ge=1, le=1000)]


@router.get("/v1/events", dependencies=[permits.needs(Action.READ, Kind.JOB, id=None)])
async def list_events(
    request: Request,
    serves: Serves,
    after: Cursor = None,
    job: str | None = None,
    sequence: str | None = None,
    limit: Limit = 1000,
) -> Response:
    """List stored events after a cursor, the oldest first."""
    limit_to = permits.visible_of(request, Kind.JOB)
    queue = (await serves.jobs.open()).queue
    found = await queue.events(after or 0, job=job, sequence=sequence, limit=limit, plugins=limit_to)
    return bodies.answer([each.to_dict() for each in found])


@router.get("/v1/events/stream", dependencies=[permits.needs(Action.READ, Kind.JOB, id=None)])
async def watch(
    request: Request,
    serves: Serves,
    after: Cursor = None,
    job: str | None = None,
    sequence: str | None = None,
    capacity: Capacity = 1000,
) -> Response:
    """Send events as they come: what was stored after the cursor first, then what happens.

    `text/event-stream`, or one JSON object a line for `Accept: application/x-ndjson`. `Last-Event-ID` wins
    over `after`. A reader that is too slow gets an event `lost` with how many it missed; by cursor it reads
    them again.
    """
    last = request.headers.get("last-event-id", "")
    if _CURSOR.fullmatch(last):
        after = int(last)  # one that is none was not made by us, and says nothing
    source = serves.jobs.watch(job=job, sequence=sequence, after=after, capacity=capacity)
    limit_to = permits.visible_of(request, Kind.JOB)
    if limit_to is not None:
        source = visible.Eyes(serves, limit_to).filter(source)
    is_lines = "ndjson" in request.headers.get("accept", "")
    return following.EventStream(source, is_lines=is_lines, turnstile=serves.turnstile)
