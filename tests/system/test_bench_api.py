"""`toft bench api`: its measures give their figures on a small scale; the rest is for `make bench`."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from toft.bench import browser, contenders, crowd
from toft.bench.targets import API
from toft.kernel import errors

# A test machine is busy; this finds what broke, `make bench` finds what got slower.
SLACK = 4.0


@pytest.fixture(scope="module")
def driver() -> Iterator[contenders.Contender]:
    argv = [sys.executable, "-m", "toft.bench.api_driver", "small"]
    with contenders.Contender("toft", argv, os.environ) as driver:
        yield driver


@pytest.mark.parametrize(
    ("measure", "key"),
    [
        ("submissions", "submit_http_per_s"),
        ("lists", "list_p99_ms"),
        ("streams", "sse_2k_rss_mb"),
        ("events", "event_p99_ms"),
        ("page", "page_first_paint_ms"),
    ],
)
def test_a_measure_gives_its_figure(measure: str, key: str, driver: contenders.Contender) -> None:
    if measure in ("events", "page") and browser.find() is None:
        pytest.skip("chromium is not installed")
    found = driver.ask(measure)
    assert list(found) == [key]
    if os.getloadavg()[0] > 1.5 * (os.cpu_count() or 1):
        pytest.skip("the machine is too busy to tell a slow program from a waiting one")
    slack = 1 / SLACK if API[key].is_rate else SLACK
    assert API[key].met(found[key] / slack, None), found


def test_the_yardstick_gives_what_can_be_compared() -> None:
    with contenders.own("yardstick", "toft.bench.api_yardstick") as bare:
        assert list(bare.ask("submissions")) == ["submit_http_per_s"]


def test_a_crowd_is_held_to_the_rules_again_afterwards(tmp_path: Path) -> None:
    asyncio.run(crowd.fill(tmp_path, 1000))
    with pytest.raises(errors.NodeError, match="a job begins pending"):
        asyncio.run(crowd.fill(tmp_path, 1000, begins_as_it_ended=False))
