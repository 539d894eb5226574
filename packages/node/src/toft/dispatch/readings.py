"""Reads what this machine has and what processes on it hold: one pass over the kernel's lists for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from toft.host import facts, usage
from toft.host.gpus import GpuReading
from toft.jobs import ledger
from toft.kernel import clock as clocks


class Reader(Protocol):
    """Where readings come from."""

    def read(self, trees: Mapping[str, tuple[int, int]]) -> ledger.Reading:
        """Return a reading; may block.

        Args:
            trees: For each instance its process and the root of what that started.
        """
        ...


class MachineReader:
    """Reads /proc, control groups and the GPUs' driver.

    Args:
        read_gpus: Returns who uses the GPUs; blocks.
        clock: For `at`.
    """

    def __init__(self, read_gpus: Callable[[], GpuReading], clock: clocks.Clock = clocks.SYSTEM) -> None:
        self._read_gpus = read_gpus
        self._clock = clock
        self._gpu_peaks: dict[tuple[str, int], dict[str, int]] = {}

    def read(self, trees: Mapping[str, tuple[int, int]]) -> ledger.Reading:
        """Return a reading; blocks for some milliseconds."""
        gpus = self._read_gpus()
        measured = usage.measure(trees, gpus)
        memory = facts.read_memory()
        total = {ledger.MEMORY: memory.total_bytes}
        free = {ledger.MEMORY: memory.available_bytes}
        for gpu in gpus.gpus:
            total[ledger.gpu(gpu.index)] = gpu.memory_total_bytes
            free[ledger.gpu(gpu.index)] = gpu.memory_free_bytes
        known = {(name, pid) for name, (pid, _) in trees.items()}
        self._gpu_peaks = {key: value for key, value in self._gpu_peaks.items() if key in known}
        return ledger.Reading(
            at=self._clock.monotonic(),
            total=total,
            free=free,
            used={name: _held(each, each.rss_bytes) for name, each in measured.items()},
            peaks={name: self._peaks(name, trees[name][0], each) for name, each in measured.items()},
            cpu_s={name: each.cpu_s for name, each in measured.items()},
            pids={name: pid for name, (pid, _) in trees.items()},
        )

    def _peaks(self, instance: str, pid: int, measured: usage.Usage) -> ledger.Amounts:
        """Return the peaks of a tree; those of GPU memory the driver does not keep, so they are kept here."""
        held = _held(measured, measured.peak_rss_bytes)
        on_gpus = {name: size for name, size in held.items() if name != ledger.MEMORY}
        if not on_gpus and (instance, pid) not in self._gpu_peaks:
            return held
        peaks = self._gpu_peaks.setdefault((instance, pid), {})
        for name, size in on_gpus.items():
            peaks[name] = max(peaks.get(name, 0), size)
        return {**held, **peaks}


def _held(measured: usage.Usage, memory_bytes: int) -> dict[str, int]:
    held = {ledger.MEMORY: memory_bytes}
    for index, size in (measured.gpu_memory_bytes or {}).items():
        held[ledger.gpu(index)] = size
    return held
