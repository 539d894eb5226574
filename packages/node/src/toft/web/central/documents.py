"""Documents: which there are, their revisions, how two of them differ, and what one would change for whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from toft.access.resources import Action, Kind
from toft.api import permits, problems
from toft.api.central.service import Serves, Service, tenant_of, within
from toft.central import layers, saving
from toft.central.documents import Document
from toft.kernel import errors
from toft.web import rendering
from toft.web.central import showing
from toft.web.central.rollouts import called

router = APIRouter(include_in_schema=False, route_class=rendering.PageRoute)
READS = [permits.needs(Action.READ, Kind.DOCUMENT, id=None, within=within)]
_REVISIONS = 100


@router.get("/documents", dependencies=READS)
async def list_documents(request: Request, serves: Serves) -> Response:
    """Show the documents of a tenant, and the groups they are for."""
    tenant, central = tenant_of(request), serves.central
    rows = []
    for each in central.documents.of(tenant):
        revisions = await central.documents.revisions(each, most=1)
        rollout = central.rollouts.of_document(each)
        rows.append(
            {
                **each.to_dict(),
                "of": called(serves, each),
                "newest": revisions[0] if revisions else None,
                "nodes": sum(1 for _ in central.rollouts.about(each)),
                "rollout": None if rollout is None else rollout.to_dict(),
            }
        )
    groups = [each.to_dict() for each in central.documents.groups(tenant)]
    return showing.page(request, serves, "documents", rows=rows, groups=groups)


@router.get("/documents/{id}", dependencies=READS)
async def document(
    request: Request,
    serves: Serves,
    id: str,
    number: Annotated[int | None, Query(ge=1)] = None,
    before: Annotated[int | None, Query(ge=1)] = None,
) -> Response:
    """Show a document: its history, one revision, and how that differs from another."""
    tenant, central = tenant_of(request), serves.central
    found = central.documents.get(tenant, id)
    revisions = await central.documents.revisions(found, most=_REVISIONS)
    shown = number or (revisions[0]["number"] if revisions else None)
    layer = None if shown is None else await central.documents.layer(found, shown)
    against = before if before is not None else _against(found, shown, revisions)
    older = None if against is None else await central.documents.layer(found, against)
    names = (layers.called(against), layers.called(shown))
    rollout = central.rollouts.of_document(found)
    return showing.page(
        request,
        serves,
        "document",
        document=found.to_dict(),
        of=called(serves, found),
        revisions=revisions,
        number=shown,
        against=against,
        layer=layer,
        diff=layers.diff(older, layer, names).splitlines() if layer is not None else [],
        rollout=None if rollout is None else rollout.to_dict(),
        past=[each.to_dict() for each in await central.rollouts.list(tenant, document=found.id, most=10)],
        preview=None if layer is None or shown == found.published else await _preview(serves, found, layer),
    )


def _against(document: Document, shown: int | None, revisions: Sequence[Mapping[str, Any]]) -> int | None:
    """Return what a revision is compared with: what nodes get, or for that itself the one before."""
    if shown is None:
        return None
    if document.published is not None and shown != document.published:
        return document.published
    return next((int(each["number"]) for each in revisions if each["number"] < shown), None)


async def _preview(serves: Service, document: Document, layer: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a revision would change for whom, or why it cannot be served any more."""
    wish = saving.Wish(
        tenant=document.tenant, scope=document.scope, target=document.target, layer=layer, author="preview"
    )
    try:
        preview = await serves.central.saving.save(wish, dry_run=True)
    except errors.NodeError as error:
        return {"error": problems.describe(error), "changes": [], "nodes": 0, "artifacts": []}
    told = preview.to_dict()
    # Without its head, which names the number that it would get if it were saved once more.
    changes = [{**each, "lines": each["diff"].splitlines()[2:]} for each in told["changes"]]
    return {**told, "changes": changes, "error": None}
