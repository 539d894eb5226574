"""What a node logs and measures, as far as it has sent it here."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from toft.api.central.service import Serves, tenant_of
from toft.central import rows
from toft.central.rows import Question, Row
from toft.kernel import clock as clocks
from toft.managed import protocol
from toft.web import rendering, samples
from toft.web.central import showing
from toft.web.central.fleet import READS

router = APIRouter(include_in_schema=False, route_class=rendering.PageRoute)
_LISTED = 200
_MOST_GPUS = 16


@router.get("/nodes/{id}/telemetry", dependencies=READS)
async def telemetry(
    request: Request,
    serves: Serves,
    id: str,
    level: Annotated[str, Query(max_length=20)] = "",
    before: Annotated[str, Query(max_length=40)] = "",
    span_s: Annotated[int, Query(ge=60, le=31_536_000)] = 3600,
) -> Response:
    """Show the lines of a node's log, the newest first, and plots of its samples."""
    central, at = serves.central, showing.addresses(tenant_of(request))
    node = central.nodes.get(tenant_of(request), id)
    question = Question(most=_LISTED, before=before, level=level)
    found, is_more = await central.rows.read(node, protocol.LOGS, question)
    sampled, _ = await central.rows.read(node, protocol.METRICS, Question(most=1))
    return showing.page(
        request,
        serves,
        "telemetry",
        node_=node.to_dict(),
        lines=[_line(each) for each in reversed(found)],
        older=found[0].id if found and is_more else "",
        level=level,
        levels=protocol.LEVELS,
        before=before,
        plots=samples.plots(_gpus(sampled[0].value)) if sampled else [],
        span_s=span_s,
        spans=[
            (name, each, at("nodes", node.id, "telemetry", span_s=each, level=level))
            for name, each in samples.SPANS.items()
        ],
    )


def _line(row: Row) -> dict[str, Any]:
    said = row.value
    at, level = rows.moment(said), said.get("level")
    return {
        "id": row.id,
        "at": "" if at is None else clocks.rfc3339(at),
        "level": level if level in protocol.LEVELS else "",
        "text": said["text"] if isinstance(said.get("text"), str) else rendering.pretty(said),
    }


def _gpus(sample: dict[str, Any]) -> int:
    return next((n for n in range(_MOST_GPUS) if f"gpu{n}_used_bytes" not in sample), _MOST_GPUS)
