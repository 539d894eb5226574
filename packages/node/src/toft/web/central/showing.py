"""Draws central's pages: whose fleet it is stands in each address, what may be done depends on who looks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import Response

from toft.access.resources import Action, Kind
from toft.api import permits
from toft.api.central.service import Service, tenant_of
from toft.central.room import TENANT
from toft.web import rendering


def page(request: Request, serves: Service, name: str, **values: Any) -> Response:
    """Return a page; to htmx its body alone."""
    tenant = tenant_of(request)
    seen = permits.visible_of(request, Kind.FLEET)
    names = serves.central.documents.tenants
    return rendering.page(
        request,
        f"central/{name}",
        tenant=tenant,
        tenants=[each for each in names if seen is None or each in seen],
        at=addresses(tenant),
        may=_may(request, tenant),
        central=serves.central,
        behind="" if tenant == TENANT else f"tenant={quote(tenant, safe='')}",
        **values,
    )


async def revision_of(serves: Service, tenant: str, etag: str) -> int | None:
    """Return the number of a document that was made here, by its hash; None for any other."""
    served = await serves.central.offers.find(tenant, etag.removeprefix("sha256-")) if etag else None
    return None if served is None else served.revision


def addresses(tenant: str) -> Callable[..., str]:
    """Return what makes the address of a path, for the pages of a tenant."""
    suffix = "" if tenant == TENANT else f"tenant={quote(tenant, safe='')}"

    def at(*parts: str, **query: Any) -> str:
        path = "/" + "/".join(quote(each, safe="") for each in parts)
        given = {name: str(each) for name, each in query.items() if each not in (None, "")}
        asked = [f"{name}={quote(each, safe='')}" for name, each in given.items()]
        asked += [suffix] if suffix else []
        return f"{path}?{'&'.join(asked)}" if asked else path

    return at


def _may(request: Request, tenant: str) -> Callable[[str, str], bool]:
    """Return what says whether who looks may do something: a button that would be refused is not shown."""
    access, principal = permits.access_of(request), permits.principal_of(request)

    def may(kind: str, action: str) -> bool:
        seen = access.visible(principal, Kind(kind), Action(action))
        return seen is None or tenant in seen

    return may
