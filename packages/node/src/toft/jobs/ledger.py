"""How much memory running jobs may still come to take, and what that leaves for others.

A resource is a name: `memory` for the main memory, `gpu0`, `gpu1`… for that of each GPU. What is free right
now says little: a job that began a moment ago has not taken yet what it will. So each instance with running
jobs has a reservation, and what counts against the free memory is the growth still to come: the reservation
less what its processes hold already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

MEMORY = "memory"

Amounts = Mapping[str, int]
"""Bytes by resource; a resource that is not there is 0."""

NOTHING: Amounts = MappingProxyType({})


def gpu(index: int) -> str:
    """Return the name of a GPU's memory."""
    return f"gpu{index}"


def largest(first: Amounts, second: Amounts) -> Amounts:
    """Return the larger amount of each resource."""
    if not second:
        return first
    return {name: max(first.get(name, 0), second.get(name, 0)) for name in (*first, *second)}


def total(amounts: Iterable[Amounts]) -> dict[str, int]:
    """Return the sum of each resource."""
    summed: dict[str, int] = {}
    for each in amounts:
        for name, size in each.items():
            summed[name] = summed.get(name, 0) + size
    return summed


@dataclass(frozen=True, slots=True)
class Reading:
    """What was measured in one pass over the machine; everything in it is of the same moment.

    Attributes:
        at: Monotonic seconds; 0 for no reading at all.
        total: What there is; without a resource it is not known, and nothing is refused for its sake.
        free: What can be had.
        used: What the processes of each instance hold.
        peaks: The most they held since they were started.
        cpu_s: Processor seconds of each instance's processes since they were started.
        pids: The worker of each instance.
    """

    at: float = 0.0
    total: Amounts = field(default_factory=dict)
    free: Amounts = field(default_factory=dict)
    used: Mapping[str, Amounts] = field(default_factory=dict)
    peaks: Mapping[str, Amounts] = field(default_factory=dict)
    cpu_s: Mapping[str, float] = field(default_factory=dict)
    pids: Mapping[str, int] = field(default_factory=dict)

    def capacity(self, resource: str) -> int:
        """Return what instances could have together: what is free and what they hold already."""
        held = sum(amounts.get(resource, 0) for amounts in self.used.values())
        return min(self.free.get(resource, 0) + held, self.total.get(resource, 0))


class Ledger:
    """The reservations of the instances that run jobs."""

    def __init__(self) -> None:
        self._reserved: dict[str, Amounts] = {}

    def reserve(self, instance: str, amounts: Amounts) -> None:
        """Set what an instance may come to hold in all."""
        self._reserved[instance] = amounts

    def release(self, instance: str) -> None:
        """Forget an instance; what it holds shows in the reading."""
        self._reserved.pop(instance, None)

    def reserved(self, instance: str) -> Amounts:
        """Return what an instance may come to hold."""
        return self._reserved.get(instance, NOTHING)

    def growth(self, reading: Reading, *, without: str | None = None) -> dict[str, int]:
        """Return how much running jobs may still take, by resource.

        Args:
            reading: What they hold.
            without: An instance to leave out.
        """
        coming: dict[str, int] = {}
        for instance, amounts in self._reserved.items():
            if instance == without:
                continue
            used = reading.used.get(instance, NOTHING)
            for name, size in amounts.items():
                more = size - used.get(name, 0)
                if more > 0:
                    coming[name] = coming.get(name, 0) + more
        return coming

    def shortage(
        self,
        instance: str,
        amounts: Amounts,
        reading: Reading,
        keep: Amounts = NOTHING,
        *,
        packed: bool = True,
    ) -> dict[str, int]:
        """Return what is missing before an instance could have this reservation; empty when it fits.

        Args:
            instance: Who wants it.
            amounts: The whole reservation, not only the addition.
            reading: What is free and held.
            keep: What stays free whatever happens.
            packed: Count the growth of the others; without it only what is free right now counts.
        """
        used = reading.used.get(instance, NOTHING)
        coming = self.growth(reading, without=instance) if packed else NOTHING
        missing: dict[str, int] = {}
        for name, size in amounts.items():
            if name not in reading.total:
                continue
            more = size - used.get(name, 0)
            if more <= 0:
                continue
            left = reading.free.get(name, 0) - keep.get(name, 0) - coming.get(name, 0)
            if more > left:
                missing[name] = more - left
        return missing
