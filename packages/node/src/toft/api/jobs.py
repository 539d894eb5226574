"""Durable jobs: submit, look, wait, cancel, retry, reorder, ask why."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from toft.access.resources import Action, Kind
from toft.api import bodies, downloads, following, frames, moments, permits, schemas, service
from toft.api.service import Service
from toft.jobs.records import Job, State
from toft.kernel import traces, turns

router = APIRouter(tags=["jobs"])
Serves = Annotated[Service, Depends(service.of)]
States = Annotated[list[State] | None, Query()]
Several = Annotated[list[str] | None, Query()]
Limit = Annotated[int, Query(ge=1, le=1000)]
Count = Annotated[int, Query(ge=0, le=100_000)]
Seconds = Annotated[float | None, Query(ge=0)]


@router.post("/v1/jobs", status_code=201, dependencies=[permits.needs(Action.WRITE, Kind.JOB, id=None)])
async def submit(request: Request, serves: Serves) -> Response:
    """Store a job; the answer leaves when it is on disk."""
    wanted = bodies.taken(await bodies.fields(request), **schemas.SUBMIT.kinds)
    await permits.require(request, Action.WRITE, Kind.JOB, plugins=[wanted["plugin"]])
    with traces.within(request.headers.get(traces.HEADER)):
        job = await serves.jobs.submit(**_given(wanted))
    return bodies.answer(_seen(request, [job])[0], status=201)


@router.post("/v1/jobs/batch", status_code=201, dependencies=[permits.needs(Action.WRITE, Kind.JOB, id=None)])
async def submit_many(request: Request, serves: Serves) -> Response:
    """Store several jobs, all or none."""
    wanted = bodies.taken(await bodies.fields(request), **schemas.SUBMIT_MANY.kinds)["jobs"]
    requests = [
        _given(bodies.taken(bodies.checked(each), **schemas.SUBMIT.kinds))
        async for each in turns.sharing(wanted)
    ]
    plugins = list(dict.fromkeys(each["plugin"] for each in requests))
    await permits.require(request, Action.WRITE, Kind.JOB, plugins=plugins)
    with traces.within(request.headers.get(traces.HEADER)):
        jobs = await serves.jobs.submit_many(requests)
    limit_to = permits.visible_of(request, Kind.RESULT)
    told = [_limited(each, limit_to) async for each in turns.sharing(jobs)]
    return bodies.answer(told, status=201)


def _given(wanted: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in wanted.items() if value is not None}


@router.get("/v1/jobs", dependencies=[permits.needs(Action.READ, Kind.JOB, id=None)])
async def list_jobs(
    request: Request,
    serves: Serves,
    state: States = None,
    plugin: Several = None,
    instance: str | None = None,
    sequence: str | None = None,
    since: str | None = None,
    until: str | None = None,
    error: str | None = None,
    limit: Limit = 100,
    before: str | None = None,
) -> Response:
    """List jobs, the newest first; `before` is the last one of the page before.

    `state` and `plugin` may be given several times. `since` and `until` are about the submission, `error` is
    part of the code of the error a job ended with.
    """
    found = await serves.jobs.list(
        state=state,
        instance=instance,
        sequence=sequence,
        since=moments.seconds("since", since),
        until=moments.seconds("until", until),
        error=error,
        plugins=_narrowed(permits.visible_of(request, Kind.JOB), plugin),
        limit=limit,
        before=before,
    )
    return bodies.answer(_seen(request, found))


def _narrowed(visible: frozenset[str] | None, wanted: list[str] | None) -> frozenset[str] | None:
    if wanted is None:
        return visible
    return frozenset(wanted) if visible is None else visible.intersection(wanted)


@router.get("/v1/queue", dependencies=[permits.needs(Action.READ, Kind.NODE, id=None)])
async def queue(serves: Serves) -> Response:
    """Show lanes, queue, memory and GPUs as they are now."""
    return bodies.answer(await serves.jobs.status())


@router.get("/v1/jobs/{id}", dependencies=[permits.needs(Action.READ, Kind.JOB)])
async def show(request: Request, serves: Serves, id: str) -> Response:
    """Show a job as it is now; `result` is null for whoever may not read results."""
    return await _told(request, serves.jobs.get(id))


@router.get("/v1/jobs/{id}/wait", dependencies=[permits.needs(Action.READ, Kind.JOB)])
async def wait(request: Request, serves: Serves, id: str, timeout_s: Seconds = None) -> Response:
    """Answer once a job has ended, or with `job.wait_timeout` when it has not in that time."""
    return await following.while_here(request, _told(request, serves.jobs.wait(id, timeout_s)))


@router.head(
    "/v1/jobs/{id}/result",
    include_in_schema=False,
    dependencies=[permits.needs(Action.READ, Kind.RESULT)],
)
@router.get("/v1/jobs/{id}/result", dependencies=[permits.needs(Action.READ, Kind.RESULT)])
async def result(serves: Serves, id: str) -> Response:
    """Return what a job returned, exactly; or the error it failed with.

    The tag is the sha256 of the body. `Range` with `If-Range` goes on where a download broke off.
    """
    job = await serves.jobs.get(id)
    kept = job.result
    if job.state is State.COMPLETED and kept is not None and kept.blob is not None:
        # As it is kept, so it travels: it never is in this process as a whole.
        path = (await serves.jobs.open()).means.blobs.path(kept.blob)
        return await downloads.Download.of_file(path, digest=kept.blob, media_type=frames.VALUE_TYPE)
    body = frames.pack(await serves.jobs.result(id))
    media_type = frames.VALUE_TYPE if body[:1] == b"\0" else frames.JSON_TYPE
    return downloads.Download(body, media_type=media_type)


@router.get("/v1/jobs/{id}/attempts", dependencies=[permits.needs(Action.READ, Kind.JOB)])
async def attempts(serves: Serves, id: str) -> Response:
    """List the attempts of a job, the first one first."""
    return bodies.answer([each.to_dict() for each in await serves.jobs.attempts(id)])


@router.get("/v1/jobs/{id}/logs", dependencies=[permits.needs(Action.READ, Kind.JOB)])
async def logs(serves: Serves, id: str, count: Count = 200) -> Response:
    """Return the last lines that a job printed."""
    return bodies.answer(list(await serves.jobs.logs(id, count)))


@router.get("/v1/jobs/{id}/why", dependencies=[permits.needs(Action.READ, Kind.JOB)])
async def why(serves: Serves, id: str) -> Response:
    """Tell the story of a job or a sequence: what happened, because of what, with evidence."""
    return bodies.answer(list(await serves.jobs.why(id)))


@router.post("/v1/jobs/{id}/cancel", dependencies=[permits.needs(Action.CANCEL, Kind.JOB)])
async def cancel(request: Request, serves: Serves, id: str) -> Response:
    """Ask a job to end."""
    wanted = bodies.taken(await bodies.fields(request), **schemas.CANCEL_JOB.kinds)
    return await _told(request, serves.jobs.cancel(id, grace_s=wanted["grace_s"]))


@router.post("/v1/jobs/{id}/retry", dependencies=[permits.needs(Action.WRITE, Kind.JOB)])
async def retry(request: Request, serves: Serves, id: str) -> Response:
    """Queue a failed or interrupted job again, as its next attempt."""
    return await _told(request, serves.jobs.retry(id))


@router.post("/v1/jobs/{id}/reorder", dependencies=[permits.needs(Action.WRITE, Kind.JOB)])
async def reorder(request: Request, serves: Serves, id: str) -> Response:
    """Move a job that waits."""
    wanted = bodies.taken(await bodies.fields(request), **schemas.REORDER.kinds)
    return await _told(request, serves.jobs.reorder(id, **_given(wanted)))


async def _told(request: Request, looking: Awaitable[Job]) -> Response:
    return bodies.answer(_seen(request, [await looking])[0])


def _seen(request: Request, jobs: Iterable[Job]) -> list[dict[str, Any]]:
    """Return jobs without what they returned where that is another permission, which is not there."""
    limit_to = permits.visible_of(request, Kind.RESULT)
    return [_limited(each, limit_to) for each in jobs]


def _limited(job: Job, limit_to: frozenset[str] | None) -> dict[str, Any]:
    fields = job.to_dict()
    if limit_to is not None and job.plugin not in limit_to:
        fields["result"] = None
    return fields
