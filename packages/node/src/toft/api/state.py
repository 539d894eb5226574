"""Is it there, is it ready, what is it doing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from toft.access.resources import Action, Kind
from toft.api import metrics, permits, service
from toft.api.service import Service, State
from toft.dispatch.health import Check
from toft.host import process_tree
from toft.managed import standing

router = APIRouter(tags=["node"])
_MB = 1 << 20
_PAGE = os.sysconf("SC_PAGE_SIZE")
Serves = Annotated[Service, Depends(service.of)]


@router.get(
    "/livez",
    dependencies=[
        permits.public("a watchdog asks without a token; it says nothing but that the process answers")
    ],
)
async def livez() -> dict[str, Any]:
    """Say that the process answers."""
    return {"ok": True}


@router.get(
    "/v1/openapi.json",
    include_in_schema=False,
    dependencies=[permits.anybody("it is the same for all and published with the source")],
)
async def openapi(request: Request) -> JSONResponse:
    """Describe every route."""
    return JSONResponse(request.app.openapi())


@router.get(
    "/healthz",
    dependencies=[
        permits.public("a watchdog asks without a token; to strangers it names what fails, no more")
    ],
)
async def healthz(request: Request, serves: Serves) -> JSONResponse:
    """Say whether the node can keep its promises: it has room on the disk, and its threads work.

    200, or 503 when a check fails; what was seen is told to whoever may read the node.
    """
    return _told(request, serves, await serves.health.checks())


@router.get(
    "/readyz",
    dependencies=[permits.public("a load balancer asks without a token; as for /healthz")],
)
async def readyz(request: Request, serves: Serves) -> JSONResponse:
    """Say whether new work is taken: 200, or 503 while the daemon starts, stops or is not healthy."""
    is_ready = serves.state is State.READY
    hint = "" if is_ready else "wait until it is ready; toft up starts one that is down"
    state = Check("state", is_ready, f"the daemon is {serves.state}", hint)
    return _told(request, serves, (*await serves.health.checks(), state))


def _told(request: Request, serves: Service, checks: Sequence[Check]) -> JSONResponse:
    is_ok = all(each.ok for each in checks)
    if not permits.may(request, Action.READ, Kind.NODE):
        checks = [Check(each.check, each.ok, "") for each in checks]
    told = {"ok": is_ok, "state": serves.state, "checks": [each.to_dict() for each in checks]}
    return JSONResponse(told, status_code=200 if is_ok else 503, headers={"Cache-Control": "no-store"})


@router.get("/metrics", dependencies=[permits.needs(Action.READ, Kind.SYSTEM, id=None)])
async def show_metrics(serves: Serves) -> Response:
    """Tell what the node does in the words of Prometheus."""
    figures = await metrics.gather(serves)
    return Response(await asyncio.to_thread(_exposed, figures), media_type=metrics.MEDIA_TYPE)


def _exposed(figures: metrics.Figures) -> bytes:
    from toft.api import exposition  # noqa: PLC0415 - a tenth of a second, for a node that is watched only

    return exposition.text(figures)


@router.get("/v1/status", dependencies=[permits.needs(Action.READ, Kind.NODE, id=None)])
async def status(serves: Serves) -> dict[str, Any]:
    """Say what the daemon is doing: its process, the queue, memory, GPUs."""
    machine = await serves.node.system("status")
    now = await serves.jobs.status()
    return {
        "state": str(serves.state),
        "pid": serves.pid,
        "version": serves.version,
        "uptime_s": round(serves.uptime_s, 3),
        "socket": str(serves.socket),
        "listen": serves.listen or None,
        "lanes": now.get("lanes"),
        "queue": now["queue"],
        "scheduler": now.get("policy"),
        "memory": _memory(machine),
        "gpu": _gpus(machine),
        "instances": [
            {"instance": each.id, "plugin": each.plugin, "state": str(each.state)}
            for each in serves.node.instances()
        ],
        "document": await serves.document() if serves.document is not None else None,
        "config": await _config(serves),
    }


async def _config(serves: Service) -> dict[str, Any] | None:
    """Return how the node stands with its document; None where there is nothing to tell."""
    found = await serves.documents.describe() if serves.documents is not None else None
    return found if found is not None and standing.is_managed(found) else None


def _memory(machine: dict[str, Any]) -> dict[str, Any]:
    """Return the machine's memory and the daemon's own, in bytes."""
    found = {
        f"{name}_bytes": round(machine[f"memory_{name}_mb"] * _MB)
        for name in ("total", "used", "available")
        if machine.get(f"memory_{name}_mb") is not None
    }
    me = process_tree.read("self")
    return {**found, "daemon_bytes": me.rss_pages * _PAGE if me is not None else None}


def _gpus(machine: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "index": each.get("index"),
            "name": each.get("name"),
            "uuid": each.get("uuid"),
            **{
                f"{name}_bytes": round(each[f"{name}_memory_mb"] * _MB)
                for name in ("total", "used", "free")
                if each.get(f"{name}_memory_mb") is not None
            },
            "load_percent": each.get("load_percent"),
        }
        for each in machine.get("gpus") or ()
    ]
