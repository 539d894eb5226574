import io

import pytest
from rich.console import Console

from toft.bench import report
from toft.bench.targets import API, CENTRAL, JOBS, Target
from toft.bench.targets import RUNTIME as TARGETS

KEYS = [
    "call_p50_us",
    "call_p99_us",
    "call_async_p50_us",
    "calls_per_s_64",
    "stream_chunks_per_s",
    "to_worker_100mb_mb_s",
    "from_worker_100mb_mb_s",
    "cold_start_ms",
    "zygote_start_ms",
    "cancel_ms",
    "force_cancel_ms",
    "worker_rss_mb",
    "host_rss_mb",
    "host_kill_gone_s",
]
JOB_KEYS = [
    "submit_per_s_64",
    "jobs_per_s",
    "roundtrip_p50_ms",
    "roundtrip_p99_ms",
    "claim_p99_ms_1m",
    "rss_1m_mb",
    "idle_rss_mb",
    "idle_cpu_percent",
    "cancel_ms",
    "event_p99_ms",
]
API_KEYS = ["submit_http_per_s", "list_p99_ms", "event_p99_ms", "page_first_paint_ms", "sse_2k_rss_mb"]

CENTRAL_KEYS = ["agents", "offer_all_s", "central_rss_mb", "bad_rollout_share", "join_s"]


def test_the_keys_are_the_ones_scripts_rely_on() -> None:
    assert sorted(TARGETS) == sorted(KEYS)
    assert list(JOBS) == JOB_KEYS
    assert list(API) == API_KEYS
    assert list(CENTRAL) == CENTRAL_KEYS


@pytest.mark.parametrize(
    ("figure", "yardstick", "met"),
    [(40, None, True), (80, None, False), (80, 40.0, True), (80, 30.0, False), (50, 1.0, True)],
)
def test_a_slower_machine_excuses_by_its_yardstick(figure: float, yardstick: float | None, met: bool) -> None:
    assert Target("x", "ms", 60, 2.4).met(figure, yardstick) is met


def test_a_rate_has_to_be_high() -> None:
    target = Target("x", "/s", 100, 0.5, is_rate=True)
    assert [target.met(100, None), target.met(99, None), target.met(60, 120.0)] == [True, False, True]


def test_both_may_be_asked_for() -> None:
    target = Target("x", "us", 150, 2.5, needs_both=True)
    assert [target.met(100, 50.0), target.met(100, 30.0), target.met(200, 100.0)] == [True, False, False]


def test_a_figure_without_a_target_has_no_verdict() -> None:
    assert Target("x", "MB").met(1, 1) is None


def test_the_table_shows_figures_verdicts_and_what_failed() -> None:
    result = {
        "yardstick": {"cold_start_ms": 20.0},
        "toft": {"cold_start_ms": 48.0, "zygote_start_ms": 12.0},
        "peers": {"ray": {"cold_start_ms": 2800.0, "failures": ["ray, stream: [no] such thing"]}},
        "machine": {"processor": "p", "cores": 2, "system": "s", "python": "3.12", "load": 0.5},
    }
    out = io.StringIO()
    report.render(Console(file=out, width=200), result, TARGETS)
    text = out.getvalue()
    assert "2.40x" in text
    assert text.count("met") == 1
    assert text.count("missed") == 1
    assert "2,800" in text
    assert "not measured ray, stream: [no] such thing" in text
