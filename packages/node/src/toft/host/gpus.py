"""What the GPUs of this machine have and who uses their memory, by NVML where its driver is installed."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

_DRIVER = "libnvidia-ml.so.1"


@dataclass(frozen=True)
class Gpu:
    """One GPU at one moment; None is what the driver does not tell.

    Attributes:
        memory_by_pid: Bytes each process holds, by its pid in the machine's own PID namespace.
    """

    index: int
    uuid: str
    name: str
    memory_total_bytes: int
    memory_used_bytes: int
    memory_free_bytes: int
    load_percent: float | None = None
    memory_by_pid: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class GpuReading:
    """All GPUs at one moment.

    Attributes:
        reason: Why there are none; empty when there are.
    """

    gpus: tuple[Gpu, ...] = ()
    reason: str = ""


class GpuReader(Protocol):
    """Where GPU figures come from."""

    def read(self) -> GpuReading:
        """Return what every GPU shows now. May take some milliseconds: not for an event loop."""
        ...

    def close(self) -> None:
        """Let go of the driver."""
        ...


class NoGpus:
    """A machine without GPUs."""

    def __init__(self, reason: str = "no GPU is looked for") -> None:
        self._reason = reason

    def read(self) -> GpuReading:
        """Return none, and why."""
        return GpuReading(reason=self._reason)

    def close(self) -> None:
        """There is nothing to let go of."""


class NvmlReader:
    """NVIDIA GPUs through the driver's own library.

    Args:
        nvml: The `pynvml` module, or something that answers like it.
    """

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml

    def read(self) -> GpuReading:
        """Return what every GPU shows now; one that has fallen off the bus is left out, and named."""
        nvml = self._nvml
        found, lost = [], []
        try:
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as error:
            return GpuReading(reason=f"the driver does not answer: {error}")
        for index in range(count):
            try:
                found.append(self._read_one(index, nvml.nvmlDeviceGetHandleByIndex(index)))
            except nvml.NVMLError as error:
                lost.append(f"GPU {index}: {error}")
        return GpuReading(tuple(found), "; ".join(lost) or ("" if found else "the driver lists no GPU"))

    def close(self) -> None:
        """Let go of the driver."""
        with contextlib.suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()

    def _read_one(self, index: int, handle: Any) -> Gpu:
        nvml = self._nvml
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        load = None
        with contextlib.suppress(nvml.NVMLError):  # parts of a divided GPU do not tell
            load = float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        return Gpu(
            index=index,
            uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
            name=_text(nvml.nvmlDeviceGetName(handle)),
            memory_total_bytes=memory.total,
            memory_used_bytes=memory.used,
            memory_free_bytes=memory.free,
            load_percent=load,
            memory_by_pid=self._memory_by_pid(handle),
        )

    def _memory_by_pid(self, handle: Any) -> dict[int, int]:
        nvml = self._nvml
        by_pid: dict[int, int] = {}
        for list_processes in (
            nvml.nvmlDeviceGetComputeRunningProcesses,
            nvml.nvmlDeviceGetGraphicsRunningProcesses,
        ):
            with contextlib.suppress(nvml.NVMLError):
                for process in list_processes(handle):
                    # A process that computes and draws is in both lists with the same figure.
                    by_pid[process.pid] = max(by_pid.get(process.pid, 0), process.usedGpuMemory or 0)
        return by_pid


def open_reader() -> GpuReader:
    """Return a reader for this machine; one that tells why when it has no driver. Blocks while it loads."""
    try:
        # Most machines have none, and the module below takes 14 MB of an idle daemon to find that out.
        ctypes.CDLL(_DRIVER)
    except OSError:
        return NoGpus(f"no NVIDIA driver answers: {_DRIVER} is not here")
    import pynvml  # noqa: PLC0415 - takes 60 ms, which no command without a worker should pay

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return NoGpus(f"no NVIDIA driver answers: {error}")
    return NvmlReader(pynvml)


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
