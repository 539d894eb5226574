"""Traces of jobs at a real collector; and nothing of OpenTelemetry where nobody asked for it."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import daemons, nodes
from tests.waiting import eventually

PARENT_TRACE, PARENT_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector:
    """Takes OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        received = self.spans

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = messages.ExportTraceServiceRequest()
                request.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
                for resource in request.resource_spans:
                    for scope in resource.scope_spans:
                        received.extend(scope.spans)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        messages = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}/v1/traces"

    def of(self, name: str) -> list[Any]:
        return [each for each in self.spans if each.name == name]


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    thread = threading.Thread(target=found.server.serve_forever)
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


def test_a_job_that_comes_with_a_trace_is_told_to_the_collector(
    toft_home: Path, tmp_path: Path, collector: Collector
) -> None:
    nodes.register(toft_home)
    with daemons.running(toft_home, tmp_path, tracing_endpoint=collector.endpoint) as daemon:
        wish = {"plugin": "misbehaving", "action": "echo", "arguments": {"value": 1}}
        answer = daemon.request(
            "POST", "/v1/jobs", wish, {"traceparent": f"00-{PARENT_TRACE}-{PARENT_SPAN}-01"}
        )
        job = answer.value["id"]
        assert daemon.toft("job", "wait", job, "--json").status == 0
        assert daemon.toft("run", "misbehaving.echo", "value=2", "--json").status == 0
    # A daemon that ends has sent what it had.
    root = eventually(lambda: collector.of("job misbehaving.echo"))[0]
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == (PARENT_TRACE, PARENT_SPAN)
    told = {each.key: each.value.string_value for each in root.attributes}
    assert (told["toft.job"], told["toft.state"]) == (job, "completed")
    by_id = {each.span_id: each for each in collector.spans}
    parents = {each.name: by_id[each.parent_span_id].name for each in collector.spans if each is not root}
    assert parents == {
        "submit": "job misbehaving.echo",
        "queue": "job misbehaving.echo",
        "environment": "queue",
        "worker": "queue",
        "call": "job misbehaving.echo",
    }
    queue, call = collector.of("queue")[0], collector.of("call")[0]
    assert root.start_time_unix_nano == queue.start_time_unix_nano
    assert queue.end_time_unix_nano == call.start_time_unix_nano
    assert call.end_time_unix_nano == root.end_time_unix_nano


def test_a_collector_that_is_not_there_holds_nobody_up(toft_home: Path, tmp_path: Path) -> None:
    nodes.register(toft_home)
    with daemons.running(toft_home, tmp_path, tracing_endpoint="http://127.0.0.1:9/v1/traces") as daemon:
        done = daemon.toft("job", "submit", "misbehaving.echo", "value=1", "--wait", "--json")
        assert done.value["state"] == "completed"


def test_without_the_setting_nothing_of_opentelemetry_is_imported(toft_home: Path, tmp_path: Path) -> None:
    nodes.register(toft_home)
    code = """
import sys, toft
with toft.connect() as node:
    assert node.jobs.submit("misbehaving", {"value": 1}, action="echo").result(30) == 1
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
