"""Who may come in: tokens, the link that lets a browser in, and why something is refused."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, Response

from toft.access import browsers
from toft.access.gate import Gate
from toft.access.resources import Action, Kind, Resource
from toft.api import bodies, permits, schemas, service
from toft.api.guard import address_of
from toft.api.service import Service
from toft.kernel import errors

router = APIRouter(tags=["access"])
Serves = Annotated[Service, Depends(service.of)]

_COOKIE = "Path=/; HttpOnly; SameSite=Strict"
# A page that goes on by itself, instead of a redirection: a browser that came from a page of somebody else
# shows a strict cookie only to what a page of this node asks for.
_GOES_ON = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=/">'
    '<title>toft</title><p>Signed in. <a href="/">Go on</a>.</p></html>'
)
_TOO_LATE = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>toft</title><p>This link was used before, or'
    " is older than a minute. <code>toft open</code> makes another one.</p></html>"
)


@router.get("/v1/tokens", dependencies=[permits.needs(Action.READ, Kind.TOKEN, id=None)])
async def list_tokens(serves: Serves) -> Response:
    """List the tokens there are, the oldest first; not the texts that prove them."""
    tokens = _gate(serves).tokens
    return bodies.answer([tokens.told(each) for each in await tokens.list()])


@router.post("/v1/tokens", status_code=201, dependencies=[permits.needs(Action.ADMIN, Kind.TOKEN, id=None)])
async def create_token(request: Request, serves: Serves) -> Response:
    """Make a token; the answer is the only place where its text is ever shown."""
    wanted = bodies.taken(await bodies.fields(request), **schemas.CREATE_TOKEN.kinds)
    scopes = wanted["scopes"]
    if not all(isinstance(each, str) for each in scopes):
        raise errors.UsageError("scopes is a list of texts", code="access.scope")
    tokens = _gate(serves).tokens
    token, text = await tokens.create(
        wanted["name"], scopes, lasts_s=wanted["lasts_s"], by=permits.principal_of(request)
    )
    return bodies.answer({**tokens.told(token), "token": text}, status=201)


@router.delete("/v1/tokens/{name}", dependencies=[permits.needs(Action.ADMIN, Kind.TOKEN, id="name")])
async def revoke_token(serves: Serves, name: str) -> Response:
    """End a token by its name or id, and every stream it has open."""
    tokens = _gate(serves).tokens
    return bodies.answer(tokens.told(await tokens.revoke(name)))


@router.get(
    "/v1/access/why", dependencies=[permits.anybody("it tells everybody only what they may do themselves")]
)
async def why(
    request: Request,
    serves: Serves,
    action: Action,
    kind: Kind,
    id: Annotated[str | None, Query(max_length=200)] = None,
    token: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Say whether something is allowed, and by which rule; of another token for whoever may read tokens."""
    principal = permits.principal_of(request)
    is_own = token is None
    if token is not None:
        await permits.require(request, Action.READ, Kind.TOKEN, id=token)
        found = _gate(serves).tokens.get(token)
        if found is None:
            raise errors.NotFoundError(
                f"there is no token {token[:80]!r} that holds", code="access.no_token", hint="toft token list"
            )
        principal = found.principal()
    resource = Resource(kind, id)
    decision = await permits.decided(request, principal, action, resource)
    if is_own and not decision.allowed:
        decision = permits.unseen(request, principal, action, resource, decision)
    return bodies.answer(
        {
            "allowed": decision.allowed,
            "rule": decision.rule,
            "reason": decision.reason,
            "needed": decision.needed,
            "principal": principal.principal_id,
            "scopes": list(principal.scopes),
            "action": str(action),
            "resource": {"kind": str(kind), "id": id},
        }
    )


@router.post("/v1/links", dependencies=[permits.anybody("the browser may do what its maker may, no more")])
async def make_link(request: Request, serves: Serves) -> Response:
    """Make a link that lets a browser in once, within a minute, as whoever asks."""
    gate = _gate(serves)
    if serves.open_door is None:
        raise errors.UnavailableError("there are no pages here", code="access.no_pages", retry_after_s=60.0)
    base = await serves.open_door()
    code = gate.browsers.link(permits.principal_of(request))
    return bodies.answer({"url": f"{base}/sign-in/{code}", "lasts_s": browsers.LINK_S})


@router.get(
    "/sign-in/{code}",
    include_in_schema=False,
    dependencies=[permits.public("whoever has a link has no cookie yet; the code in it is the proof")],
)
async def sign_in(request: Request, serves: Serves, code: str) -> Response:
    """Let a browser in by a link."""
    if "prefetch" in request.headers.get("sec-purpose", "") + request.headers.get("purpose", ""):
        return Response(status_code=204)  # a look ahead must not use up the link
    try:
        session = _gate(serves).open(code, address_of(request.scope))
    except errors.RefusedError as error:
        if error.code != "access.link":
            raise
        return HTMLResponse(_TOO_LATE, status_code=403)
    secure = "; Secure" if request.url.scheme == "https" else ""
    cookie = f"{browsers.COOKIE}={session.id}; Max-Age={int(browsers.SESSION_S)}; {_COOKIE}{secure}"
    return HTMLResponse(_GOES_ON, headers={"Set-Cookie": cookie, "Cache-Control": "no-store"})


@router.post("/v1/sign-out", dependencies=[permits.anybody("it ends the session of whoever asks")])
async def sign_out(request: Request, serves: Serves) -> Response:
    """End the session of this browser."""
    session = permits.caller_of(request).session
    answer = bodies.answer({"signed_out": bool(session)})
    if session:
        _gate(serves).sign_out(session)
        answer.headers["Set-Cookie"] = f"{browsers.COOKIE}=; Max-Age=0; {_COOKIE}"
        answer.headers["HX-Redirect"] = "/"
    return answer


def _gate(serves: Service) -> Gate:
    if serves.gate is None:
        raise errors.UnavailableError("this node has no tokens", code="access.no_tokens", retry_after_s=60.0)
    return serves.gate
