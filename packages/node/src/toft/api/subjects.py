"""To which plugins a thing belongs, for scopes that are limited to some."""

from __future__ import annotations

from fastapi import Request

from toft.access.resources import Kind
from toft.api import service
from toft.kernel import errors

NOBODYS = ("",)
"""What is not there belongs to no plugin that a scope could name, so it is refused like what is hidden."""


async def plugins_of(request: Request, kind: Kind, id: str) -> tuple[str, ...]:
    """Return the plugins a thing belongs to."""
    serves = service.here(request)
    try:
        if kind is Kind.PLUGIN:
            return (id,)
        if kind is Kind.INSTANCE:
            return (serves.sessions.instance(service.session_of(request), id).plugin,)
        if kind is Kind.SEQUENCE:
            return tuple((await serves.jobs.sequence(id)).plugins)
        return ((await serves.jobs.get(id)).plugin,)
    except errors.NotFoundError:
        return NOBODYS
