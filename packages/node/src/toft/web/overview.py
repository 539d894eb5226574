"""The first page: what the node is doing, what it holds, what went wrong lately."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from toft.access.resources import Action, Kind, Resource
from toft.api import permits, service
from toft.api.service import Service
from toft.jobs.records import State
from toft.web import rendering

router = APIRouter(include_in_schema=False, route_class=rendering.PageRoute)
Serves = Annotated[Service, Depends(service.of)]
_LISTED = 8
_DEPTH = (
    {"name": "queue_pending", "label": "jobs waiting", "unit": "count"},
    {"name": "queue_running", "label": "jobs running", "unit": "count"},
)


@router.get("/", dependencies=[permits.needs(Action.READ, Kind.NODE, id=None)])
async def overview(request: Request, serves: Serves) -> Response:
    """Show lanes, memory, the queue and recent failures."""
    now = await serves.jobs.status()
    plugins = permits.visible_of(request, Kind.JOB)
    system = Resource(Kind.SYSTEM)
    measures = await permits.decided(request, permits.principal_of(request), Action.READ, system)
    running, waiting, failed, interrupted = await asyncio.gather(
        *(
            serves.jobs.list(state=state, limit=count, plugins=plugins)
            for state, count in (
                (State.RUNNING, 200),
                (State.PENDING, _LISTED),
                (State.FAILED, _LISTED),
                (State.INTERRUPTED, _LISTED),
            )
        )
    )
    trouble = sorted(
        [each.to_dict() for each in (*failed, *interrupted)],
        key=lambda each: str(each["finished_at"] or ""),
        reverse=True,
    )
    return rendering.page(
        request,
        "overview",
        now=now,
        lanes=_lanes(now, [each.to_dict() for each in running]),
        resources=_resources(now),
        holders=_holders(now, _known(request, serves)),
        waiting=[each.to_dict() for each in waiting],
        trouble=trouble[:_LISTED],
        series=_DEPTH if measures.allowed else None,
    )


def _lanes(now: Mapping[str, Any], running: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any] | None]:
    """Return what is in each lane, the longest first; None is a free one."""
    lasts = {each["job"]: each["for_s"] for each in now.get("running") or ()}
    taken = sorted(running, key=lambda each: str(each["started_at"] or ""))
    held: list[Mapping[str, Any] | None] = [{**each, "for_s": lasts.get(each["id"])} for each in taken]
    return held + [None] * max(int(now.get("lanes") or 0) - max(len(held), int(now.get("busy") or 0)), 0)


def _resources(now: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return memory and each GPU: taken, promised to running jobs, free."""
    memory = now.get("memory") or {}
    told = [("memory", memory.get("total_bytes"), memory.get("available_bytes"))]
    told += [(str(each["gpu"]), each["total_bytes"], each["free_bytes"]) for each in now.get("gpu") or ()]
    found = []
    for name, total, free in told:
        if not total or free is None:
            continue
        promised = sum(int(each.get(name) or 0) for each in (now.get("reserved_bytes") or {}).values())
        held = sum(int(each.get(name) or 0) for each in (now.get("instances") or {}).values())
        taken = max(total - free, 0)
        # What is promised and not used yet is not free for another job, though the machine says that it is.
        coming = min(max(promised - held, 0), free)
        found.append(
            {
                "name": name,
                "total": total,
                "held": min(held, taken),
                "other": max(taken - held, 0),
                "coming": coming,
                "free": free - coming,
            }
        )
    return found


def _known(request: Request, serves: Service) -> frozenset[str] | None:
    """Return the instances that who asks may know of; None for all."""
    plugins = permits.visible_of(request, Kind.INSTANCE)
    if plugins is None:
        return None
    return frozenset(each.id for each in serves.sessions.instances(None) if each.plugin in plugins)


def _holders(now: Mapping[str, Any], known: frozenset[str] | None) -> list[dict[str, Any]]:
    """Return who holds what: each instance with what it uses, and what is promised to it."""
    used, promised = now.get("instances") or {}, now.get("reserved_bytes") or {}
    rows = [
        {"instance": name, "used": used.get(name) or {}, "promised": promised.get(name) or {}}
        for name in {*used, *promised}
        if known is None or name in known
    ]
    return sorted(rows, key=lambda each: (-int(each["used"].get("memory") or 0), each["instance"]))
