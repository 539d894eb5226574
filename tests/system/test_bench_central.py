"""`toft bench central`: its measures give their figures on a small scale; the rest is for `make bench`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from toft.bench import contenders
from toft.bench.targets import CENTRAL

# A test machine is busy; this finds what broke, `make bench` finds what got slower.
SLACK = 4.0


@pytest.fixture(scope="module")
def driver() -> Iterator[contenders.Contender]:
    argv = [sys.executable, "-m", "toft.bench.central_driver", "small"]
    with contenders.Contender("toft", argv, os.environ) as driver:
        yield driver


@pytest.mark.parametrize(
    ("measure", "keys"),
    [
        ("offers", ["agents", "offer_all_s", "central_rss_mb"]),
        ("bad_rollout", ["bad_rollout_share"]),
        ("join", ["join_s"]),
    ],
)
def test_a_measure_gives_its_figures(measure: str, keys: list[str], driver: contenders.Contender) -> None:
    found = driver.ask(measure)
    assert list(found) == keys
    if measure == "bad_rollout":
        assert 0 < found["bad_rollout_share"] <= 0.02
        return
    if os.getloadavg()[0] > 1.5 * (os.cpu_count() or 1):
        pytest.skip("the machine is too busy to tell a slow program from a waiting one")
    assert all(CENTRAL[key].met(found[key] / SLACK, None) is not False for key in keys), found
