"""The page of plots: what the machine and the queue did in the last minutes, hours or days."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from toft.access.resources import Action, Kind
from toft.api import permits, service
from toft.api.service import Service
from toft.web import rendering

router = APIRouter(include_in_schema=False, route_class=rendering.PageRoute)
Serves = Annotated[Service, Depends(service.of)]
SPANS = {"15 min": 900, "1 h": 3600, "6 h": 21600, "1 day": 86400, "7 days": 604800}


@router.get("/samples", dependencies=[permits.needs(Action.READ, Kind.SYSTEM, id=None)])
async def samples(
    request: Request, serves: Serves, span_s: Annotated[int, Query(ge=60, le=31_536_000)] = 3600
) -> Response:
    """Show plots; the browser fetches what is in them from the API."""
    now = await serves.node.system("status")
    drawn = plots(len(now.get("gpus") or ()))
    return rendering.page(
        request,
        "samples",
        plots=drawn,
        span_s=span_s,
        spans=[(name, each, f"/samples?span_s={each}") for name, each in SPANS.items()],
    )


def plots(gpus: int) -> list[dict[str, Any]]:
    """Return what is drawn of a machine with so many GPUs: titles, and the series of each plot."""
    return [*_MACHINE, *(_gpu(index) for index in range(gpus))]


def _line(name: str, label: str, unit: str = "count") -> dict[str, Any]:
    return {"name": name, "label": label, "unit": unit}


def _gpu(index: int) -> dict[str, Any]:
    return {
        "title": f"GPU {index} memory",
        "series": [
            _line(f"gpu{index}_used_bytes", "used", "bytes"),
            _line(f"gpu{index}_total_bytes", "there is", "bytes"),
        ],
    }


_MACHINE: tuple[dict[str, Any], ...] = (
    {"title": "Processor", "series": [_line("cpu_percent", "in use", "percent")]},
    {
        "title": "Memory",
        "series": [
            _line("memory_used_bytes", "used", "bytes"),
            _line("memory_total_bytes", "there is", "bytes"),
        ],
    },
    {"title": "Lanes", "series": [_line("lanes_busy", "lanes taken"), _line("lanes", "lanes there are")]},
    {
        "title": "Queue",
        "series": [_line("queue_pending", "jobs waiting"), _line("queue_running", "jobs running")],
    },
)
