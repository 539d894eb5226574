"""The document of this node: what runs, whether it has proven itself, what happened, and the way back."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from toft.access.resources import Action, Kind
from toft.api import permits, service
from toft.api.service import Documents, Service
from toft.kernel.errors import NotFoundError
from toft.managed import console
from toft.web import rendering

router = APIRouter(include_in_schema=False, route_class=rendering.PageRoute)
Serves = Annotated[Service, Depends(service.of)]
_MOST_LINES = 400


@router.get("/configuration", dependencies=[permits.needs(Action.READ, Kind.NODE, id=None)])
async def show(request: Request, serves: Serves) -> Response:
    """Show the document, its trial with gates, what happened, and how it differs from the one before."""
    documents = serves.documents
    found = await documents.describe() if documents is not None else None
    return rendering.page(
        request,
        "configuration",
        found=found,
        difference=await _difference(documents) if documents is not None and found is not None else [],
        drift=[each for each in found["overrides"]] if found is not None else [],
        may_change=permits.may(request, Action.ADMIN, Kind.NODE),
    )


async def _difference(documents: Documents) -> list[dict[str, str]]:
    """Return the lines by which the running document differs from the one before, with what each is."""
    try:
        before, running = await asyncio.gather(
            asyncio.to_thread(documents.console.document, "lkg"),
            asyncio.to_thread(documents.console.document, "running"),
        )
    except NotFoundError:
        return []
    older = await asyncio.to_thread(documents.console.redacted, before)
    newer = await asyncio.to_thread(documents.console.redacted, running)
    lines = await asyncio.to_thread(console.difference, older, newer, ("before", "running"))
    kinds = {"+": "added", "-": "removed", "@": "place"}
    return [{"text": each, "kind": kinds.get(each[:1], "same")} for each in lines[2 : _MOST_LINES + 2]]
