"""The document of this node: what runs, whether it has proven itself, what happened, and the way back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from toft.access.resources import Action, Kind
from toft.api import documents, permits, service
from toft.api.service import Service
from toft.kernel.errors import NotFoundError
from toft.web import rendering

router = APIRouter(include_in_schema=False, route_class=rendering.PageRoute)
Serves = Annotated[Service, Depends(service.of)]
_MOST_LINES = 400


@router.get("/configuration", dependencies=[permits.needs(Action.READ, Kind.NODE, id=None)])
async def show(request: Request, serves: Serves) -> Response:
    """Show the document, its trial with gates, what happened, and how it differs from the one before."""
    found = await serves.documents.describe() if serves.documents is not None else None
    return rendering.page(
        request,
        "configuration",
        found=found,
        difference=await _difference(serves) if found is not None else None,
        drift=found["overrides"] if found is not None else [],
        may_change=permits.may(request, Action.ADMIN, Kind.NODE),
    )


async def _difference(serves: Service) -> list[dict[str, str]] | None:
    """Return the lines by which the running document differs from the one before; None without that."""
    try:
        lines = await documents.difference(serves, "lkg")
    except NotFoundError:
        return None
    kinds = {"+": "added", "-": "removed", "@": "place"}
    return [{"text": each, "kind": kinds.get(each[:1], "same")} for each in lines[2 : _MOST_LINES + 2]]
