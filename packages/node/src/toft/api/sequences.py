"""Jobs that belong together: submit a graph, look, wait, cancel, retry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from toft.api import bodies, following, schemas, service
from toft.api.service import Service

router = APIRouter(tags=["sequences"])
Serves = Annotated[Service, Depends(service.of)]
Limit = Annotated[int, Query(ge=1, le=1000)]
Seconds = Annotated[float | None, Query(ge=0)]


@router.post("/v1/sequences", status_code=201)
async def submit(request: Request, serves: Serves) -> Response:
    """Store a graph of jobs, all of it or nothing."""
    wanted = bodies.taken(await bodies.fields(request), **schemas.SUBMIT_GRAPH.kinds)
    return _told(await serves.jobs.submit_graph(**wanted), status=201)


@router.get("/v1/sequences")
async def list_sequences(
    serves: Serves, state: str | None = None, limit: Limit = 100, before: str | None = None
) -> Response:
    """List sequences and graphs, the newest first; `before` is the last one of the page before."""
    found = await serves.jobs.sequences(state=state, limit=limit, before=before)
    return bodies.answer([each.to_dict() for each in found])


@router.get("/v1/sequences/{id}")
async def show(serves: Serves, id: str) -> Response:
    """Show a sequence as it is now."""
    return _told(await serves.jobs.sequence(id))


@router.get("/v1/sequences/{id}/wait")
async def wait(request: Request, serves: Serves, id: str, timeout_s: Seconds = None) -> Response:
    """Answer once nothing of it will happen unasked any more."""

    async def waiting() -> Response:
        return _told(await serves.jobs.wait_sequence(id, timeout_s))

    return await following.while_here(request, waiting())


@router.post("/v1/sequences/{id}/cancel")
async def cancel(serves: Serves, id: str) -> Response:
    """End what has not ended."""
    return _told(await serves.jobs.cancel_sequence(id))


@router.post("/v1/sequences/{id}/retry")
async def retry(serves: Serves, id: str) -> Response:
    """Run again what failed or was interrupted, and what was skipped because of it."""
    return _told(await serves.jobs.retry_sequence(id))


def _told(found: Any, status: int = 200) -> Response:
    told: Mapping[str, Any] = found.to_dict()
    return bodies.answer(told, status=status)
