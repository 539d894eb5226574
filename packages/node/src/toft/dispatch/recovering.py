"""Makes room: for a job that would not fit, and for one that ran out of something."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from toft.dispatch import backend as seam
from toft.dispatch import preparing
from toft.dispatch.lanes import Lanes
from toft.dispatch.stations import Station
from toft.jobs import admission, ledger, records

Note = Callable[[str, int, str, Mapping[str, Any]], None]


class Recovery:
    """Evicts idle instances and replaces workers.

    Args:
        lanes: Says what is idle.
        preparer: Evicts and replaces.
        note: Writes an event of a job.
    """

    def __init__(self, lanes: Lanes, preparer: preparing.Preparer, note: Note) -> None:
        self._lanes = lanes
        self._preparer = preparer
        self._note = note

    async def make_room(self, station: Station, decision: admission.Evict) -> None:
        """Evict what admission chose, so that a station's next job fits."""
        head = station.head
        freed: dict[str, dict[str, int]] = {}
        try:
            freed = await self._preparer.make_room(decision.victims)
        finally:
            self._preparer.bring_back(station)
        if head is not None:
            self._note_evicted(head.id, head.attempt, station, freed, "making_room")

    async def recover(self, station: Station, claim: records.Claimed, fault: seam.Fault) -> None:
        """Make room for a job that ran out of something, and give it a fresh worker."""
        try:
            freed = await self._preparer.make_room(self._in_the_way(station, fault))
            self._note_evicted(claim.id, claim.attempt, station, freed, "resource")
            await self._preparer.renew(station, f"job {claim.id} ran out of memory")
        finally:
            self._preparer.bring_back(station)

    def _in_the_way(self, station: Station, fault: seam.Fault) -> list[str]:
        """Return the idle instances to evict: as many as were missing, all of them when nobody knows."""
        details = fault.error.get("details") or {}
        needed, there = details.get("needed_bytes"), details.get("available_bytes")
        missing = needed - there if isinstance(needed, int) and isinstance(there, int) else None
        is_gpu = str(details.get("resource", "")).startswith("gpu")
        chosen: list[str] = []
        for each in self._lanes.evictable():
            if missing is not None and missing <= 0:
                break
            held = sum(size for name, size in each.used.items() if (name != ledger.MEMORY) == is_gpu)
            if held and each.instance != station.instance:
                chosen.append(each.instance)
                missing = None if missing is None else missing - held
        return chosen

    def _note_evicted(
        self,
        job_id: str,
        attempt: int,
        station: Station,
        freed: Mapping[str, Mapping[str, int]],
        because: str,
    ) -> None:
        for victim, held in freed.items():
            data = {
                "instance": victim,
                "because": because,
                "freed_bytes": dict(held),
                "for": station.instance,
            }
            self._note(job_id, attempt, "evicted", data)
