"""What pages load besides themselves: sent from memory, under a name that changes with its content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Request
from fastapi.responses import Response

from toft.api import permits, service

router = APIRouter(include_in_schema=False)
_KINDS = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
_FOREVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file."""

    body: bytes
    kind: str
    digest: str


def _read(folder: Traversable, prefix: str = "") -> dict[str, Asset]:
    found: dict[str, Asset] = {}
    for each in folder.iterdir():
        if each.is_dir():
            found.update(_read(each, f"{prefix}{each.name}/"))
        elif (dot := each.name.rfind(".")) >= 0 and each.name[dot:] in _KINDS:
            body = each.read_bytes()
            found[f"{prefix}{each.name}"] = Asset(
                body, _KINDS[each.name[dot:]], hashlib.sha256(body).hexdigest()[:16]
            )
    return found


# What is asked for is looked up, never opened: no name leads out of the package.
ASSETS = _read(resources.files("toft.web") / "static")


def url(name: str) -> str:
    """Return the address of an asset; another content has another one."""
    return f"/static/{ASSETS[name].digest}/{name}"


_OPEN = permits.public("what everybody who installs toft has anyway; a page for signing in needs it")


@router.get("/static/{digest}/{name:path}", dependencies=[_OPEN])
async def asset(request: Request, digest: str, name: str) -> Response:
    """Send one file."""
    found = ASSETS.get(name)
    if found is None:
        raise service.no_route(request)
    # An old page that asks for an old content gets the new one, but does not keep it.
    keep = _FOREVER if digest == found.digest else "no-store"
    headers = {"Cache-Control": keep, "X-Content-Type-Options": "nosniff"}
    return Response(found.body, media_type=found.kind, headers=headers)


@router.get("/favicon.ico", dependencies=[_OPEN])
async def icon() -> Response:
    """Send the mark, for pages that name none."""
    return Response(ASSETS["mark.svg"].body, media_type=_KINDS[".svg"])
