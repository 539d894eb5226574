"""Sequences and graphs: those there are, and one as a picture, a table and a story."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from toft.access.resources import Action, Kind
from toft.api import permits, service
from toft.api.service import Service
from toft.dispatch import telling
from toft.jobs.sequences import COUNTS
from toft.web import rendering, steps

router = APIRouter(include_in_schema=False, route_class=rendering.PageRoute)
Serves = Annotated[Service, Depends(service.of)]
_LISTED = 50
_TOLD = 40


@router.get("/sequences", dependencies=[permits.needs(Action.READ, Kind.SEQUENCE, id=None)])
async def list_sequences(request: Request, serves: Serves, before: str = "") -> Response:
    """Show sequences, the newest first."""
    plugins = permits.visible_of(request, Kind.SEQUENCE)
    graphs = (await serves.jobs.open()).graphs
    found = list(await graphs.recent(limit=_LISTED + 1, before=before or None, plugins=plugins))
    is_more = len(found) > _LISTED
    found = found[:_LISTED]
    older = f"/sequences?before={rendering.segment(found[-1].id)}" if is_more else None
    return rendering.page(
        request,
        "sequences",
        sequences=[each.to_dict() for each in found],
        counted=COUNTS,
        older=older,
        is_first=not before,
    )


@router.get("/sequences/{id}", dependencies=[permits.needs(Action.READ, Kind.SEQUENCE)])
async def show(request: Request, serves: Serves, id: str) -> Response:
    """Show a sequence as it is now."""
    found = await serves.jobs.sequence(id)
    graph = await steps.graph(serves, found)
    shown = await steps.listed(serves, graph["steps"])
    story, names = await telling.end_of_sequence(await serves.jobs.open(), found, _TOLD + 1)
    return rendering.page(
        request,
        "sequence",
        graph=graph,
        steps=shown,
        story=[steps.named(each, names) for each in list(reversed(story))[:_TOLD]],
        is_story_cut=len(story) > _TOLD,
    )
