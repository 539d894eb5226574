"""`toft bench runtime`: every figure is there, and none is out of all proportion."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from toft.bench.targets import RUNTIME as TARGETS

# A test machine is busy; this finds what broke, `make bench` finds what got slower.
SLACK = 4.0
BUSY = 1.5
NOT_OF_THE_YARDSTICK = {"zygote_start_ms", "cancel_ms", "force_cancel_ms", "host_rss_mb", "host_kill_gone_s"}


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    command = [sys.executable, "-m", "toft", "bench", "runtime", "--json", "--rounds", "1"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found


@pytest.mark.timeout(300)
def test_the_parts_are_the_ones_scripts_rely_on(result: dict[str, Any]) -> None:
    assert list(result) == ["yardstick", "toft", "peers", "machine"]


def test_nothing_failed_and_every_figure_is_there(result: dict[str, Any]) -> None:
    assert result["toft"].get("failures", []) == []
    assert set(result["toft"]) == set(TARGETS)
    assert set(result["yardstick"]) == set(TARGETS) - NOT_OF_THE_YARDSTICK


@pytest.mark.parametrize("key", [key for key, target in TARGETS.items() if target.limit])
def test_no_figure_is_out_of_proportion(key: str, result: dict[str, Any]) -> None:
    if os.getloadavg()[0] > BUSY * result["machine"]["cores"]:
        pytest.skip("the machine is too busy to tell a slow program from a waiting one")
    target = TARGETS[key]
    figure = result["toft"][key] * SLACK if target.is_rate else result["toft"][key] / SLACK
    assert target.met(figure, result["yardstick"].get(key)), result["toft"][key]
