"""The document of this node: how it stands, what it says, another one, and the way back."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from toft.access.resources import Action, Kind
from toft.api import bodies, document_bodies, frames, permits, service
from toft.api.service import Documents, Service
from toft.kernel import errors
from toft.managed import console, document

router = APIRouter(tags=["configuration"])
Serves = Annotated[Service, Depends(service.of)]
_READS = permits.needs(Action.READ, Kind.NODE, id=None)
# Whoever changes the document decides which code runs here.
_CHANGES = permits.needs(Action.ADMIN, Kind.NODE, id=None)
Which = Annotated[Literal["running", "lkg", "served"], Query()]
Against = Annotated[Literal["lkg", "served"], Query()]


@router.get("/v1/configuration", dependencies=[_READS])
async def show(serves: Serves) -> Response:
    """Show which document runs, its trial and gates, who tells this node what to be, and what happened."""
    return bodies.answer(await _of(serves).describe())


@router.get("/v1/configuration/document", dependencies=[_CHANGES])
async def text(serves: Serves, which: Which = "running") -> Response:
    """Show the exact bytes of a document: the running one, the one before it, or what the central serves."""
    data = await _text(serves, which)
    headers = {"ETag": f'"{document.etag_of(data)}"', "Cache-Control": "no-store"}
    return Response(data, media_type=frames.JSON_TYPE, headers=headers)


@router.get("/v1/configuration/diff", dependencies=[_READS])
async def diff(serves: Serves, against: Against = "lkg") -> Response:
    """Show how the running document differs from another one, line by line; `<set>` for what is secret."""
    return bodies.answer({"against": against, "lines": await difference(serves, against)})


async def difference(serves: Service, against: str) -> list[str]:
    """Return the lines by which the running document differs from another one, the newer one second.

    Raises:
        NotFoundError: One of them is not there.
    """
    running, other = [await _shown(serves, which) for which in ("running", against)]
    older, newer = (running, other) if against == "served" else (other, running)
    names = ("running", "served") if against == "served" else ("before", "running")
    return await asyncio.to_thread(console.difference, older, newer, names)


@router.get("/v1/configuration/effective", dependencies=[_READS])
async def effective(serves: Serves) -> Response:
    """Show what the node is, all layers together; `<set>` for what is secret."""
    return bodies.answer(await asyncio.to_thread(_of(serves).console.effective))


@router.get("/v1/configuration/explain", dependencies=[_READS])
async def explain(serves: Serves, key: Annotated[str, Query(max_length=512)]) -> Response:
    """Show which layer says what of a key, and which one wins."""
    return bodies.answer(await asyncio.to_thread(_of(serves).console.explain, key))


@router.get("/v1/configuration/drift", dependencies=[_READS])
async def drift(serves: Serves) -> Response:
    """List how this machine differs from what its document says."""
    return bodies.answer(await _of(serves).drift())


@router.post("/v1/configuration/validate", dependencies=[_READS])
async def validate(request: Request, serves: Serves) -> Response:
    """Say everything that is wrong with a document; nothing is changed."""
    wanted = bodies.taken(await bodies.fields(request), **document_bodies.CHECK_DOCUMENT.kinds)
    return bodies.answer(await asyncio.to_thread(console.check, wanted["document"]))


@router.post("/v1/configuration/apply", dependencies=[_CHANGES])
async def apply(request: Request, serves: Serves) -> Response:
    """Put a document in the place of the one that runs, on trial; the daemon starts again with it.

    Its gates are looked at before, so that only what was green then counts.
    """
    wanted = bodies.taken(await bodies.fields(request), **document_bodies.APPLY_DOCUMENT.kinds)
    done = await _of(serves).apply(
        wanted["document"].encode(),
        source=wanted["source"] or "over HTTP",
        signatures=wanted["signatures"] or "",
    )
    return bodies.answer({"action": done.action, "etag": done.etag, "slot": done.slot or None})


@router.post("/v1/configuration/rollback", dependencies=[_CHANGES])
async def roll_back(request: Request, serves: Serves) -> Response:
    """Go back to the document before; nothing new is taken until somebody unpins."""
    return bodies.answer(await _of(serves).roll_back(await _reason(request)))


@router.post("/v1/configuration/pin", dependencies=[_CHANGES])
async def pin(request: Request, serves: Serves) -> Response:
    """Take nothing new from anybody but a person who asks for it here."""
    documents, reason = _of(serves), await _reason(request)
    await asyncio.to_thread(documents.console.pin, reason or "pinned")
    return bodies.answer(await documents.describe())


@router.post("/v1/configuration/unpin", dependencies=[_CHANGES])
async def unpin(serves: Serves) -> Response:
    """Take new documents again."""
    documents = _of(serves)
    await asyncio.to_thread(documents.console.pin, "")
    return bodies.answer(await documents.describe())


@router.post("/v1/configuration/acknowledge", dependencies=[_CHANGES])
async def acknowledge(serves: Serves) -> Response:
    """Take note of the last way back, so that the node is no longer said to be amiss."""
    documents = _of(serves)
    await asyncio.to_thread(documents.console.acknowledge)
    return bodies.answer(await documents.describe())


def _of(serves: Service) -> Documents:
    if serves.documents is None:
        raise errors.UnavailableError(
            "this node has no daemon that could keep a document", code="generation.no_daemon", hint="toft up"
        )
    return serves.documents


async def _text(serves: Service, which: str) -> bytes:
    documents = _of(serves)
    if which == "served":
        return await documents.served()
    return await asyncio.to_thread(documents.console.document, which)


async def _shown(serves: Service, which: str) -> bytes:
    return await asyncio.to_thread(_of(serves).console.redacted, await _text(serves, which))


async def _reason(request: Request) -> str:
    wanted = bodies.taken(await bodies.fields(request), **document_bodies.WHY.kinds)
    return wanted["reason"] or ""
