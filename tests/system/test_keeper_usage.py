"""What a worker uses is counted over everything it started, the ended included."""

import os

import pytest
from tests.leaks import leaks_checked
from tests.system.test_keeper_processes import keeper, start_with_pipe

from toft.host import gpus, isolation, process_tree, usage
from toft.host.keeper import Keeper

__all__ = ["keeper", "leaks_checked"]
pytestmark = pytest.mark.usefixtures("leaks_checked")

MIB = 1 << 20

# Two processes of 40 MiB each, a third that used processor time and has ended.
CODE = """
import os, time
if os.fork() == 0:
    end = time.process_time() + 0.3
    while time.process_time() < end: pass
    os._exit(0)
os.wait()
if os.fork() == 0:
    x = b'x' * (40 << 20)
    os.write(3, b'.')
    time.sleep(99)
x = b'x' * (80 << 20)
x = b'x' * (40 << 20)
os.write(3, b'.')
time.sleep(99)
"""


async def test_memory_processor_time_and_gpu_are_those_of_the_whole_tree(keeper: Keeper) -> None:
    process, read = await start_with_pipe(keeper, CODE, 2)
    tree = process.tree()
    held = {tree[0]: 100 * MIB, tree[1]: 50 * MIB, os.getpid(): 7 * MIB}
    gpu = gpus.Gpu(0, "GPU-0", "A card", 1 << 30, 1 << 29, 1 << 29, memory_by_pid=held)
    roots = {"it": (process.pid, process.root), "gone": (1 << 22, 1 << 22)}
    measured = usage.measure(roots, gpus.GpuReading((gpu,)))
    it = measured["it"]
    assert list(it.pids) == tree
    assert 80 * MIB < it.rss_bytes < 130 * MIB
    assert it.peak_rss_bytes > 120 * MIB
    assert it.cpu_s >= 0.3
    assert it.gpu_memory_bytes == {0: 150 * MIB}
    assert measured["gone"] == usage.Usage(gpu_memory_bytes={})
    assert usage.cpu_percent(measured["gone"], it, 1.0) >= 30
    await process.end()
    os.close(read)


async def test_the_report_is_made_by_doing_it() -> None:
    looks = (
        isolation.separation,
        isolation.signals_and_sockets,
        isolation.limit_mechanisms,
        isolation.graphics,
    )
    report = {entry["check"]: entry for entry in [await look() for look in looks]}
    assert set(report) == {"isolation", "landlock", "limits", "gpu"}
    for entry in report.values():
        assert entry["evidence"]
        assert entry["ok"] or entry["next"]


async def test_a_process_may_call_itself_anything(keeper: Keeper) -> None:
    code = "import ctypes, os, time; ctypes.CDLL(None).prctl(15, b') S 1 (\\n)', 0, 0, 0)"
    process, read = await start_with_pipe(keeper, f"{code}; os.write(3, b'.'); time.sleep(99)", 1)
    stat = process_tree.read(process.pid)
    assert stat is not None
    assert (stat.pid, stat.session) == (process.pid, process.pid)
    assert process.tree() == [process.pid]
    assert abs(process.started - stat.started_ticks / os.sysconf("SC_CLK_TCK")) < 0.001
    await process.end()
    os.close(read)
