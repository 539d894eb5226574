"""The routes beside those of jobs, asked as a person with curl would, of a real daemon."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests import daemons, nodes
from tests.daemons import Daemon
from tests.waiting import eventually

from toft.kernel.clock import SYSTEM
from toft.secrets.file_store import FileSecretStore

_SCHEMA = {
    "type": "object",
    "properties": {
        "quality": {"type": "integer", "minimum": 1, "maximum": 100, "default": 80},
        "mode": {"type": "string", "enum": ["fast", "fine"]},
    },
    "required": ["mode"],
}
_WORKER_ENV = [
    {"name": "API_KEY", "secret": True, "required": True, "label": "Key"},
    {"name": "REGION", "secret": False, "required": False, "default": "eu"},
]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("routes")
    home = directory / "home"
    nodes.register(home)
    nodes.register(home, "painter", config_schema=_SCHEMA, config_defaults={}, worker_env=_WORKER_ENV)
    secrets = FileSecretStore(home / "secrets")
    secrets.set("painter", "LEFT_OVER", "swordfish")
    secrets.set("gone", "OLD", "swordfish")
    with daemons.running(home, directory) as daemon:
        yield daemon


def code_of(answer: daemons.Answer) -> tuple[int, str]:
    return answer.status, answer.value["code"]


# Configuration


def test_a_schema_comes_with_what_is_remembered_and_what_is_wrong_with_it(daemon: Daemon) -> None:
    told = daemon.request("GET", "/v1/plugins/painter/config/schema?instance=fresh").value
    assert told["schema"]["properties"]["quality"]["maximum"] == 100
    assert (told["instance"], told["given"], told["loaded"], told["enabled"]) == ("fresh", {}, False, True)
    assert told["config"] is None
    assert "mode" in str(told["problems"])
    changed = daemon.request("POST", "/v1/plugins/painter/config", {"changes": {"mode": "fine"}})
    assert changed.value == {"mode": "fine", "quality": 80}
    told = daemon.request("GET", "/v1/plugins/painter/config/schema").value
    assert (told["given"], told["config"]) == ({"mode": "fine"}, {"mode": "fine", "quality": 80})
    assert told["problems"] == {}


def test_a_change_is_checked_without_being_made(daemon: Daemon) -> None:
    route = "/v1/plugins/painter/config/validate"
    good = daemon.request(
        "POST", route, {"changes": {"mode": "fast", "quality": 5}, "instance": "tried"}
    ).value
    assert good == {"valid": True, "config": {"mode": "fast", "quality": 5}, "problems": {}, "message": ""}
    bad = daemon.request("POST", route, {"changes": {"quality": 500, "colour": 1}, "replace": True})
    assert (bad.status, bad.value["valid"], bad.value["config"]) == (200, False, None)
    assert {"quality", "colour", "mode"} <= set(bad.value["problems"])
    remembered = daemon.request("GET", "/v1/plugins/painter/config/schema?instance=tried").value
    assert remembered["given"] == {}


def test_what_a_setting_can_be_is_asked_of_what_is_loaded(daemon: Daemon) -> None:
    route = "/v1/plugins/misbehaving/config/options"
    assert daemon.request("GET", f"{route}?instance=apart").value["loaded"] is False
    assert daemon.request("POST", "/v1/instances", {"plugin": "misbehaving"}).status == 200
    told = daemon.request("GET", route).value
    assert (told["loaded"], type(told["options"])) == (True, dict)
    other = daemon.request("GET", "/v1/plugins/painter/config/options?instance=misbehaving")
    assert code_of(other) == (404, "instance.not_found")


@pytest.mark.parametrize("what", ["schema", "options", "validate"])
def test_a_plugin_that_is_not_there_is_not_found(daemon: Daemon, what: str) -> None:
    method, body = ("POST", {"changes": {}}) if what == "validate" else ("GET", None)
    for name in ("absent", "..%2f..%2fetc", "%00", "A" * 300):
        answer = daemon.request(method, f"/v1/plugins/{name}/config/{what}", body)
        assert answer.status in (400, 404), answer.body


@pytest.mark.parametrize("what", ["config", "logs", "config/schema", "config/options"])
def test_the_route_of_one_plugin_shows_nothing_of_another(daemon: Daemon, what: str) -> None:
    for plugin, other in (("painter", "misbehaving"), ("misbehaving", "painter")):
        answer = daemon.request("GET", f"/v1/plugins/{plugin}/{what}?instance={other}")
        assert (answer.status, answer.value["code"]) == (404, "instance.not_found")
    changed = daemon.request(
        "POST", "/v1/plugins/misbehaving/config", {"changes": {"mode": "fast"}, "instance": "painter"}
    )
    assert changed.status == 404


# Secrets


def test_secrets_are_told_by_name_and_state_and_never_by_value(daemon: Daemon) -> None:
    rows = daemon.request("GET", "/v1/plugins/painter/secrets")
    by_key = {each["key"]: each for each in rows.value}
    assert list(by_key) == ["API_KEY", "REGION", "LEFT_OVER"]
    assert by_key["API_KEY"]["satisfied"] is by_key["API_KEY"]["stored"] is False
    assert (by_key["REGION"]["satisfied"], by_key["REGION"]["secret"]) == (True, False)
    assert (by_key["LEFT_OVER"]["declared"], by_key["LEFT_OVER"]["stored"]) == (False, True)
    everything = daemon.request("GET", "/v1/secrets")
    assert {(each["plugin"], each["key"]) for each in everything.value} >= {
        ("gone", "OLD"),
        ("painter", "REGION"),
    }
    assert b"swordfish" not in rows.body + everything.body


def test_a_secret_is_removed_for_good(daemon: Daemon) -> None:
    route = "/v1/plugins/painter/secrets/API_KEY"
    assert daemon.request("PUT", route, {"value": "marlin-5"}).status == 200
    assert daemon.request("GET", "/v1/plugins/painter/secrets").value[0]["satisfied"] is True
    assert daemon.request("DELETE", route).value == {"removed": True}
    assert code_of(daemon.request("DELETE", route)) == (404, "secret.not_found")
    assert daemon.request("GET", "/v1/plugins/painter/secrets").value[0]["stored"] is False
    assert daemon.request("GET", "/v1/plugins/absent/secrets").status == 404


# Environments


def test_an_environment_that_is_not_there_is_not_found(daemon: Daemon) -> None:
    assert daemon.request("GET", "/v1/environments").value == []
    for name in ("0" * 32, "..", "%00", "x"):
        for method in ("GET", "DELETE"):
            assert code_of(daemon.request(method, f"/v1/environments/{name}")) == (
                404,
                "environment.not_found",
            )
    assert daemon.request("POST", "/v1/environments/collect").value == {"removed": [], "freed_bytes": 0}


# Samples


def test_samples_show_what_ran_and_what_a_job_took(daemon: Daemon) -> None:
    began = SYSTEM.now()
    body = {"plugin": "misbehaving", "arguments": {"do": "work", "seconds": 3}}
    job = daemon.request("POST", "/v1/jobs", body).value["id"]
    assert daemon.request("GET", f"/v1/jobs/{job}/wait").value["state"] == "completed"

    def taken() -> Any:
        told = daemon.request("GET", f"/v1/samples?from={began - 1}&step_s=0.1").value
        return told if told["series"]["queue_running"][-1:] == [0] else None

    told = eventually(taken, within_s=15)
    assert {len(column) for column in told["series"].values()} == {len(told["at"])}
    assert max(told["series"]["queue_running"]) == 1
    assert max(told["series"]["lanes_busy"]) == 1
    assert min(told["series"]["memory_total_bytes"]) > 100_000_000
    measured = daemon.request("GET", f"/v1/jobs/{job}/samples").value
    assert measured["job"] == job
    assert len(measured["at"]) == len(measured["series"]["memory_bytes"])
    assert all(size > 1_000_000 for size in measured["series"]["memory_bytes"])


@pytest.mark.parametrize(
    "query", ["from=x", "to=-1", "step_s=0", "step_s=nan", "from=0&step_s=0.001", "from=9e99"]
)
def test_a_time_that_cannot_be_is_refused(daemon: Daemon, query: str) -> None:
    assert daemon.request("GET", f"/v1/samples?{query}").status == 400
    assert daemon.request("GET", "/v1/jobs/absent/samples").status == 404


# Results


@pytest.fixture(scope="module")
def large(daemon: Daemon) -> tuple[str, bytes]:
    """The route of a result of some megabytes, and all of it."""
    body = {"plugin": "misbehaving", "arguments": {"do": "huge", "size_bytes": 3_000_000}}
    job = daemon.request("POST", "/v1/jobs", body).value["id"]
    assert daemon.request("GET", f"/v1/jobs/{job}/wait").value["state"] == "completed"
    route = f"/v1/jobs/{job}/result"
    answer = daemon.request("GET", route)
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.body).hexdigest()}"'
    assert len(answer.body) > 3_000_000
    return route, answer.body


def test_a_download_that_broke_off_goes_on_where_it_was(daemon: Daemon, large: tuple[str, bytes]) -> None:
    route, whole = large
    with daemon.connect() as sock:
        sock.sendall(f"GET {route} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        came = b""
        while len(came) < 1_000_000:
            came += sock.recv(65536)
    head, _, body = came.partition(b"\r\n\r\n")
    tag = re.search(rb'etag: ("\w+")', head)
    assert tag
    rest = daemon.request("GET", route, headers={"Range": f"bytes={len(body)}-", "If-Range": tag[1].decode()})
    assert rest.status == 206
    assert rest.headers["content-range"] == f"bytes {len(body)}-{len(whole) - 1}/{len(whole)}"
    assert body + rest.body == whole
    changed = daemon.request("GET", route, headers={"Range": "bytes=5-", "If-Range": '"another"'})
    assert (changed.status, changed.body) == (200, whole)


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-0", 206, slice(0, 1)),
        ("bytes=-7", 206, slice(-7, None)),
        ("bytes=2-9999999999", 206, slice(2, None)),
        ("bytes=-9999999999", 206, slice(None)),
        ("bytes=9999999-", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=5-2", 200, slice(None)),
        ("bytes=" + ",".join(f"{each}-{each}" for each in range(500)), 200, slice(None)),
        ("bytes=" + "9" * 5000 + "-", 200, slice(None)),
        ("lines=1-2", 200, slice(None)),
        ("bytes=a-b", 200, slice(None)),
    ],
)
def test_pieces_are_what_was_asked_for(
    daemon: Daemon, large: tuple[str, bytes], asked: str, status: int, part: slice | None
) -> None:
    route, whole = large
    answer = daemon.request("GET", route, headers={"Range": asked})
    assert answer.status == status
    if part is None:
        assert answer.headers["content-range"] == f"bytes */{len(whole)}"
        assert answer.value["code"] == "request.range"
    else:
        assert answer.body == whole[part]


def test_a_small_result_has_a_tag_and_a_head_too(daemon: Daemon, large: tuple[str, bytes]) -> None:
    job = daemon.request("POST", "/v1/jobs", {"plugin": "misbehaving", "arguments": {"value": [1, 2]}}).value[
        "id"
    ]
    daemon.request("GET", f"/v1/jobs/{job}/wait")
    for route, size in ((f"/v1/jobs/{job}/result", None), (large[0], len(large[1]))):
        full = daemon.request("GET", route)
        head = daemon.request("HEAD", route)
        assert (head.status, head.body, head.headers["etag"]) == (200, b"", full.headers["etag"])
        assert int(head.headers["content-length"]) == len(full.body) == (size or len(full.body))
        again = daemon.request("GET", route, headers={"If-None-Match": f'"x", {full.headers["etag"]}'})
        assert (again.status, again.body) == (304, b"")
    assert daemon.request("GET", f"/v1/jobs/{job}/result", headers={"Range": "bytes=0-1"}).body == b"[1"
    assert daemon.request("HEAD", "/v1/jobs/absent/result").status == 404


# Metrics


def test_metrics_are_what_prometheus_reads_and_count_what_happened(daemon: Daemon) -> None:
    job = daemon.request(
        "POST", "/v1/jobs", {"plugin": "misbehaving", "arguments": {"do": "raise_error"}}
    ).value
    daemon.request("GET", f"/v1/jobs/{job['id']}/wait")
    answer = daemon.request("GET", "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }
    assert found["toft_jobs_ended_total", "misbehaving", "failed"] >= 1
    assert found["toft_attempt_duration_seconds_count", "misbehaving"] >= 1
    assert found["toft_attempt_duration_seconds_bucket", "+Inf", "misbehaving"] >= 1
    assert found["toft_jobs", "failed"] >= 1
    assert found["toft_ready",] == found["toft_health_check", "disk"] == 1
    assert found["toft_memory_total_bytes",] > found["toft_memory_available_bytes",] > 0
    assert found["process_resident_memory_bytes",] > 10_000_000
    assert found["toft_lanes",] >= 1
    assert found["toft_http_requests_total", "POST", "/v1/jobs", "2xx"] >= 1
    assert found["toft_http_request_duration_seconds_count", "POST", "/v1/jobs"] >= 1
    assert found["toft_config_phase", "idle"] == 1
    assert found["toft_config_poll_failures",] == 0
    waited = found["toft_http_request_duration_seconds_sum", "GET", "/v1/jobs/{id}/wait"]
    assert 0 < waited < 60


def test_the_alerts_and_the_dashboard_ask_for_what_there_is(daemon: Daemon) -> None:
    told = daemon.request("GET", "/metrics").body.decode()
    for page in ("alerts.yaml", "dashboard.json"):
        text = (Path(__file__).parents[2] / "docs" / "monitoring" / page).read_text()
        names = set(re.findall(r"\btoft_[a-z_]+\b", text))
        assert names
        assert [name for name in sorted(names) if name not in told] == []
