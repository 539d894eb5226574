"""What the machine has, read from trees of ordinary files and from a driver that answers as we like."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from toft.host import facts, gpus, monitor

GIB = 1 << 30
MEMINFO = "MemTotal:       8388608 kB\nMemFree: 100 kB\nMemAvailable:   4194304 kB\nSwapFree: 1024 kB\n"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_memory_is_what_can_be_had_without_swapping(tmp_path: Path) -> None:
    memory = facts.read_memory(write(tmp_path, {"proc/meminfo": MEMINFO}))
    assert (memory.total_bytes, memory.available_bytes) == (8 * GIB, 4 * GIB)
    assert memory.used_bytes == 4 * GIB


@pytest.mark.parametrize(
    "files",
    [
        {
            "sys/fs/cgroup/memory.max": f"{2 * GIB}\n",
            "sys/fs/cgroup/memory.current": f"{GIB}\n",
            "sys/fs/cgroup/memory.stat": f"anon 5\ninactive_file {GIB // 2}\n",
        },
        {
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GIB}\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}\n",
            "sys/fs/cgroup/memory/memory.stat": f"cache 5\ntotal_inactive_file {GIB // 2}\n",
        },
    ],
    ids=["version 2", "version 1"],
)
def test_a_container_has_no_more_memory_than_its_control_group(tmp_path: Path, files: dict[str, str]) -> None:
    memory = facts.read_memory(write(tmp_path, {"proc/meminfo": MEMINFO, **files}))
    assert memory.total_bytes == 2 * GIB
    assert memory.available_bytes == 2 * GIB - GIB // 2


@pytest.mark.parametrize("unlimited", ["max\n", "9223372036854771712\n"])
def test_an_unlimited_group_limits_nothing(tmp_path: Path, unlimited: str) -> None:
    files = {"proc/meminfo": MEMINFO, "sys/fs/cgroup/memory.max": unlimited}
    assert facts.read_memory(write(tmp_path, files)).total_bytes == 8 * GIB


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        (
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        (
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
            None,
        ),
        ({}, None),
    ],
)
def test_cores_respect_the_quota(tmp_path: Path, files: dict[str, str], cores: int | None) -> None:
    unlimited = facts.read_cores(tmp_path / "empty")
    assert facts.read_cores(write(tmp_path, files)) == (cores or unlimited)


class NvmlError(Exception):
    pass


class Driver:
    """Answers like pynvml: two GPUs, of which the second may be lost."""

    NVMLError = NvmlError

    def __init__(self, *, second_is_lost: bool = False, load_is_known: bool = True) -> None:
        self._second_is_lost = second_is_lost
        self._load_is_known = load_is_known
        self.is_open = True

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index == 1 and self._second_is_lost:
            raise NvmlError("GPU is lost")
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(total=24 * GIB, used=3 * GIB, free=21 * GIB)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        if not self._load_is_known:
            raise NvmlError("not supported")
        return SimpleNamespace(gpu=40 + handle * 20)

    def nvmlDeviceGetUUID(self, handle: int) -> bytes:
        return b"GPU-%d" % handle

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "A card"

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        return [SimpleNamespace(pid=11, usedGpuMemory=GIB), SimpleNamespace(pid=12, usedGpuMemory=None)]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: int) -> list[Any]:
        return [SimpleNamespace(pid=11, usedGpuMemory=GIB), SimpleNamespace(pid=13, usedGpuMemory=2 * GIB)]

    def nvmlShutdown(self) -> None:
        self.is_open = False


def test_gpu_memory_is_told_by_process_and_counted_once() -> None:
    reading = gpus.NvmlReader(Driver()).read()
    assert [(gpu.index, gpu.uuid, gpu.load_percent) for gpu in reading.gpus] == [
        (0, "GPU-0", 40),
        (1, "GPU-1", 60),
    ]
    assert reading.gpus[0].memory_by_pid == {11: GIB, 12: 0, 13: 2 * GIB}
    assert reading.reason == ""


def test_a_lost_gpu_does_not_hide_the_others() -> None:
    reading = gpus.NvmlReader(Driver(second_is_lost=True, load_is_known=False)).read()
    assert [gpu.index for gpu in reading.gpus] == [0]
    assert reading.gpus[0].load_percent is None
    assert reading.reason == "GPU 1: GPU is lost"


def test_the_driver_is_let_go() -> None:
    driver = Driver()
    gpus.NvmlReader(driver).close()
    assert not driver.is_open


async def test_the_monitor_answers_in_megabytes(tmp_path: Path) -> None:
    stat = write(tmp_path, {"stat": "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1\n"}) / "stat"
    built_in = monitor.BuiltInMonitor(gpus.NvmlReader(Driver()), stat)
    stat.write_text("cpu  150 0 125 750 100 0 0 0 0 0\n")
    status = await built_in.get_system_status()
    assert status["cpu_percent"] == 60.0
    assert status["memory_total_mb"] == pytest.approx(
        status["memory_used_mb"] + status["memory_available_mb"]
    )
    assert (status["gpu_type"], status["gpu_total_memory_mb"], status["gpu_load_percent"]) == (
        "A card",
        49152,
        50,
    )
    processes = await built_in.list_processes()
    assert processes[0] == {"pid": 11, "gpu_index": 0, "gpu_uuid": "GPU-0", "gpu_memory_mb": 1024}
    assert len(processes) == 6


async def test_without_a_gpu_its_fields_are_none_and_a_reason_is_given() -> None:
    built_in = monitor.BuiltInMonitor(gpus.NoGpus("no driver"))
    status = await built_in.get_system_status()
    assert {value for name, value in status.items() if name.startswith("gpu_") and name != "gpu_reason"} == {
        None
    }
    assert status["gpu_reason"] == "no driver"
    assert await built_in.list_processes() == []
