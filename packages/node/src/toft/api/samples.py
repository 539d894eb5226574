"""How the machine and the lanes were while something ran, as columns for a plot."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from toft.access.resources import Action, Kind
from toft.api import bodies, moments, permits, service
from toft.api.service import Service

router = APIRouter(tags=["samples"])
Serves = Annotated[Service, Depends(service.of)]
From = Annotated[str | None, Query(alias="from")]
To = Annotated[str | None, Query(alias="to")]
Step = Annotated[float | None, Query(ge=0.001, le=86_400)]


@router.get("/v1/samples", dependencies=[permits.needs(Action.READ, Kind.SYSTEM, id=None)])
async def list_samples(serves: Serves, since: From = None, until: To = None, step_s: Step = None) -> Response:
    """Show the samples between two moments; the last hour when none is named.

    A sample is taken every five seconds while a job runs; the last day is kept as it was taken, the last
    month in steps of a minute.
    """
    found = await serves.jobs.samples(
        moments.seconds("from", since), moments.seconds("to", until), step_s=step_s
    )
    return bodies.answer(found)


@router.get("/v1/jobs/{id}/samples", dependencies=[permits.needs(Action.READ, Kind.JOB)])
async def of_job(serves: Serves, id: str) -> Response:
    """Show what was measured of a job while it ran."""
    return bodies.answer(await serves.jobs.samples(job=id))
