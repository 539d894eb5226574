"""Who holds the lanes, what is reserved for them, and what a decision about them has to look at."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from toft.dispatch import backend as seam
from toft.dispatch import measuring
from toft.dispatch.stations import Station
from toft.jobs import admission, ledger, records
from toft.jobs.admission import Standing

_READY = seam.Condition.READY
_MUCH = 10
_MOST_STATIONS = 256
_WEIGHTY = 10
"""What takes more than a tenth of what is free is not decided about by an old reading."""


class Lanes:
    """The stations of all instances with work, and the lanes they hold.

    Args:
        count: How many lanes there are.
        rules: What admission goes by.
        backend: Says what is loaded.
        measurer: Says what it holds and needs.

    Attributes:
        stations: By instance.
        taken: Lanes that are held.
        free: Set while none is held.
    """

    def __init__(
        self, count: int, rules: admission.Rules, backend: seam.Backend, measurer: measuring.Measurer
    ) -> None:
        self.count = count
        self.stations: dict[str, Station] = {}
        self.taken = 0
        self.free = asyncio.Event()
        self.free.set()
        self.ledger = ledger.Ledger()
        self._rules = rules
        self._backend = backend
        self._measurer = measurer
        self._since: dict[str, ledger.Amounts] = {}
        self._loop = asyncio.get_running_loop()

    def station(self, instance: str) -> Station:
        """Return the station of an instance; a new one when it had none."""
        found = self.stations.get(instance)
        if found is None:
            found = self.stations[instance] = Station(instance)
        return found

    def take(self, station: Station, count: int) -> None:
        """Give lanes to a station."""
        station.lanes += count
        self.taken += count
        self.free.clear()

    def release(self, station: Station, count: int = 1) -> None:
        """Take lanes back."""
        station.lanes -= count
        self.taken -= count
        if not station.lanes:
            station.alone_since = 0.0
            self.ledger.release(station.instance)
            self._since.pop(station.instance, None)
        elif count:
            self.reserve(station)
        if not self.taken:
            self.free.set()

    def reserve(self, station: Station) -> None:
        """Bring the reservation of a station up to what is known of it."""
        need = self._measurer.need(station)
        if station.lanes and need is not None:
            self.ledger.reserve(station.instance, need.of(station.lanes))

    def forget_idle(self, heads: Mapping[str, records.Head]) -> None:
        """Keep no more stations than are worth it."""
        if len(self.stations) > _MOST_STATIONS:
            for name, station in list(self.stations.items()):
                if station.is_forgettable and name not in heads:
                    del self.stations[name]

    # What a decision looks at

    def candidate(self, station: Station, head: records.Head, now: float) -> admission.Candidate | None:
        """Return a station with work as admission sees it; None when there is nothing to decide."""
        ready = head.ready - station.claiming
        if ready <= 0 or (station.profile is None and station.away is None):
            return None
        standing, reason = self.standing(station)
        profile = station.profile
        return admission.Candidate(
            instance=station.instance,
            rank=head.rank,
            seq=head.seq,
            ready=1 if standing is Standing.COLD else ready,
            blocked_s=now - station.blocked_since if station.blocked_since else 0.0,
            running=station.lanes,
            cap=profile.cap if profile else None,
            standing=standing,
            reason=reason,
            need=self._measurer.need(station),
            floor=profile.floor if profile else ledger.NOTHING,
        )

    def standing(self, station: Station) -> tuple[Standing, Mapping[str, Any] | None]:
        """Say whether an instance can take a job, and why not."""
        if station.away is not None:
            return Standing.AWAY, station.away
        if station.is_loading:
            return Standing.LOADING, None
        loaded = self._backend.find(station.instance)
        if loaded is not None and loaded.condition is _READY:
            return Standing.READY, None
        if loaded is None or loaded.condition is seam.Condition.DOWN:
            return Standing.COLD, None
        reason = {"code": str(loaded.condition), "instance": station.instance, "because": loaded.because}
        return Standing.AWAY, reason

    def must_measure(self, candidates: list[admission.Candidate], stale_s: float) -> bool:
        """Say whether the reading is too old for what is to be decided."""
        if not self._rules.policy.checks or self._measurer.age_s <= stale_s:
            return False
        return any(self._is_weighty(each) for each in candidates)

    def _is_weighty(self, wanted: admission.Candidate) -> bool:
        """Say whether admitting it could change what is free by much."""
        if wanted.standing is Standing.COLD:
            return True
        if wanted.standing is not Standing.READY or wanted.need is None:
            return False
        reading = self._measurer.reading
        used = reading.used.get(wanted.instance, ledger.NOTHING)
        return any(
            _WEIGHTY * (size - used.get(name, 0)) > reading.free.get(name, 0)
            for name, size in wanted.need.of(wanted.running + 1).items()
        )

    def lendable(self, overdue: int) -> int:
        """Return how many lanes may be lent to others, of which so many are held for too long."""
        return max(0, min(overdue, self.count) - max(0, self.taken - self.count))

    def overdue(self, running: Iterable[tuple[Station, float]], now: float) -> int:
        """Return how many lanes are held for much longer than usual: by attempts, or by loading."""
        limit_s = self._rules.overdue_s
        if limit_s is None:
            return 0
        found = sum(now - began > max(limit_s, _MUCH * (station.mean_s or 0.0)) for station, began in running)
        return found + sum(
            each.is_loading and now - each.loading_since > limit_s for each in self.stations.values()
        )

    def world(self, candidates: list[admission.Candidate], now: float, lendable: int = 0) -> admission.World:
        """Return what is running and free."""
        if self._since and not any(each.blocked_s >= self._rules.overtaken_s for each in candidates):
            self._since.clear()
        return admission.World(
            free_lanes=self.count - self.taken,
            running={name: each.lanes for name, each in self.stations.items() if each.lanes},
            reading=self._measurer.reading,
            ledger=self.ledger,
            idle=self.evictable() if self._rules.policy.checks else (),
            alone=[
                admission.Alone(instance=name, for_s=now - each.alone_since)
                for name, each in self.stations.items()
                if each.alone_since and self._measurer.need(each) is None
            ],
            since=self._since,
            lendable=lendable,
        )

    def evictable(self) -> list[admission.Idle]:
        """Return what is loaded and has nothing to do, the longest unused first."""
        used = self._measurer.reading.used
        found = []
        for name, each in self._backend.loaded().items():
            station = self.stations.get(name)
            is_wanted = station is not None and (station.lanes or station.is_loading or station.away)
            if not (each.busy or each.pinned or is_wanted):
                idle = admission.Idle(
                    instance=name,
                    last_used=each.last_used,
                    cost_s=each.cost_s,
                    used=used.get(name, ledger.NOTHING),
                )
                found.append(idle)
        return sorted(found, key=admission.eviction_order)

    def status(self) -> dict[str, Any]:
        """Return who holds lanes, for people."""
        return {
            "lanes": self.count,
            "busy": self.taken,
            "policy": self._rules.policy.name,
            "reserved_bytes": {
                name: dict(self.ledger.reserved(name)) for name, each in self.stations.items() if each.lanes
            },
        }
