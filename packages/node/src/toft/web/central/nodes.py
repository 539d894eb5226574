"""A node: how it stands, its reports and gates, what it has installed, what it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from toft.api.central.service import Serves, Service, tenant_of
from toft.central import convergence, ledger
from toft.central.nodes import Node
from toft.web import rendering
from toft.web.central import showing
from toft.web.central.fleet import READS

router = APIRouter(include_in_schema=False, route_class=rendering.PageRoute)
_REPORTS, _HISTORY, _MOST = 12, 40, 200
_GOOD = ("ok", "verified", "installed", "ready", "present", "active")


@router.get("/nodes/{id}", dependencies=READS)
async def node(request: Request, serves: Serves, id: str) -> Response:
    """Show everything that is known of a node."""
    central = serves.central
    found = central.nodes.get(tenant_of(request), id)
    look = await central.overviews.one(found)
    report = found.report
    return showing.page(
        request,
        serves,
        "node",
        node_=found.to_dict(),
        labels=found.labels,
        group=central.documents.group_of(found),
        look=look.to_dict(),
        runs_revision=await showing.revision_of(serves, found.tenant, convergence.runs(found) or ""),
        documents=[each.to_dict() for each in central.documents.of_node(found)],
        running=_fields(report.get("running"), ("etag", "since", "revision")),
        gates=_several(report.get("gates"), ("name", "state", "since", "message")),
        artifacts=_several(report.get("artifacts"), ("name", "version", "state", "message", "sha256")),
        drift=_drift(report),
        reports=[
            {**_fields(each, ("seq", "boot_nonce", "phase", "received_at")), "whole": each}
            for each in await central.reports.reports(found, most=_REPORTS)
        ],
        history=await _history(serves, found),
        effective=await central.reports.effective(found),
        rollouts=await central.store.read(lambda connection: ledger.of_node(connection, found.id)),
    )


async def _history(serves: Service, node: Node) -> list[dict[str, Any]]:
    """Return what happened on a node, each document with the number that it has here."""
    found = _several(
        await serves.central.reports.history(node, most=_HISTORY),
        ("at", "event", "etag", "revision", "reason", "detail"),
    )
    for each in found:
        each["revision"] = await showing.revision_of(serves, node.tenant, each["etag"]) or each["revision"]
    return found


def _fields(value: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return some members of what a node said: whole numbers as they are, anything else as text."""
    found = value if isinstance(value, Mapping) else {}
    return {name: _plain(found.get(name)) for name in names}


def _plain(value: Any) -> Any:
    if value is None:
        return ""
    return value if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _several(value: Any, names: Sequence[str]) -> list[dict[str, Any]]:
    listed = value if isinstance(value, list) else []
    return [_fields(each, names) for each in listed[:_MOST] if isinstance(each, Mapping)]


def _drift(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return what is otherwise on the node than its document says: overridden there, or changed."""
    overrides = report.get("overrides")
    found = []
    for each in overrides[:_MOST] if isinstance(overrides, list) else []:
        if isinstance(each, Mapping):
            where = ".".join(str(each[name]) for name in ("section", "key", "path") if each.get(name))
            found.append({"where": where, "why": str(each.get("reason") or "")})
        else:
            found.append({"where": str(each), "why": ""})
    for each in _several(report.get("artifacts"), ("name", "version", "state", "message")):
        state = each["state"] or "ok"
        if state not in _GOOD:
            where = f"{each['name'] or 'artifact'} {each['version']}".strip()
            found.append({"where": where, "why": f"{state} {each['message']}".strip()})
    return found
