"""Whatever the description allows, and much that it does not, is answered as the description says.

Generated requests go to a real daemon that is well: nothing is answered with a 5xx, every status is declared,
and every answer has the shape that is declared for it.
"""

from __future__ import annotations

import collections
import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from tests import daemons, http_proxy, nodes
from tests.daemons import Daemon
from tests.waiting import eventually

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import requests
    import schemathesis
    from schemathesis import GenerationMode
    from schemathesis.core.failures import FailureGroup
    from schemathesis.specs.openapi import checks

CHECKED_IN = Path(__file__).parents[2] / "docs" / "reference" / "openapi.json"
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
# Answers that last: their beginning is read, and then their reader goes away.
LASTING = {"session.open", "event.watch", "call.begin"}
# What builds environments, or looks what is needed for one: a second each.
BUILDING = {"plugin.add", "plugin.refresh", "plugin.check", "environment.size"}
# What would take away what the others are tried on, or may last as long as nobody does anything.
ENDING = {"instance.unload", "plugin.remove", "job.wait", "job.result"}
# What is tried in one go; so many requests take a busy machine longer than one test may last.
PARTS = {
    "work": {"job", "sequence", "event", "artifact"},
    "code": {"plugin", "environment", "instance", "call", "session"},
}


@pytest.fixture
def daemon(toft_home: Path, tmp_path: Path) -> Iterator[Daemon]:
    nodes.register(toft_home)
    with daemons.running(toft_home, tmp_path, request_bytes=1_000_000) as running:
        yield running


Known = dict[str, list[dict[str, str]]]
Seen = dict[str, collections.Counter[tuple[int, str]]]


@pytest.mark.parametrize("part", [*PARTS, "the rest"])
def test_nothing_that_is_sent_is_answered_otherwise_than_described(daemon: Daemon, part: str) -> None:
    seen: Seen = collections.defaultdict(collections.Counter)
    wrong: list[str] = []
    tried: set[str] = set()
    with http_proxy.before(daemon.connect) as address, requests.Session() as session:
        known = populate(address, session)
        described = session.get(f"{address}/v1/openapi.json").json()
        assert described == json.loads(CHECKED_IN.read_text())
        schema = schemathesis.openapi.from_dict(described)
        schema.config.update(base_url=address)
        for found in schema.get_all_operations():
            operation = found.ok()
            name = operation.definition.raw["operationId"]
            if part_of(operation) != part:
                continue
            tried.add(name)
            for mode in MODES:
                wrong += fuzz(operation, mode, session, seen)
            for path in known.get(room(operation), ()) if name not in ENDING else ():
                wrong += fuzz(operation, GenerationMode.POSITIVE, session, seen, path_parameters=path)
    assert "\n".join(wrong) == ""
    assert {each.partition(".")[0] for each in tried} >= PARTS.get(part, {"node"})
    for name in LASTING & tried:
        assert seen[name][200, ""], (name, seen[name])
    # Whoever went away took along what was theirs.
    eventually(lambda: "\ntoft_calls_running 0.0\n" in daemon.request("GET", "/metrics").body.decode())
    assert daemon.status()["state"] == "ready"
    assert "request_failed" not in daemon.log()


def room(operation: Any) -> str:
    return str(operation.definition.raw["operationId"]).partition(".")[0]


def part_of(operation: Any) -> str:
    return next((name for name, rooms in PARTS.items() if room(operation) in rooms), "the rest")


def populate(address: str, session: requests.Session) -> Known:
    """Give the node something of everything, and return what it is called in paths."""

    def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = session.post(f"{address}{path}", json=body)
        assert answer.ok, answer.text
        return dict(answer.json())

    jobs = [
        post("/v1/jobs", {"plugin": "misbehaving", **more})["id"]
        for more in (
            {"action": "echo", "arguments": {"value": 1}},
            {"action": "raise_error"},
            {"delay_s": 3600},
        )
    ]
    for each in jobs[:2]:
        session.get(f"{address}/v1/jobs/{each}/wait?timeout_s=30")
    graph = post("/v1/sequences", {"steps": [{"plugin": "misbehaving", "action": "echo"}]})["id"]
    post("/v1/instances", {"plugin": "misbehaving"})
    return {
        "job": [{"id": each} for each in jobs],
        "sequence": [{"id": graph}],
        "plugin": [{"name": "misbehaving"}],
        "instance": [{"name": "misbehaving"}],
        "call": [{"name": "misbehaving", "number": "1"}],
        "secret": [{"name": "misbehaving", "key": "TOKEN"}],
    }


def fuzz(
    operation: Any, mode: GenerationMode, session: requests.Session, seen: Seen, **given_parts: Any
) -> list[str]:
    """Send some requests of one kind, and return what is wrong with the answers."""
    name = operation.definition.raw["operationId"]

    @settings(
        max_examples=3 if name in BUILDING else 10,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode, **given_parts))
    def ask(case: Any) -> None:
        if name == "call.begin" and given_parts and isinstance(case.body, dict):
            # Something that there is, for so long and with so much to tell as the case says.
            case.body = {**case.body, "action": "chunks", "arguments": {"count": 3}}
        if name in LASTING:
            seen[name][beginning(case, session)] += 1
            return
        answer = case.call(session=session, timeout=20)
        seen[name][answer.status_code, code(answer)] += 1
        # The node is well and nothing lacks, so no request makes it, or what it runs, the one at fault; but
        # it has no network, and says so where something would have to be fetched.
        if code(answer) != "environment.offline_missing":
            assert answer.status_code < 500, f"{case.as_curl_command()}\n{answer.status_code}: {answer.text}"
        case.validate_response(answer, checks=CHECKS)

    try:
        ask()
    except Unsatisfiable:
        return []  # there is nothing that could be wrong in it
    except BaseExceptionGroup as group:
        return [f"{name}: {each}" for each in group.exceptions]
    except (AssertionError, FailureGroup, requests.RequestException) as error:
        return [f"{name}: {error}"]
    return []


def beginning(case: Any, session: requests.Session) -> tuple[int, str]:
    """Send a request whose answer may last, read how that begins, and go away."""
    sent = case.as_transport_kwargs(base_url=case.operation.schema.get_base_url())
    declared = case.operation.definition.raw["responses"]
    with session.request(**sent, stream=True, timeout=20) as answer:
        status, kind = answer.status_code, answer.headers["content-type"]
        assert status < 500, f"{case.as_curl_command()}\n{status}: {answer.text}"
        assert str(status) in declared, f"{case.as_curl_command()}\n{status}: {answer.text}"
        if status >= 400:
            assert kind == "application/problem+json"
            return status, code(answer)
        assert kind.partition(";")[0] in declared[str(status)]["content"]
        assert next(answer.iter_content(None))
        return status, ""


STRANGE_CURSORS = ("\xb2", "9" * 5000, str(10**23), str(2**63), "-1", "1e3", "0x1", " ", "1, 2", "%00")


def test_a_stream_begins_whatever_its_last_event_is_called(daemon: Daemon) -> None:
    for each in STRANGE_CURSORS:
        with contextlib.closing(daemon.connect()) as sock:
            head = f"GET /v1/events/stream HTTP/1.1\r\nHost: x\r\nLast-Event-ID: {each}\r\n\r\n"
            sock.sendall(head.encode("latin-1"))
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 "), each
    assert "request_failed" not in daemon.log()


def code(answer: Any) -> str:
    return str(json.loads(answer.content)["code"]) if answer.status_code >= 400 else ""
