"""What each route asks for before it runs; an application with a route that says nothing does not start."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from starlette.routing import compile_path

from toft.access import gate
from toft.access.decisions import Access, Decision
from toft.access.gate import Caller
from toft.access.principals import Principal
from toft.access.resources import OF_PLUGINS, Action, Kind, Resource
from toft.api import service, subjects
from toft.kernel import errors
from toft.plugins.instance import Instance

CALLER = "toft.caller"
"""The key of a request's scope under which it stands who asks; the guard puts it there."""

Pattern = re.Pattern[str]


@dataclass(frozen=True)
class Permit:
    """What a route asks for.

    Attributes:
        action: None when it is open, or open to every principal.
        kind: As above.
        id: The part of the path that names the thing; None for the kind as a whole.
        why: Why nothing is asked for.
        is_public: No principal is needed either.
    """

    action: Action | None = None
    kind: Kind | None = None
    id: str | None = None
    why: str = ""
    is_public: bool = False


_PERMITS: dict[Callable[..., Any], Permit] = {}


def needs(
    action: Action,
    kind: Kind,
    *,
    id: str | None = "id",
    within: Callable[[Request], Sequence[str]] | None = None,
) -> Any:
    """Return the dependency of a route that is refused to whoever may not do this.

    Args:
        action: What the route does.
        kind: With what.
        id: The part of the path that names the thing; None for the kind as a whole. A list then takes
            `visible_of` into account, and a change that names a plugin in its body calls `require`.
        within: Says what the thing belongs to, where the request itself does.
    """

    async def allowed(request: Request) -> None:
        value = None if id is None else str(request.path_params[id])
        await require(request, action, kind, id=value, plugins=None if within is None else within(request))

    _PERMITS[allowed] = Permit(action, kind, id)
    return Depends(allowed)


def anybody(why: str) -> Any:
    """Return the dependency of a route that every principal may use, whatever its scopes."""

    async def known(request: Request) -> None:
        principal_of(request)

    _PERMITS[known] = Permit(why=why)
    return Depends(known)


def public(why: str) -> Any:
    """Return the dependency of a route that asks for nothing; `why` is for whoever reads the list."""

    async def passed() -> None:
        return None

    _PERMITS[passed] = Permit(why=why, is_public=True)
    return Depends(passed)


def principal_of(request: Request) -> Principal:
    """Return who asks.

    Raises:
        RefusedError: Nobody that is known.
    """
    return caller_of(request).principal


def caller_of(request: Request) -> Caller:
    """Return who asks, and by what they were let in.

    Raises:
        RefusedError: Nobody that is known.
    """
    found: Caller | None = request.scope.get(CALLER)
    if found is None:
        raise gate.unauthenticated("this needs a token", "none")
    return found


def may(request: Request, action: Action, kind: Kind) -> bool:
    """Say whether who asks may do something with a kind as a whole; nobody known may nothing."""
    found: Caller | None = request.scope.get(CALLER)
    return found is not None and access_of(request).decide(found.principal, action, Resource(kind)).allowed


def csrf_of(request: Request) -> str:
    """Return what the pages of this browser say in `toft-csrf`; empty where no cookie is shown."""
    found: Caller | None = request.scope.get(CALLER)
    return found.csrf if found is not None else ""


def access_of(request: Request) -> Access:
    """Return what decides."""
    return service.here(request).access


def visible_of(request: Request, kind: Kind, action: Action = Action.READ) -> frozenset[str] | None:
    """Return the plugins that a list or a stream is limited to for who asks; None for no limit."""
    return access_of(request).visible(principal_of(request), kind, action)


async def require(
    request: Request,
    action: Action,
    kind: Kind,
    *,
    id: str | None = None,
    plugins: Sequence[str] | None = None,
) -> None:
    """Refuse what may not be done.

    Args:
        request: Whose principal it is about.
        action: What is to be done.
        kind: With what.
        id: Which one.
        plugins: What it belongs to, where the route knows; else it is looked up when that matters.

    Raises:
        RefusedError: It may not be done; equally for what is not there and what must not be seen.
    """
    principal = principal_of(request)
    decision = await decided(request, principal, action, Resource(kind, id), plugins)
    if not decision.allowed:
        if plugins is None:
            decision = unseen(request, principal, action, Resource(kind, id), decision)
        raise refused(principal, action, Resource(kind, id), decision)


async def instance(request: Request, action: Action, name: str) -> Instance:
    """Return a loaded instance for a route that has waited for its body.

    A body may take a minute to come: by then the name can be that of another plugin's instance than when the
    request was let in.

    Raises:
        RefusedError: What has the name now may not be used by who asks.
        NotFoundError: Nothing has it any more.
    """
    # Nothing is waited for in either line: what is asked about is what is found.
    await require(request, action, Kind.INSTANCE, id=name)
    return service.here(request).sessions.instance(service.session_of(request), name)


async def decided(
    request: Request,
    principal: Principal,
    action: Action,
    resource: Resource,
    plugins: Sequence[str] | None = None,
) -> Decision:
    """Decide about a thing, by the plugins it belongs to where a scope is limited to some."""
    access = access_of(request)
    if plugins is None:
        decision = access.decide(principal, action, resource)
        if decision.allowed or resource.id is None or resource.kind not in OF_PLUGINS:
            return decision
        if not access.visible(principal, resource.kind, action):
            return decision
        plugins = await subjects.plugins_of(request, resource.kind, resource.id)
    decision = access.decide(principal, action, resource)
    for plugin in plugins:
        decision = access.decide(principal, action, Resource(resource.kind, resource.id, {"plugin": plugin}))
        if not decision.allowed:
            break
    return decision


def unseen(
    request: Request, principal: Principal, action: Action, resource: Resource, decision: Decision
) -> Decision:
    """Return a refusal that says the same whether the thing is there or not, and nothing of its plugin."""
    told = access_of(request).decide(principal, action, resource)
    return decision if told.allowed else told


def refused(
    principal: Principal, action: Action, resource: Resource, decision: Decision
) -> errors.RefusedError:
    """Return the error for what somebody may not do."""
    return errors.RefusedError(
        f"{principal.principal_id} may not: {decision.reason}",
        code="access.refused",
        details={
            "rule": decision.rule,
            "principal": principal.principal_id,
            "action": str(action),
            "resource": {"kind": str(resource.kind), "id": resource.id},
            "needed": decision.needed,
        },
        hint="ask for a token with that scope; toft why-denied explains it",
    )


def permit_of(route: RouteContext) -> Permit | None:
    """Return what a route asks for; None when it does not say."""
    if not isinstance(route.original_route, APIRoute):
        return None
    waiting = [route.dependant]
    while waiting:
        each = waiting.pop()
        if each.call in _PERMITS:
            return _PERMITS[each.call]
        waiting.extend(each.dependencies)
    return None


def declared(app: FastAPI) -> Iterator[tuple[str, str, Permit]]:
    """Yield method, path and permit of every route.

    Raises:
        NodeError: One says nothing.
    """
    for route in iter_route_contexts(app.routes):
        permit = permit_of(route)
        where = route.path or str(route.original_route)
        if permit is None:
            raise errors.NodeError(
                f"the route {where} does not say who may use it",
                code="node.no_permit",
                details={"route": where},
                hint="give it dependencies=[permits.needs(...)] and report it",
            )
        for method in sorted(route.methods or ()):
            yield method, where, permit


def check(app: FastAPI) -> list[Pattern]:
    """Refuse an application with a route that does not say who may use it; return the paths that are open.

    Raises:
        NodeError: There is one.
    """
    return [compile_path(path)[0] for _, path, permit in declared(app) if permit.is_public]
