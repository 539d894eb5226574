"""`toft bench jobs`: its quick measures give their figures; the rest is for `make bench`."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.waiting import eventually

from toft.bench import contenders
from toft.bench.targets import JOBS

# A test machine is busy; this finds what broke, `make bench` finds what got slower.
SLACK = 4.0


@pytest.fixture(scope="module")
def driver() -> Iterator[contenders.Contender]:
    with contenders.own("toft", "toft.bench.jobs_driver") as driver:
        yield driver


@pytest.mark.parametrize(
    ("measure", "keys"),
    [
        ("roundtrip", {"roundtrip_p50_ms", "roundtrip_p99_ms"}),
        ("cancel_job", {"cancel_ms"}),
        ("events", {"event_p99_ms"}),
        ("idle", {"idle_rss_mb", "idle_cpu_percent"}),
    ],
)
def test_a_measure_gives_its_figures(measure: str, keys: set[str], driver: contenders.Contender) -> None:
    found = driver.ask(measure)
    assert found.keys() == keys
    if os.getloadavg()[0] > 1.5 * (os.cpu_count() or 1):
        pytest.skip("the machine is too busy to tell a slow program from a waiting one")
    for key, figure in found.items():
        assert JOBS[key].met(figure / SLACK, None), (key, figure)


def test_the_yardstick_gives_what_can_be_compared() -> None:
    with contenders.own("yardstick", "toft.bench.jobs_yardstick") as bare:
        found = {**bare.ask("submissions"), **bare.ask("roundtrip")}
    assert found.keys() == {"submit_per_s_64", "roundtrip_p50_ms", "roundtrip_p99_ms"}


def test_a_program_stands_still_while_nobody_asks_it() -> None:
    script = "import sys\nfor line in sys.stdin: print('{}', flush=True)"
    with contenders.Contender("still", [sys.executable, "-c", script], os.environ) as asked:
        stat = Path(f"/proc/{asked._process.pid}/stat")
        for _ in range(2):
            eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
            assert asked.ask("anything") == {}
