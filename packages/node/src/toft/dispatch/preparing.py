"""Makes instances ready for jobs: learns about them, loads them, makes room, brings back broken ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from toft.dispatch import backend as seam
from toft.dispatch import measuring
from toft.dispatch.stations import Station
from toft.jobs import ledger
from toft.kernel import log

_log = log.get_logger("dispatch.preparing")
_WAITS_FOR_A_PERSON = ("instance.disabled",)
_PERSON_S = 60.0  # who switches it on in this process is heard at once


class Preparer:
    """Does to instances what takes a while.

    Args:
        backend: Where they are.
        measurer: Says what they hold.
        wake: Called when an instance that was away is back.
        pauses: Seconds to keep away after the first failure, and at most.
    """

    def __init__(
        self,
        backend: seam.Backend,
        measurer: measuring.Measurer,
        wake: Callable[[], None],
        pauses: tuple[float, float],
    ) -> None:
        self._backend = backend
        self._measurer = measurer
        self._wake = wake
        self._first_s, self._most_s = pauses
        self._loop = asyncio.get_running_loop()

    async def learn(self, station: Station, plugin: str) -> seam.Fault | None:
        """Ask what an instance is like; return why it cannot run jobs."""
        try:
            found = await self._backend.profile(plugin, station.instance)
        finally:
            station.is_learning = False
        if isinstance(found, seam.Fault):
            station.profile, station.is_stale = None, True
            if found.error.get("code") not in _WAITS_FOR_A_PERSON:
                return found
            self.keep_away(station, {"code": "disabled", "instance": station.instance}, _PERSON_S)
            return None
        station.profile = found
        return None

    async def load(self, station: Station) -> seam.Fault | None:
        """Load an instance; return why that failed."""
        profile = station.profile
        if profile is None:
            raise RuntimeError(f"{station.instance} is loaded before anything is known of it")
        station.most_at_once = 0
        fault = await self._backend.prepare(profile)
        if fault is None:
            station.failures = 0
            if self._measurer.need(station) is None:
                await self._measurer.measure()
                self._measurer.note_idle(station)
            return None
        station.failures += 1
        if station.failures > 1:
            reason = {"code": "load_failed", "instance": station.instance, "error": _summary(fault)}
            self.keep_away(station, reason, self.pause_s(station))
        return fault

    def pause_s(self, station: Station) -> float:
        """Return how long to leave an instance alone after so many failures."""
        return float(min(self._most_s, self._first_s * 2 ** min(station.failures, 32)))

    def keep_away(self, station: Station, reason: Mapping[str, Any], seconds: float) -> None:
        """Give an instance nothing for a while."""
        station.away = reason
        self._loop.call_later(seconds, self._back, station, reason)

    def _back(self, station: Station, reason: Mapping[str, Any]) -> None:
        if station.away is reason:
            self.bring_back(station)

    def bring_back(self, station: Station) -> None:
        """Let an instance have jobs again."""
        station.away = None
        self._wake()

    async def make_room(self, victims: Iterable[str]) -> dict[str, dict[str, int]]:
        """Evict idle instances; return what each of those that went had held."""
        freed: dict[str, dict[str, int]] = {}
        for victim in victims:
            held = self._measurer.reading.used.get(victim, ledger.NOTHING)
            if await self._backend.evict(victim):
                freed[victim] = dict(held)
        await self._measurer.measure()
        return freed

    async def renew(self, station: Station, because: str) -> None:
        """Give an instance a fresh worker; jobs that still run on the old one keep it."""
        if station.lanes or self._backend.find(station.instance) is None:
            return
        fault = await self._backend.respawn(station.instance, because)
        if fault is not None:
            _log.warning("respawn_failed", instance=station.instance, error=str(fault.error.get("message")))
        station.most_at_once = 0


def _summary(fault: seam.Fault) -> dict[str, Any]:
    return {name: fault.error.get(name) for name in ("code", "message")}
