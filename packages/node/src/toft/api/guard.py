"""Says who asks, before a route or a body is looked at."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Protocol

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from toft.access.gate import Caller, Gate, Shown, unauthenticated
from toft.access.hosts import Hosts
from toft.access.principals import OWNER
from toft.api import following, permits, problems
from toft.kernel import errors

_GRACE_S = 0.5
_OWNER = Caller(principal=OWNER)

# Every answer says it: a page that is shown by mistake can do no more than one that is meant to be shown.
HEADERS = {
    b"content-security-policy": (
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        b" form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
}


class Door(Protocol):
    """A way in: what it knows of whoever comes through it."""

    @property
    def headers(self) -> dict[bytes, bytes]:
        """Return what every answer says, unless its route says it otherwise."""
        ...

    async def identify(self, scope: Scope) -> Caller | None:
        """Return who asks; None for nobody that is known.

        Raises:
            NodeError: They show something that is not valid.
        """
        ...


class OwnersDoor:
    """The node's own socket: whoever gets that far is the owner, and no browser can."""

    headers: dict[bytes, bytes] = {}

    async def identify(self, scope: Scope) -> Caller | None:
        """Return the owner."""
        return _OWNER


class NetworkDoor:
    """A TCP port: whoever comes must say who they are.

    Args:
        gate: Knows tokens and browsers.
        hosts: By which names the node may be asked.
    """

    headers = HEADERS

    def __init__(self, gate: Gate, hosts: Hosts) -> None:
        self._gate = gate
        self._hosts = hosts

    async def identify(self, scope: Scope) -> Caller | None:
        """Return who has this token or this cookie."""
        hosts = _all(scope, b"host")
        if len(hosts) != 1 or not self._hosts.knows(hosts[0]):
            raise errors.RefusedError(
                f"this node is not called {(hosts or [''])[0][:100]!r}",
                code="access.host",
                details={"host": (hosts or [""])[0][:200]},
                hint="name it in the setting allowed_hosts",
            )
        return await self._gate.enter(
            Shown(
                method=scope["method"],
                address=address_of(scope),
                authorizations=_all(scope, b"authorization"),
                cookie="; ".join(_all(scope, b"cookie")),
                csrf=_first(scope, b"x-toft-csrf"),
                site=_first(scope, b"sec-fetch-site"),
            )
        )


class Guard:
    """Puts who asks into the scope of each request, and ends it when they may not be there any more.

    Args:
        app: What it guards.
        door: The way requests come in.
        gate: Knows when a token ends; None where there are none.
        public: What anybody may ask for.
    """

    def __init__(
        self, app: ASGIApp, door: Door, gate: Gate | None = None, public: Sequence[permits.Pattern] = ()
    ) -> None:
        self._app = app
        self._door = door
        self._gate = gate
        self._public = tuple(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if self._door.headers:
            send = _with_headers(send, self._door.headers)
        try:
            caller = await self._door.identify(scope)
            if caller is None and not self._is_open(scope):
                raise unauthenticated("this needs a token", "none")
        except errors.NodeError as error:
            await problems.response(error)(scope, receive, send)
            return
        scope[permits.CALLER] = caller
        if caller is None or self._gate is None or not (caller.token or caller.session):
            await self._app(scope, receive, send)
        else:
            await self._until_ended(caller, scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        """Say whether somebody unknown gets as far as the routes: to what is open, or to a page."""
        if scope["method"] in ("GET", "HEAD") and "text/html" in _first(scope, b"accept"):
            return True
        return any(each.match(scope["path"]) for each in self._public)

    async def _until_ended(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; once its token ends it hears nothing more, and it ends itself."""
        assert self._gate is not None
        ended, begun = asyncio.Event(), asyncio.Event()
        scope[following.ENDED] = ended
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        killing: list[asyncio.TimerHandle] = []

        def end() -> None:
            ended.set()
            if task is not None and not killing:
                killing.append(loop.call_later(_GRACE_S, task.cancel))

        with contextlib.ExitStack() as held:
            for key in filter(None, (caller.token, caller.session)):
                held.enter_context(self._gate.leases.hold(key, caller.until, end))
            try:
                await self._app(scope, _ending(receive, ended), _muted(send, ended, begun))
            except (asyncio.CancelledError, ClientDisconnect) as error:
                if not ended.is_set():
                    raise
                if isinstance(error, asyncio.CancelledError) and task is not None and task.uncancel() > 0:
                    raise
                if begun.is_set():
                    raise ClientDisconnect from None
                told = unauthenticated("the token has ended", "ended")
                await problems.response(told)(scope, receive, send)
            finally:
                for each in killing:
                    each.cancel()


def _ending(receive: Receive, ended: asyncio.Event) -> Receive:
    """Return what tells a route that its client is gone, once its token has ended."""

    async def receiving() -> Message:
        if ended.is_set():
            return {"type": "http.disconnect"}
        coming, ending = asyncio.ensure_future(receive()), asyncio.create_task(ended.wait())
        try:
            await asyncio.wait((coming, ending), return_when=asyncio.FIRST_COMPLETED)
            return coming.result() if coming.done() else {"type": "http.disconnect"}
        finally:
            coming.cancel()
            ending.cancel()

    return receiving


def _muted(send: Send, ended: asyncio.Event, begun: asyncio.Event) -> Send:
    """Return what sends no more of an answer that had begun when its token ended.

    An answer that begins afterwards is one to a question that was allowed when it came, perhaps the very one
    that ended the token; it is short, because a route that follows something is told that its client is gone.
    """
    is_late = False

    async def sending(message: Message) -> None:
        nonlocal is_late
        if ended.is_set() and not is_late:
            if begun.is_set():
                raise ClientDisconnect
            is_late = True
        begun.set()
        await send(message)

    return sending


def _with_headers(send: Send, headers: dict[bytes, bytes]) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            said = list(message.get("headers", ()))
            names = {name.lower() for name, _ in said}
            more = [(name, value) for name, value in headers.items() if name not in names]
            message = {**message, "headers": [*said, *more]}
        await send(message)

    return sending


def _all(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _first(scope: Scope, name: bytes) -> str:
    return next(iter(_all(scope, name)), "")


def address_of(scope: Scope) -> str:
    """Return where a request comes from."""
    client: Any = scope.get("client")
    return str(client[0]) if client else ""
