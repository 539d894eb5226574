"""What tells open pages to look again: one stream for all of them, at most once a second."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from toft.access.resources import Action, Kind
from toft.api import following, permits
from toft.api.central.service import Serves, Service, within

router = APIRouter(include_in_schema=False)
_PAUSE_S = 1.0
_QUIET_S = 20.0


@dataclass(frozen=True)
class Happening:
    """Something changed; what, the page finds out."""

    cursor: int
    type: str = "state"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {}


class Changes:
    """Counts what happens in a central.

    Args:
        service: Whose rollouts, reports, nodes and documents are listened to.
    """

    def __init__(self, service: Service) -> None:
        self.count = 0
        self.turnstile = following.Turnstile()
        self._waiting: set[asyncio.Future[None]] = set()
        central = service.central
        central.rollouts.changed.append(self._note)
        central.reports.taken.append(lambda node, report: self._note())
        central.nodes.changed.append(lambda node: self._note())
        central.documents.changed.append(lambda tenant: self._note())

    def _note(self) -> None:
        self.count += 1
        waiting, self._waiting = self._waiting, set()
        for each in waiting:
            if not each.done():
                each.set_result(None)

    async def watch(self) -> AsyncGenerator[Happening, None]:
        """Yield once for all that happened meanwhile; else now and then, so that the dead are noticed."""
        seen = self.count
        while True:
            if self.count == seen:
                waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiting.add(waiting)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_QUIET_S):
                        await waiting
                self._waiting.discard(waiting)
            is_other, seen = self.count != seen, self.count
            yield Happening(seen, "state" if is_other else "quiet")
            await asyncio.sleep(_PAUSE_S)


@router.get("/live", dependencies=[permits.needs(Action.READ, Kind.FLEET, id=None, within=within)])
async def watch(request: Request, serves: Serves) -> Response:
    """Tell a page whenever something changed."""
    changes: Changes = request.app.state.changes
    return following.EventStream(changes.watch(), is_lines=False, turnstile=changes.turnstile)
