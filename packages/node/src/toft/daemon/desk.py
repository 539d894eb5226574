"""What a person does with the document of a running node; the daemon looks, changes, and starts again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from toft.api.service import Service
from toft.daemon import gating, pulling
from toft.kernel import clock as clocks
from toft.managed import generations, staging, standing
from toft.managed.console import Console


class Desk:
    """The documents of a home, on the daemon that runs one of them.

    Args:
        console: The files.
        boot: What this process has loaded.
        gated: Looks at gates.
        service: The daemon.
        installer: Returns what gets plugins.
        look: Sees whether another document counts by now; then the daemon starts again.
    """

    def __init__(
        self,
        console: Console,
        boot: generations.Boot,
        gated: gating.Gating,
        service: Service,
        *,
        installer: Callable[[], staging.Installer],
        look: Callable[[], None],
    ) -> None:
        self.console = console
        self.central: pulling.Pulling | None = None
        self._boot = boot
        self._gated = gated
        self._service = service
        self._installer = installer
        self._look = look

    async def describe(self) -> dict[str, Any]:
        """Return how the node stands, with what only its daemon knows."""
        found = await asyncio.to_thread(self.console.describe)
        return standing.with_live(found, await self.live(found))

    async def live(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return what only the daemon knows: gates as they are, polls, what it has loaded."""
        polls = self.central.standing() if self.central is not None else None
        told = await self._service.document() if self._service.document is not None else None
        dropped = [*found["overrides"], *(told or {}).get("local_not_applied", ())]
        live: dict[str, Any] = {
            "running": self._boot.etag or None,
            "gates": self._gated.told(),
            "overrides": dropped,
            "instances": (told or {}).get("instances", []),
        }
        if polls is None:
            return live
        last = polls.last
        return {
            **live,
            "central": str(polls.state),
            "control_url": polls.url or found["control_url"],
            "last_poll": None
            if last is None
            else {
                "at": clocks.rfc3339(polls.at),
                "code": last.status or last.kind,
                "latency_ms": round(last.latency_s * 1000, 1),
                "problem": last.problem or None,
                "hint": last.hint or None,
            },
            "next_poll_in_s": round(polls.next_in_s, 1),
            "consecutive_failures": polls.failures,
            "clock_skew_s": polls.skew_s,
            "polls": dict(polls.counts),
            "telemetry": self.central.forwarded() if self.central is not None else None,
        }

    async def served(self) -> bytes:
        """Return the document that the central serves now.

        Raises:
            NotFoundError: The node has no central.
            NodeError: It does not answer, or serves none.
        """
        if self.central is None:
            raise pulling.no_central()
        return await self.central.served()

    async def drift(self) -> list[dict[str, str]]:
        """Return how this machine differs from what its document says."""
        told = await self._service.document() if self._service.document is not None else None
        more = [
            {"kind": "override", "key": f"{each['section']}.{each['key']}", "detail": str(each["reason"])}
            for each in (told or {}).get("local_not_applied", ())
        ]
        return await asyncio.to_thread(self.console.drift, more)

    async def apply(self, data: bytes, *, source: str, signatures: str) -> staging.Staged:
        """Put a document in the place of the one that runs, on trial, and start again with it."""
        done = await self.console.apply(
            data,
            nonce=self._boot.nonce,
            source=source,
            signatures=signatures,
            installer=self._installer(),
            gated=self._gated,
        )
        self._look()
        return done

    async def roll_back(self, reason: str) -> dict[str, Any]:
        """Go back to the document before, and start again with it."""
        await asyncio.to_thread(self.console.roll_back, reason)
        found = await self.describe()
        self._look()
        return found
