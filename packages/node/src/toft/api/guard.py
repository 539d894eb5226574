"""Says who asks, before a route or a body is looked at."""

from __future__ import annotations

from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from toft.access.principals import OWNER, Principal
from toft.api import permits, problems
from toft.kernel import errors


class Door(Protocol):
    """A way in: what it knows of whoever comes through it."""

    async def identify(self, scope: Scope) -> Principal | None:
        """Return who asks; None for nobody that is known.

        Raises:
            RefusedError: They show something that is not valid.
        """
        ...


class OwnersDoor:
    """The node's own socket: whoever gets that far is the owner."""

    async def identify(self, scope: Scope) -> Principal | None:
        """Return the owner."""
        return OWNER


class Guard:
    """Puts the principal of each request into its scope.

    Args:
        app: What it guards.
        door: The way requests come in.
    """

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        try:
            scope[permits.PRINCIPAL] = await self._door.identify(scope)
        except errors.RefusedError as error:
            await problems.response(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)
