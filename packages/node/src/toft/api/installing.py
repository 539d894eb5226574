"""Changes what is installed: files are uploaded, plugins installed from them, renewed and looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from toft.access.resources import Action, Kind
from toft.api import bodies, downloads, frames, permits, progress, schemas, service
from toft.api.service import Service
from toft.kernel import errors
from toft.plugins.artifacts import Artifacts
from toft.plugins.environments import elsewhere, provisioning

router = APIRouter(tags=["plugins"])
Serves = Annotated[Service, Depends(service.of)]
_INSTALLS = permits.needs(Action.ADMIN, Kind.PLUGIN, id=None)
_RENEWS = permits.needs(Action.ADMIN, Kind.PLUGIN, id="name")


@router.get("/v1/artifacts", dependencies=[_INSTALLS])
async def list_artifacts(request: Request, serves: Serves) -> Response:
    """List the uploaded files; none to whoever is limited to some plugins, because they belong to none."""
    if _limit(request) is not None:
        return bodies.answer([])
    return bodies.answer([each.to_dict() for each in await _artifacts(serves).list()])


@router.put("/v1/artifacts/{sha256}", status_code=201, dependencies=[_INSTALLS])
async def upload(request: Request, serves: Serves, sha256: str) -> Response:
    """Store a file to install from: a wheel, a Python file, or a directory as a plain tar.

    Nobody sees it before all of it is there and has this sha256. An upload that broke off starts anew.
    """
    serves.admit()
    installer = serves.node.rooms.installer
    installer.artifacts.path(sha256)  # refuses what is no digest
    _check_kind(request)
    saved = await installer.artifacts.save(sha256, request.stream(), is_named=installer.is_installed_from)
    return bodies.answer(saved.to_dict(), status=201)


def _check_kind(request: Request) -> None:
    kind = request.headers.get("content-type", frames.BYTES_TYPE).partition(";")[0].strip().lower()
    encoding = request.headers.get("content-encoding", "identity")
    if kind != frames.BYTES_TYPE or encoding != "identity":
        raise errors.UsageError(
            f"a file comes as it is, as {frames.BYTES_TYPE}",
            code="request.media_type",
            hint=f"curl: -H 'Content-Type: {frames.BYTES_TYPE}' --upload-file FILE",
        )


@router.head("/v1/artifacts/{sha256}", include_in_schema=False, dependencies=[_INSTALLS])
@router.get("/v1/artifacts/{sha256}", dependencies=[_INSTALLS])
async def download(serves: Serves, sha256: str) -> Response:
    """Return an uploaded file; who knows its sha256 has had it. Its tag is the sha256."""
    artifacts = _artifacts(serves)
    found = await artifacts.get(sha256)
    return await downloads.Download.of_file(
        artifacts.path(sha256), digest=found.digest, media_type=frames.BYTES_TYPE
    )


@router.delete("/v1/artifacts/{sha256}", dependencies=[_INSTALLS])
async def remove_artifact(request: Request, serves: Serves, sha256: str) -> Response:
    """Remove an uploaded file that no plugin was installed from; others go an hour after their last use."""
    if _limit(request) is not None:
        raise errors.RefusedError(
            "an uploaded file belongs to no plugin, and this token is limited to some",
            code="access.refused",
            hint="ask for a token with plugin:admin; toft why-denied explains it",
        )
    installer = serves.node.rooms.installer
    removed = await installer.artifacts.remove(sha256, is_named=installer.is_installed_from)
    return bodies.answer({"removed": removed})


@router.post("/v1/plugins", status_code=201, dependencies=[_INSTALLS])
async def add(request: Request, serves: Serves) -> Response:
    """Install the plugins of an uploaded file or a requirement: all of them, or nothing.

    With `Accept: application/x-ndjson` each step is told. It is given up when the connection ends.
    """
    serves.admit()
    wanted = bodies.taken(await bodies.fields(request), **schemas.INSTALL.kinds)
    force = bool(wanted.pop("force"))
    await _check_limit(request, wanted["name"])
    wish = elsewhere.wish(wanted)

    async def work(told: provisioning.Progress) -> Any:
        added = await serves.node.rooms.installer.add(wish, force=force, progress=told)
        return {"plugins": [each.to_dict() for each in added]}

    return await progress.answer(request, work, status=201)


async def _check_limit(request: Request, name: str | None) -> None:
    if _limit(request) is None:
        return
    if name is None:
        raise errors.RefusedError(
            "this token is limited to some plugins, and nobody knows yet what is in there",
            code="access.refused",
            hint="say which of them it is: toft plugin add SOURCE --name NAME",
        )
    await permits.require(request, Action.ADMIN, Kind.PLUGIN, id=name)


@router.post("/v1/plugins/{name}/refresh", dependencies=[_RENEWS])
async def refresh(request: Request, serves: Serves, name: str) -> Response:
    """Build the environment of a plugin anew beside the old one, then swap; steps as for installing."""
    serves.admit()

    async def work(told: provisioning.Progress) -> Any:
        return (await serves.node.refresh(name, on_step=told)).to_dict()

    return await progress.answer(request, work)


@router.post("/v1/plugins/{name}/regenerate", dependencies=[_RENEWS])
async def regenerate(request: Request, serves: Serves, name: str) -> Response:
    """Ask the installed code again what it is; the environment stays."""
    serves.admit()

    async def work(_: provisioning.Progress) -> Any:
        return (await serves.node.installed.regenerate(name)).to_dict()

    return await progress.answer(request, work)


@router.post("/v1/plugins/{name}/check", dependencies=[permits.needs(Action.WRITE, Kind.PLUGIN, id="name")])
async def check(request: Request, serves: Serves, name: str) -> Response:
    """Look whether a plugin can still run; its code is imported for it."""
    serves.admit()

    async def work(_: provisioning.Progress) -> Any:
        return [each.to_dict() for each in await serves.node.installed.check(name)]

    return await progress.answer(request, work)


@router.post("/v1/environments/size", dependencies=[_INSTALLS])
async def size(request: Request, serves: Serves) -> Response:
    """Say what installing would take, without installing; an installed plugin's name will do, too."""
    serves.admit()
    wanted = bodies.taken(await bodies.fields(request), **schemas.SIZE.kinds)
    source = wanted["source"]
    is_installed = any(each.name == source for each in await serves.node.plugins())
    if is_installed:
        await permits.require(request, Action.READ, Kind.PLUGIN, id=source)

    async def work(told: provisioning.Progress) -> Any:
        if is_installed and not _says_more(wanted):
            return (await serves.node.installed.size(source, on_step=told)).to_dict()
        return (await serves.node.rooms.installer.size(elsewhere.wish(wanted), told)).to_dict()

    return await progress.answer(request, work)


def _says_more(wanted: Mapping[str, Any]) -> bool:
    return any(value is not None for name, value in wanted.items() if name != "source")


def _artifacts(serves: Service) -> Artifacts:
    return serves.node.rooms.installer.artifacts


def _limit(request: Request) -> frozenset[str] | None:
    return permits.visible_of(request, Kind.PLUGIN, Action.ADMIN)
