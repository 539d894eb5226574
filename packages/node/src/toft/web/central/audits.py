"""Who did what: the audit log, and whether it is whole."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from toft.access.resources import Action, Kind
from toft.api import permits
from toft.api.central.service import Serves, tenant_of, within
from toft.central import audit
from toft.web import rendering
from toft.web.central import showing

router = APIRouter(include_in_schema=False, route_class=rendering.PageRoute)
_LISTED = 100


@router.get("/audit", dependencies=[permits.needs(Action.READ, Kind.AUDIT, id=None, within=within)])
async def list_audit(
    request: Request, serves: Serves, before: Annotated[int | None, Query(ge=1)] = None
) -> Response:
    """Show what was done in a tenant, the newest first."""
    found = await audit.entries(
        serves.central.store, tenant=tenant_of(request), before=before, most=_LISTED + 1
    )
    older = found[_LISTED - 1]["seq"] if len(found) > _LISTED else None
    return showing.page(request, serves, "audit", lines=found[:_LISTED], older=older, is_first=before is None)
