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
from tests.command_line import CommandLine
from tests.waiting import eventually

CALLER = "8d4c1e0b7a6f49358c2d1e0f9a8b7c6d"
RUN = "1f2e3d4c5b6a79880716253443526170"
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

    def of(self, name: str, trace: str = "") -> list[Any]:
        return [each for each in self.within(trace) if each.name == name]

    def within(self, trace: str) -> list[Any]:
        return [each for each in self.spans if each.trace_id.hex().endswith(trace)]

    def parents(self, trace: str) -> dict[str, str]:
        by_id = {each.span_id: each.name for each in self.spans}
        return {each.name: by_id.get(each.parent_span_id, "") for each in self.within(trace)}


def attributes(span: Any) -> dict[str, str]:
    return {each.key: each.value.string_value for each in span.attributes}


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
    nodes.register(toft_home, "other")
    with daemons.running(toft_home, tmp_path, tracing_endpoint=collector.endpoint) as daemon:
        wish = {"plugin": "misbehaving", "action": "echo", "arguments": {"value": 1}}
        answer = daemon.request(
            "POST", "/v1/jobs", wish, {"traceparent": f"00-{PARENT_TRACE}-{PARENT_SPAN}-01"}
        )
        job = answer.value["id"]
        assert daemon.toft("job", "wait", job, "--json").status == 0
        failing = {"action": "raise_error", "arguments": {"kind": "ValueError", "message": "torn"}}
        answer = daemon.request(
            "POST",
            "/v1/instances/misbehaving/calls",
            failing,
            {"traceparent": f"00-{CALLER}-{PARENT_SPAN}-01"},
        )
        assert b"torn" in answer.body
        toft = CommandLine(toft_home, tmp_path, {"TRACEPARENT": f"00-{RUN}-{PARENT_SPAN}-01"})
        assert toft("run", "other.echo", "value=2", "--json").value["result"] == 2
    # A daemon that ends has sent what it had.
    root = eventually(lambda: collector.of("job misbehaving.echo"))[0]
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == (PARENT_TRACE, PARENT_SPAN)
    told = attributes(root)
    assert (told["toft.job"], told["toft.state"]) == (job, "completed")
    assert collector.parents(PARENT_TRACE) == {
        "job misbehaving.echo": "",
        "submit": "job misbehaving.echo",
        "queue": "job misbehaving.echo",
        "environment": "queue",
        "worker": "queue",
        "call": "job misbehaving.echo",
    }
    (queue,), (call,) = collector.of("queue", PARENT_TRACE), collector.of("call", PARENT_TRACE)
    assert root.start_time_unix_nano == queue.start_time_unix_nano
    assert queue.end_time_unix_nano == call.start_time_unix_nano
    assert call.end_time_unix_nano == root.end_time_unix_nano
    # A call that is no job: its instance was there already.
    whole = "call misbehaving.raise_error"
    assert collector.parents(CALLER) == {whole: "", "queue": whole, "call": whole}
    told = attributes(collector.of(whole, CALLER)[0])
    assert (told["toft.outcome"], told["error.type"]) == ("failed", "plugin.input")
    check_run(collector, "call other.echo")


def test_a_run_without_a_daemon_is_told_as_well(
    toft_home: Path, tmp_path: Path, collector: Collector
) -> None:
    nodes.register(toft_home)
    toft = CommandLine(toft_home, tmp_path, {"TRACEPARENT": f"00-{RUN}-{PARENT_SPAN}-01"})
    toft.settings(tracing_endpoint=collector.endpoint)
    assert toft("run", "misbehaving.echo", "value=2", "--json").value["result"] == 2
    check_run(collector, "call misbehaving.echo")


def check_run(collector: Collector, name: str) -> None:
    """Look for a call with how its instance was loaded, in the trace that the command was started in."""
    (root,) = collector.of(name, RUN)
    assert root.parent_span_id.hex() == PARENT_SPAN
    below = dict.fromkeys(("environment", "worker", "queue", "call"), name)
    assert collector.parents(RUN) == {name: "", **below}
    assert root.start_time_unix_nano == collector.of("environment", RUN)[0].start_time_unix_nano
    assert root.end_time_unix_nano == collector.of("call", RUN)[0].end_time_unix_nano
    assert attributes(root)["toft.outcome"] == "succeeded"


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
    assert node.load("misbehaving").call("echo", value=1) == 1
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
