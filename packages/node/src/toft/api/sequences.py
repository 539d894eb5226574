"""Jobs that belong together: submit a graph, look, wait, cancel, retry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from toft.access.resources import Action, Kind
from toft.api import bodies, following, permits, schemas, service, visible
from toft.api.service import Service
from toft.jobs.records import State
from toft.kernel import traces

router = APIRouter(tags=["sequences"])
Serves = Annotated[Service, Depends(service.of)]
Limit = Annotated[int, Query(ge=1, le=1000)]
Seconds = Annotated[float | None, Query(ge=0)]


@router.post(
    "/v1/sequences", status_code=201, dependencies=[permits.needs(Action.WRITE, Kind.SEQUENCE, id=None)]
)
async def submit(request: Request, serves: Serves) -> Response:
    """Store a graph of jobs, all of it or nothing."""
    wanted = bodies.taken(await bodies.fields(request), **schemas.SUBMIT_GRAPH.kinds)
    plugins = list(visible.in_steps(wanted["steps"]))
    await permits.require(request, Action.WRITE, Kind.SEQUENCE, plugins=plugins)
    with traces.within(request.headers.get(traces.HEADER)):
        return _told(await serves.jobs.submit_graph(**wanted), status=201)


@router.get("/v1/sequences", dependencies=[permits.needs(Action.READ, Kind.SEQUENCE, id=None)])
async def list_sequences(
    request: Request,
    serves: Serves,
    state: State | None = None,
    limit: Limit = 100,
    before: str | None = None,
) -> Response:
    """List sequences and graphs, the newest first; `before` is the last one of the page before."""
    limit_to = permits.visible_of(request, Kind.SEQUENCE)
    graphs = (await serves.jobs.open()).graphs
    found = await graphs.recent(state=state, limit=limit, before=before, plugins=limit_to)
    return bodies.answer([each.to_dict() for each in found])


@router.get("/v1/sequences/{id}", dependencies=[permits.needs(Action.READ, Kind.SEQUENCE)])
async def show(serves: Serves, id: str) -> Response:
    """Show a sequence as it is now."""
    return _told(await serves.jobs.sequence(id))


@router.get("/v1/sequences/{id}/wait", dependencies=[permits.needs(Action.READ, Kind.SEQUENCE)])
async def wait(request: Request, serves: Serves, id: str, timeout_s: Seconds = None) -> Response:
    """Answer once nothing of it will happen unasked any more."""

    async def waiting() -> Response:
        return _told(await serves.jobs.wait_sequence(id, timeout_s))

    return await following.while_here(request, waiting())


@router.post("/v1/sequences/{id}/cancel", dependencies=[permits.needs(Action.CANCEL, Kind.SEQUENCE)])
async def cancel(serves: Serves, id: str) -> Response:
    """End what has not ended."""
    return _told(await serves.jobs.cancel_sequence(id))


@router.post("/v1/sequences/{id}/retry", dependencies=[permits.needs(Action.WRITE, Kind.SEQUENCE)])
async def retry(serves: Serves, id: str) -> Response:
    """Run again what failed or was interrupted, and what was skipped because of it."""
    return _told(await serves.jobs.retry_sequence(id))


def _told(found: Any, status: int = 200) -> Response:
    told: Mapping[str, Any] = found.to_dict()
    return bodies.answer(told, status=status)
