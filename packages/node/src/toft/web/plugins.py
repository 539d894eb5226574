"""Pages of plugins: what is installed, and each instance with its settings, variables, switches and log."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from toft.access.resources import Action, Kind, Resource
from toft.api import following, permits, service
from toft.api.service import Service
from toft.kernel import errors
from toft.plugins import installed
from toft.plugins.log_reading import Piece, Place
from toft.plugins.plugin_errors import PluginError
from toft.web import happenings, options, rendering, running, sending, settings

router = APIRouter(include_in_schema=False, route_class=rendering.PageRoute)
Serves = Annotated[Service, Depends(service.of)]
READS = permits.needs(Action.READ, Kind.PLUGIN, id="name")
WRITES = permits.needs(Action.WRITE, Kind.PLUGIN, id="name")
ADMINISTERS = permits.needs(Action.ADMIN, Kind.PLUGIN, id="name")
_DEEDS = {
    "configure": (Action.WRITE, Kind.PLUGIN),
    "administer": (Action.ADMIN, Kind.PLUGIN),
    "load": (Action.WRITE, Kind.INSTANCE),
    "submit": (Action.WRITE, Kind.JOB),
}
_ALL = dict.fromkeys(_DEEDS, True)


@router.get("/plugins", dependencies=[permits.needs(Action.READ, Kind.PLUGIN, id=None)])
async def list_plugins(request: Request, serves: Serves) -> Response:
    """Show what is installed and how it stands."""
    limit_to = permits.visible_of(request, Kind.PLUGIN)
    rows = [each for each in await serves.node.plugins() if limit_to is None or each.name in limit_to]
    said = {each.name: each.code.description for each in await serves.node.installed.find()}
    return rendering.page(request, "plugins", rows=rows, said=said, installs=await _installs(request))


async def _installs(request: Request) -> bool:
    """Say whether who asks may install whatever plugin there is."""
    principal = permits.principal_of(request)
    decision = await permits.decided(request, principal, Action.ADMIN, Resource(Kind.PLUGIN))
    return decision.allowed and permits.visible_of(request, Kind.PLUGIN, Action.ADMIN) is None


@router.get("/plugins/{name}", dependencies=[READS])
async def show(request: Request, serves: Serves, name: str) -> Response:
    """Show a plugin with the instance that has its name."""
    return await _page(request, serves, name, name)


@router.get("/plugins/{name}/{instance}", dependencies=[READS])
async def show_instance(request: Request, serves: Serves, name: str, instance: str) -> Response:
    """Show another instance of a plugin."""
    return await _page(request, serves, name, instance)


@router.get("/plugins/{name}/{instance}/now", dependencies=[READS])
async def now(request: Request, serves: Serves, name: str, instance: str) -> Response:
    """Show what changes by itself: how the instance stands."""
    subject = await settings.find(serves, name, instance)
    return rendering.fragment(request, "plugin.now.html", **await _standing(request, serves, subject))


@router.get("/plugins/{name}/{instance}/stream", dependencies=[READS])
async def watch(request: Request, serves: Serves, name: str, instance: str, after: str = "") -> Response:
    """Send what the instance prints, as rows of its log, and say when it stands another way.

    `Last-Event-ID` wins over `after`.
    """
    subject = await settings.find(serves, name, instance)
    if not _hears(request, subject):
        raise errors.NotFoundError(f"{name} has no instance {instance}", code="instance.not_found")
    place = Place.parse(request.headers.get("last-event-id") or after)
    source = happenings.watch(serves, subject, place)
    return following.EventStream(source, is_lines=False, turnstile=serves.turnstile)


@router.post("/plugins/{name}/{instance}/settings", dependencies=[WRITES])
async def configure(request: Request, serves: Serves, name: str, instance: str) -> Response:
    """Change settings as a form says; what does not fit is told beside its field."""
    sent = await sending.sent(request)
    # Looked for when all has come: until then the name can become another plugin's.
    found = await settings.change(serves, await settings.find(serves, name, instance), sent)
    subject = await settings.find(serves, name, instance)
    return rendering.fragment(request, "plugin.form.html", subject=subject, settings=found, may=_ALL)


@router.post("/plugins/{name}/{instance}/options", dependencies=[ADMINISTERS])
async def set_options(request: Request, serves: Serves, name: str, instance: str) -> Response:
    """Change how an instance is run as a form says; what does not fit is told beside its field."""
    sent = await sending.sent(request)
    subject = await settings.find(serves, name, instance)
    found = await options.change(serves, subject, sent)
    return rendering.fragment(request, "plugin.options.html", subject=subject, options=found, may=_ALL)


@router.post("/plugins/{name}/{instance}/variables", dependencies=[ADMINISTERS])
async def set_variable(request: Request, serves: Serves, name: str, instance: str) -> Response:
    """Give a declared variable or secret its value; it is never shown again."""
    sent = await sending.sent(request)
    subject = await settings.find(serves, name, instance)
    key, value = sent.get("key", ""), sent.get("value", "")
    declared = {each.name: each for each in await serves.node.installed.variables(subject.plugin)}
    said, wrong = f"{key} is set.", ""
    try:
        if not value:
            raise errors.UsageError("an empty value sets nothing", code="request.fields")
        if key not in declared:
            raise errors.NotFoundError(
                f"{name} declares no variable {key[:80]!r}",
                code="plugin.no_variable",
                hint=f"toft plugin show {name} lists those it declares",
            )
        if declared[key].secret:
            await permits.require(request, Action.WRITE, Kind.SECRET, id=f"{subject.plugin}/{key}")
            await serves.node.set_secret(subject.plugin, key, value)
        else:
            given = {**subject.record.options.env, key: value}
            await serves.node.set_options(subject.plugin, {"env": given}, instance=subject.instance)
    except (errors.NodeError, PluginError) as error:
        said, wrong = error.message, key
    return rendering.fragment(
        request,
        "plugin.variables.html",
        subject=subject,
        variables=await serves.node.installed.variables(subject.plugin),
        said=said,
        wrong=wrong,
        may=_ALL,
    )


async def _page(request: Request, serves: Service, name: str, instance: str) -> Response:
    subject = await settings.find(serves, name, instance)
    hears = _hears(request, subject)
    log = await happenings.log_of(serves, subject).read_after(None) if hears else Piece([], Place())
    return rendering.page(
        request,
        "plugin",
        settings=await settings.settings(serves, subject),
        options=options.options(subject.record.options),
        variables=await serves.node.installed.variables(subject.plugin),
        said="",
        wrong="",
        runs=running.runs(subject.manifest),
        lines=happenings.rows(log.lines),
        most=happenings.LINES,
        place=str(log.place),
        hears=hears,
        **await _standing(request, serves, subject),
    )


def _hears(request: Request, subject: settings.Subject) -> bool:
    """Say whether who asks may read a log: that of a name nobody has may be left of another plugin."""
    return subject.is_known or permits.visible_of(request, Kind.PLUGIN) is None


async def _allowed(request: Request, plugin: str) -> dict[str, bool]:
    """Return what who asks may do with a plugin: a form that would be refused is not offered."""
    principal = permits.principal_of(request)
    return {
        name: (await permits.decided(request, principal, action, Resource(kind), [plugin])).allowed
        for name, (action, kind) in _DEEDS.items()
    }


async def _standing(request: Request, serves: Service, subject: settings.Subject) -> dict[str, Any]:
    loaded = subject.loaded
    entry = await installed.entry(serves.node.installed, subject.plugin)
    return {
        "subject": subject,
        "may": await _allowed(request, subject.plugin),
        "entry": entry,
        "has_drifted": entry.drift or (loaded is not None and loaded.drift is not None),
        "stats": await loaded.stats() if loaded is not None else None,
    }
