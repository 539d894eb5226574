"""The fleet: who runs what, who lags, who went back and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from toft.access.resources import Action, Kind
from toft.api import permits
from toft.api.central.service import Serves, tenant_of, within
from toft.central import convergence
from toft.central.convergence import Standing
from toft.central.overviews import Look
from toft.web import rendering
from toft.web.central import showing

router = APIRouter(include_in_schema=False, route_class=rendering.PageRoute)
READS = [permits.needs(Action.READ, Kind.FLEET, id=None, within=within)]
LISTED = 100
_FIRST = (*convergence.TROUBLE, Standing.PENDING, Standing.TRIAL, Standing.FOLLOWING, Standing.NEW)


@router.get("/", dependencies=READS)
async def overview(
    request: Request,
    serves: Serves,
    standing: Annotated[str, Query(max_length=20)] = "",
    find: Annotated[str, Query(max_length=200)] = "",
    runs: Annotated[str, Query(max_length=80)] = "",
    start: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> Response:
    """Show how many nodes stand how, what they run, and those that were asked for; trouble first."""
    tenant = tenant_of(request)
    looks = await serves.central.overviews.of(tenant)
    chosen = [each for each in looks if _is_asked(serves, each, standing, find.strip().lower(), runs)]
    chosen.sort(key=lambda each: (_order(each.standing), each.node.name, each.node.id))
    asked = {"standing": standing, "find": find.strip(), "runs": runs}
    return showing.page(
        request,
        serves,
        "fleet",
        counts=_counts(looks),
        total=len(looks),
        versions=await _versions(serves, tenant, looks),
        rows=[await _row(serves, each) for each in chosen[start : start + LISTED]],
        matches=len(chosen),
        asked=asked,
        start=start,
        older=start + LISTED if start + LISTED < len(chosen) else None,
        newer=max(start - LISTED, 0) if start else None,
        rollouts=[each.to_dict() for each in serves.central.rollouts.serving() if each.tenant == tenant],
    )


def _is_asked(serves: Serves, look: Look, standing: str, find: str, runs: str) -> bool:
    if (standing and look.standing != standing) or (runs and (convergence.runs(look.node) or "none") != runs):
        return False
    if not find:
        return True
    node = look.node
    labels = " ".join(f"{name}={value}" for name, value in node.labels.items())
    group = serves.central.documents.group_of(node)
    said = f"{node.name} {node.id} {node.hostname} {labels} {group.name if group else ''}".lower()
    return all(word in said for word in find.split())


def _order(standing: Standing) -> int:
    return _FIRST.index(standing) if standing in _FIRST else len(_FIRST)


def _counts(looks: Sequence[Look]) -> list[tuple[str, int]]:
    counted = Counter(each.standing for each in looks)
    always = (Standing.CURRENT, Standing.FOLLOWING, Standing.TRIAL, *convergence.TROUBLE)
    return [(str(each), counted[each]) for each in Standing if each in always or counted[each]]


async def _versions(serves: Serves, tenant: str, looks: Sequence[Look]) -> list[dict[str, Any]]:
    """Return what is run, by how many: the most first."""
    active = [each.node for each in looks if each.node.state == "active"]
    counted = Counter(convergence.runs(each) or "" for each in active)
    return [
        {
            "etag": etag or "none",
            "nodes": count,
            "revision": await showing.revision_of(serves, tenant, etag),
        }
        for etag, count in counted.most_common(8)
    ]


async def _row(serves: Serves, look: Look) -> dict[str, Any]:
    node = look.node
    group = serves.central.documents.group_of(node)
    runs = convergence.runs(node) or ""
    return {
        **look.to_dict(),
        "group": group.name if group else "",
        "runs_revision": await showing.revision_of(serves, node.tenant, runs),
    }
