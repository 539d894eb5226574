"""What a reading says of this machine, with a GPU that is made up."""

import os

from toft.dispatch import readings
from toft.host import process_tree
from toft.host.gpus import Gpu, GpuReading


def gpu(index: int, used: int, **by_pid: int) -> Gpu:
    return Gpu(
        index=index,
        uuid=f"GPU-{index}",
        name="made up",
        memory_total_bytes=24_000,
        memory_used_bytes=used,
        memory_free_bytes=24_000 - used,
        memory_by_pid={int(pid[1:]): size for pid, size in by_pid.items()},
    )


def test_gpu_memory_belongs_to_whoever_started_the_process_and_its_peak_is_kept() -> None:
    me, parent = os.getpid(), os.getppid()
    held = [9000]
    reader = readings.MachineReader(
        lambda: GpuReading((gpu(0, 12_000, **{f"p{me}": held[0], "p1": 3000}), gpu(1, 0)))
    )
    trees = {"mine": (me, me), "above": (parent, parent)}
    seen = reader.read(trees)
    assert seen.total["gpu0"] == 24_000
    assert seen.free["gpu0"] == 12_000
    assert seen.free["gpu1"] == 24_000
    # This process is below its parent, so what it holds is held by both trees.
    assert seen.used["mine"]["gpu0"] == 9000
    assert seen.used["above"]["gpu0"] == 9000
    assert "gpu1" not in seen.used["mine"]
    assert seen.peaks["mine"]["memory"] >= seen.used["mine"]["memory"] > 1_000_000
    assert seen.pids == {"mine": me, "above": parent}
    assert 0 < seen.free["memory"] <= seen.total["memory"]
    held[0] = 2000
    again = reader.read(trees)
    assert again.used["mine"]["gpu0"] == 2000
    assert again.peaks["mine"]["gpu0"] == 9000


def test_a_worker_that_is_gone_holds_nothing_and_its_peak_is_forgotten() -> None:
    gone = next(pid for pid in range(2**22 - 1, 1, -1) if process_tree.read(pid) is None)
    reader = readings.MachineReader(lambda: GpuReading((gpu(0, 5, **{f"p{os.getpid()}": 5}),)))
    reader.read({"a": (os.getpid(), os.getpid())})
    seen = reader.read({"a": (gone, gone)})
    assert seen.used["a"] == {"memory": 0}
    assert seen.peaks["a"] == {"memory": 0}
