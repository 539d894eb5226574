"""Whatever the description of a central allows, and much that it does not, is answered as it says."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from tests import centrals
from tests.centrals import Agent, Central

from toft.api.central import app as applications
from toft.api.central import operations

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import requests
    import schemathesis
    from schemathesis import GenerationMode
    from schemathesis.core.failures import FailureGroup
    from schemathesis.specs.openapi import checks

DESCRIBED: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "docs" / "reference" / "central-openapi.json").read_text()
)
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
# What would take away what the others are tried on.
ENDING = {"fleet_node.revoke", "token.revoke", "session.sign_out", "node.refresh"}
ADMIN = [each.route for each in operations.OPERATIONS if " /v1/admin/" in each.route]


@pytest.fixture(scope="module")
def central(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Central]:
    with centrals.running(tmp_path_factory.mktemp("fuzzed")) as running:
        yield running


def test_nothing_that_is_sent_is_answered_otherwise_than_described(central: Central) -> None:
    saved = central.save({})
    central.admin("PUT", "groups/gpu", {"selector": {"role": "gpu"}})
    agent = Agent(central).join()
    agent.poll()
    known = {
        "nodes": {"id": agent.node_id},
        "documents": {"id": saved["document"]["id"]},
        "groups": {"name": "gpu"},
    }
    schema = schemathesis.openapi.from_dict(DESCRIBED)
    schema.config.update(base_url=central.url)
    admin = central.token_file.read_text().strip()
    wrong: list[str] = []
    with requests.Session() as session:
        session.trust_env = False
        for found in schema.get_all_operations():
            operation = found.ok()
            if operation.definition.raw["operationId"] in ENDING:
                continue
            token = agent.credential if f"{operation.method.upper()} {operation.path}" in OF_NODES else admin
            session.headers["Authorization"] = f"Bearer {token}"
            for mode in MODES:
                wrong += fuzz(operation, mode, session)
            room = re.match(r"/v1/admin/(\w+)/\{", operation.path)
            if room and room[1] in known:
                wrong += fuzz(operation, GenerationMode.POSITIVE, session, path_parameters=known[room[1]])
    assert "\n".join(wrong) == ""
    assert "request_failed" not in central.log()
    assert central.admin("GET", "audit/verify")["is_whole"]


OF_NODES = {each.route for each in operations.AGENTS}


def fuzz(operation: Any, mode: GenerationMode, session: requests.Session, **given_parts: Any) -> list[str]:
    """Send some requests of one kind, and return what is wrong with the answers."""

    @settings(
        max_examples=4,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode, **given_parts))
    def ask(case: Any) -> None:
        answer = case.call(session=session, timeout=20)
        assert answer.status_code < 500, f"{case.as_curl_command()}\n{answer.status_code}: {answer.text}"
        case.validate_response(answer, checks=CHECKS)

    try:
        ask()
    except Unsatisfiable:
        return []
    except BaseExceptionGroup as group:
        return [str(each) for each in group.exceptions]
    except (AssertionError, FailureGroup, requests.RequestException) as error:
        return [str(error)]
    return []


def test_no_route_of_the_administration_answers_to_who_may_not(central: Central) -> None:
    made = central.ask(
        "POST",
        "/v1/tokens",
        {"name": "stranger", "scopes": ["job:admin", "plugin:admin", "*:admin:elsewhere"]},
        token=central.token_file.read_text().strip(),
    )
    assert made.status == 201
    agent = Agent(central)
    for route in ADMIN:
        method, _, path = route.partition(" ")
        path = re.sub(r"\{\w+\}", "x", path)
        assert central.ask(method, path).status == 401, route
        if route not in ("GET /v1/admin/tenants", "POST /v1/admin/tenants", "GET /v1/admin/audit/verify"):
            assert central.ask(method, path, token=made.value["token"]).code == "access.refused", route
        guess = central.ask(method, path, token=f"nt_{'A' * 43}", source=agent.source)
        assert guess.status in (401, 429), f"{route}: a credential of a node is no token"
    described = {f"{method.upper()} {path}" for path, each in DESCRIBED["paths"].items() for method in each}
    assert set(ADMIN) < described
    assert applications.routes().openapi() == DESCRIBED
