"""Whatever the description allows, and much that it does not, is answered as the description says.

Generated requests go to a real daemon that is well: nothing is answered with a 5xx, every status is declared,
and every answer has the shape that is declared for it.
"""

from __future__ import annotations

import collections
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
# Answers that last are read by test_api_hostile.py and the tests of calls and events.
LASTING = {"session.open", "event.watch", "call.begin"}
# What would take away what the others are tried on, or may last as long as nobody does anything.
ENDING = {"instance.unload", "plugin.remove", "job.wait", "job.result"}


@pytest.fixture
def daemon(toft_home: Path, tmp_path: Path) -> Iterator[Daemon]:
    nodes.register(toft_home)
    with daemons.running(toft_home, tmp_path, request_bytes=1_000_000) as running:
        yield running


Known = dict[str, list[dict[str, str]]]
Seen = dict[str, collections.Counter[tuple[int, str]]]


def test_nothing_that_is_sent_is_answered_otherwise_than_described(daemon: Daemon) -> None:
    seen: Seen = collections.defaultdict(collections.Counter)
    wrong: list[str] = []
    with http_proxy.before(daemon.connect) as address, requests.Session() as session:
        known = populate(address, session)
        described = session.get(f"{address}/v1/openapi.json").json()
        assert described == json.loads(CHECKED_IN.read_text())
        schema = schemathesis.openapi.from_dict(described)
        schema.config.update(base_url=address)
        for found in schema.get_all_operations():
            operation = found.ok()
            name = operation.definition.raw["operationId"]
            if name not in LASTING:
                for mode in MODES:
                    wrong += fuzz(operation, mode, session, seen)
                for path in known.get(room(operation), ()) if name not in ENDING else ():
                    wrong += fuzz(operation, GenerationMode.POSITIVE, session, seen, path_parameters=path)
    assert "\n".join(wrong) == ""
    assert daemon.status()["state"] == "ready"
    assert "request_failed" not in daemon.log()


def room(operation: Any) -> str:
    return str(operation.definition.raw["operationId"]).partition(".")[0]


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
        "secret": [{"name": "misbehaving", "key": "TOKEN"}],
    }


def fuzz(
    operation: Any, mode: GenerationMode, session: requests.Session, seen: Seen, **given_parts: Any
) -> list[str]:
    """Send some requests of one kind, and return what is wrong with the answers."""
    name = operation.definition.raw["operationId"]

    @settings(
        max_examples=10,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode, **given_parts))
    def ask(case: Any) -> None:
        answer = case.call(session=session, timeout=20)
        seen[name][answer.status_code, code(answer)] += 1
        # The node is well and nothing lacks, so no request makes it, or what it runs, the one at fault.
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


def code(answer: Any) -> str:
    return str(json.loads(answer.content)["code"]) if answer.status_code >= 400 else ""
