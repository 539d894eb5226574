"""The seam of the system monitor, and the one that is built in.

A monitor answers two questions in the shape its plugins have always had: how the machine is, and which
processes use a GPU. Sizes here are megabytes, because that shape is other people's.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Protocol

from toft.host import facts
from toft.host.gpus import Gpu, GpuReader

_MB = 1024 * 1024


class Monitor(Protocol):
    """What a system monitor answers, whether built in or a plugin."""

    async def get_system_status(self) -> dict[str, Any]:
        """Return processor, memory and GPU figures of the machine; GPU fields are None without one."""
        ...

    async def list_processes(self) -> list[dict[str, Any]]:
        """Return the processes that hold GPU memory."""
        ...


class BuiltInMonitor:
    """Reads the kernel and NVML.

    Args:
        gpu_reader: From `gpus.open_reader`; closed by whoever opened it.
        stat: Where the kernel counts processor time.
    """

    def __init__(self, gpu_reader: GpuReader, stat: Path = Path("/proc/stat")) -> None:
        self._gpu_reader = gpu_reader
        self._processor = Processor(stat)

    async def get_system_status(self) -> dict[str, Any]:
        """Return the figures of the whole machine; `cpu_percent` is since the last call."""
        return await asyncio.to_thread(self._read_status)

    async def list_processes(self) -> list[dict[str, Any]]:
        """Return one entry for each process on each GPU."""
        reading = await asyncio.to_thread(self._gpu_reader.read)
        return [
            {"pid": pid, "gpu_index": gpu.index, "gpu_uuid": gpu.uuid, "gpu_memory_mb": used / _MB}
            for gpu in reading.gpus
            for pid, used in sorted(gpu.memory_by_pid.items())
        ]

    def _read_status(self) -> dict[str, Any]:
        memory = facts.read_memory()
        reading = self._gpu_reader.read()
        return {
            "cpu_percent": self._processor.read(),
            "cpu_count": facts.read_cores(),
            "memory_used_mb": memory.used_bytes / _MB,
            "memory_total_mb": memory.total_bytes / _MB,
            "memory_available_mb": memory.available_bytes / _MB,
            **_gpu_totals(reading.gpus),
            "gpu_reason": reading.reason,
        }


class Processor:
    """How busy the processors are.

    Args:
        stat: Where the kernel counts their time.
    """

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self._stat = stat
        self._before = _processor_ticks(stat)

    def read(self) -> float | None:
        """Return the share of time not spent idle since the last call; None when no time has passed."""
        busy, total = _processor_ticks(self._stat)
        busy_before, total_before = self._before
        if total == total_before:
            return None
        self._before = (busy, total)
        return round((busy - busy_before) / (total - total_before) * 100, 1)


def _gpu_totals(gpus: tuple[Gpu, ...]) -> dict[str, Any]:
    if not gpus:
        names = ("gpu_type", "gpu_count", "gpu_total_memory_mb", "gpu_used_memory_mb", "gpu_free_memory_mb")
        return dict.fromkeys((*names, "gpu_load_percent", "gpus"))
    loads = [gpu.load_percent for gpu in gpus if gpu.load_percent is not None]
    return {
        "gpu_type": gpus[0].name,
        "gpu_count": len(gpus),
        "gpu_total_memory_mb": sum(gpu.memory_total_bytes for gpu in gpus) / _MB,
        "gpu_used_memory_mb": sum(gpu.memory_used_bytes for gpu in gpus) / _MB,
        "gpu_free_memory_mb": sum(gpu.memory_free_bytes for gpu in gpus) / _MB,
        "gpu_load_percent": sum(loads) / len(loads) if loads else None,
        "gpus": [
            {
                "index": gpu.index,
                "name": gpu.name,
                "uuid": gpu.uuid,
                "total_memory_mb": gpu.memory_total_bytes / _MB,
                "used_memory_mb": gpu.memory_used_bytes / _MB,
                "free_memory_mb": gpu.memory_free_bytes / _MB,
                "load_percent": gpu.load_percent,
            }
            for gpu in gpus
        ],
    }


def _processor_ticks(stat: Path) -> tuple[int, int]:
    """Return (busy, total) ticks of all processors since boot."""
    values = [int(value) for value in stat.read_text().split("\n", 1)[0].split()[1:9]]
    idle = values[3] + values[4]
    return sum(values) - idle, sum(values)
