"""Jobs: those one asks for, and all there is to know of one."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from toft.access.resources import Action, Kind, Resource
from toft.api import permits, service
from toft.api.service import Service
from toft.dispatch import telling
from toft.jobs.records import Job, State
from toft.kernel import errors
from toft.web import rendering, steps

router = APIRouter(include_in_schema=False, route_class=rendering.PageRoute)
Serves = Annotated[Service, Depends(service.of)]
States = Annotated[list[str] | None, Query()]

_LISTED = 50
_LINES = 400
_TOLD = 40
_ATTEMPTS = 50
_SHOWN_BYTES = 64 << 10
_PLOTS = (
    [{"name": "memory_bytes", "label": "memory", "unit": "bytes"}],
    [{"name": "cpu_percent", "label": "processor", "unit": "percent"}],
)
SPANS: Mapping[str, float] = {"1h": 3600.0, "1d": 86_400.0, "7d": 604_800.0}
"""How far back a list goes, as it stands in the address."""


@router.get("/jobs", dependencies=[permits.needs(Action.READ, Kind.JOB, id=None)])
async def list_jobs(
    request: Request,
    serves: Serves,
    state: States = None,
    plugin: str = "",
    error: str = "",
    span: str = "",
    before: str = "",
) -> Response:
    """Show jobs, the newest first."""
    states = [each for each in state or () if each]
    since = serves.clock.now() - SPANS[span] if span in SPANS else None
    found = await serves.jobs.list(
        state=states or None,
        plugin=plugin.strip() or None,
        error=error.strip() or None,
        since=since,
        plugins=permits.visible_of(request, Kind.JOB),
        limit=_LISTED + 1,
        before=before or None,
    )
    given = {"state": states, "plugin": plugin.strip(), "error": error.strip(), "span": span}
    asked = [(name, each) for name in given for each in _several(given[name]) if each]
    return rendering.page(
        request,
        "jobs",
        jobs=[each.to_dict() for each in found[:_LISTED]],
        states=tuple(map(str, State)),
        given=given,
        spans=tuple(SPANS),
        here=_address(asked, before),
        newest=_address(asked, ""),
        older=_address(asked, found[_LISTED - 1].id) if len(found) > _LISTED else None,
        is_first=not before,
        is_asked=bool(asked),
    )


def _several(value: Any) -> Sequence[str]:
    return value if isinstance(value, list) else (value,)


def _address(asked: Sequence[tuple[str, str]], before: str) -> str:
    query = urlencode([*asked, *([("before", before)] if before else [])])
    return f"/jobs?{query}" if query else "/jobs"


@router.get("/jobs/{id}", dependencies=[permits.needs(Action.READ, Kind.JOB)])
async def show(request: Request, serves: Serves, id: str) -> Response:
    """Show all that is known of a job."""
    job, made, lines = await asyncio.gather(
        serves.jobs.get(id), serves.jobs.attempts(id), serves.jobs.logs(id, _LINES)
    )
    told = job.to_dict()
    # One more than is shown says whether there are more.
    story = await telling.of_job(await serves.jobs.open(), job, made, _TOLD + 1)
    return rendering.page(
        request,
        "job",
        job=told,
        story=list(reversed(story))[:_TOLD],
        is_story_cut=len(story) > _TOLD,
        attempts=[each.to_dict() for each in reversed(made[-_ATTEMPTS:])],
        result=_result(told) if await _sees_result(request, job) else None,
        plots=_PLOTS,
        graph=await _graph(request, serves, told),
        **_log(lines),
    )


@router.get("/jobs/{id}/logs", dependencies=[permits.needs(Action.READ, Kind.JOB)])
async def logs(request: Request, serves: Serves, id: str, have: str = "") -> Response:
    """Show what a job printed last; nothing when that is what the page has."""
    job, lines = await asyncio.gather(serves.jobs.get(id), serves.jobs.logs(id, _LINES))
    told = _log(lines)
    if job.state is State.RUNNING and told["digest"] == have:
        return Response(status_code=204, headers=rendering.HEADERS)
    return rendering.fragment(request, "job.logs.html", job=job.to_dict(), **told)


def _log(lines: Sequence[str]) -> dict[str, Any]:
    """Return the lines of a log, each taken apart, and what they are known by."""
    digest = hashlib.sha256("\n".join(lines).encode(errors="replace")).hexdigest()[:16]
    return {"lines": [_line(each) for each in lines], "digest": digest, "most": _LINES}


def _line(text: str) -> dict[str, str]:
    at, stream, _, said = (*text.split(" ", 3), "", "", "")[:4]
    return {"at": at, "stream": stream, "source": stream, "text": said}


def _result(job: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what is shown of a result; one that is large is only named."""
    found = job["result"]
    if job["state"] != State.COMPLETED:
        return None
    text = rendering.pretty(found)
    is_cut = len(text) > _SHOWN_BYTES
    return {"text": text[:_SHOWN_BYTES], "is_cut": is_cut}


async def _sees_result(request: Request, job: Job) -> bool:
    """Say whether who asks may see what a job returned; that is more than to see the job."""
    principal, result = permits.principal_of(request), Resource(Kind.RESULT, job.id)
    return (await permits.decided(request, principal, Action.READ, result, [job.plugin])).allowed


async def _graph(request: Request, serves: Service, job: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the graph that a job is part of, where one may see it and it is still known."""
    id = job["sequence"]
    if not id:
        return None
    try:
        await permits.require(request, Action.READ, Kind.SEQUENCE, id=id)
        found = await serves.jobs.sequence(id)
    except (errors.RefusedError, errors.NotFoundError):
        return None
    return await steps.graph(serves, found, chosen=str(job["step"] or ""))
