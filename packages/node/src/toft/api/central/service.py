"""What every route of central works with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from toft.access.decisions import Access
from toft.access.failures import Failures
from toft.access.gate import Gate
from toft.api import permits
from toft.api.central.chunks import Chunks
from toft.api.central.pace import Pace
from toft.api.traffic import Traffic
from toft.central.artifacts import Artifacts
from toft.central.room import TENANT, Central
from toft.kernel import clock as clocks
from toft.kernel import errors


@dataclass(kw_only=True)
class Service:
    """Central as its routes see it.

    Attributes:
        central: The room.
        gate: Who may administer it.
        artifacts: The wheels of all tenants.
        request_bytes: The most one upload may carry.
        failures: Join tokens and credentials that were none, by address.
        pace: How often each node may ask.
        reporting: How often each node may say how it is.
        chunks: How much each node may send in rows.
        state: As its pages show it.
    """

    central: Central
    gate: Gate
    artifacts: Artifacts
    request_bytes: int
    listen: str = ""
    state: str = "ready"
    failures: Failures = field(init=False)
    pace: Pace = field(init=False)
    reporting: Pace = field(init=False)
    chunks: Chunks = field(init=False)
    traffic: Traffic = field(default_factory=Traffic)

    def __post_init__(self) -> None:
        self.failures = Failures(self.central.clock)
        self.pace = Pace(self.central.clock)
        self.chunks = Chunks(self.central.clock)
        self.reporting = Pace(
            self.central.clock, enough="what has changed since the last report is told by the next one"
        )

    @property
    def clock(self) -> clocks.Clock:
        """Return the time, for pages."""
        return self.central.clock

    @property
    def access(self) -> Access:
        """Return what decides who may do what."""
        return self.gate.access

    async def open_door(self) -> str:
        """Return where a browser comes in."""
        return self.listen


async def of(request: Request) -> Service:
    """Return the service of the application that a request came to."""
    return here(request)


def here(request: Request) -> Service:
    """Return the same, for who asks directly."""
    found: Service = request.app.state.service
    return found


def tenant_of(request: Request) -> str:
    """Return the tenant that a request is about, as `?tenant=` names it; `main` where nothing does.

    Raises:
        NotFoundError: There is none of that name.
    """
    name = request.query_params.get("tenant") or TENANT
    return here(request).central.documents.check_tenant(name)


def actor(request: Request) -> str:
    """Return who asks, as the audit log has it."""
    return permits.principal_of(request).principal_id


def check_word(word: str | None, known: Iterable[str], what: str) -> None:
    """Refuse a word that chooses nothing, and would look as if there were nothing.

    Raises:
        UsageError: It is none of those that are known.
    """
    words = list(known)
    if word and word not in words:
        raise errors.UsageError(f"{word[:20]!r} is no {what}: {', '.join(words)}", code="request.fields")


def within(request: Request) -> list[str]:
    """Return what a thing belongs to: whether there is such a tenant is told to nobody who may not ask."""
    return [request.query_params.get("tenant") or TENANT]


Serves = Annotated[Service, Depends(of)]
