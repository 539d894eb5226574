"""The one list of operations holds for every face, and the description says what the routes do."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

import pytest
import typer

from toft.api import app as applications
from toft.api import bodies, operations, schemas
from toft.api.central import app as central_app
from toft.api.central import operations as of_central
from toft.blocking import instance as calls
from toft.blocking import looking
from toft.blocking import node as blocking
from toft.cli import app as command_line
from toft.client.calls import RemoteCall
from toft.client.configuration import RemoteConfiguration
from toft.client.documents import RemoteDocuments
from toft.client.installed import RemoteInstalled
from toft.client.instance import RemoteInstance
from toft.client.jobs import RemoteJobs
from toft.client.node import RemoteNode
from toft.client.secrets import RemoteSecrets
from toft.kernel import errors
from toft.web import app as web

ALL = operations.OPERATIONS
DOCUMENT: dict[str, Any] = applications.routes().openapi()
DESCRIBED = {
    f"{method.upper()} {path}": route
    for path, methods in DOCUMENT["paths"].items()
    for method, route in methods.items()
}
BODIES = {each.name: each.takes for each in ALL if each.takes is not None}


def test_names_and_routes_are_given_once() -> None:
    assert len({each.name for each in ALL}) == len({each.route for each in ALL}) == len(ALL)


def test_every_route_is_an_operation_and_every_operation_a_route() -> None:
    hidden = {"GET /v1/openapi.json"}
    assert DESCRIBED.keys() == operations.BY_ROUTE.keys() - hidden


def commands(command: Any, path: str) -> set[str]:
    below = getattr(command, "commands", {})
    return (
        {path}
        if not below
        else set().union(*(commands(each, f"{path} {name}") for name, each in below.items()))
    )


COMMANDS = commands(typer.main.get_command(command_line.app), "toft")
CENTRAL: dict[str, Any] = central_app.routes().openapi()


def test_every_command_is_an_operation_or_says_why_not_and_exists() -> None:
    known = {each for each in COMMANDS if not each.startswith("toft central ")}
    named = {each.cli for each in ALL if not each.cli.startswith("-")}
    assert known - operations.COMMANDS_APART.keys() == named
    assert named.isdisjoint(operations.COMMANDS_APART)


def test_the_same_holds_for_a_central() -> None:
    known = {each for each in COMMANDS if each.startswith("toft central ")}
    named = {each.cli for each in of_central.OPERATIONS if not each.cli.startswith("-")}
    assert known - of_central.COMMANDS_APART.keys() == named
    described = {
        f"{method.upper()} {path}" for path, methods in CENTRAL["paths"].items() for method in methods
    }
    shared = {each.route for each in operations.ACCESS}
    assert described == of_central.BY_ROUTE.keys() | shared
    text = json.dumps(CENTRAL)
    for reference in re.findall(r"#/components/[\w/]+", text):
        room, _, found = reference.removeprefix("#/components/").partition("/")
        assert found in CENTRAL["components"][room]


# What the first part of a client's method name stands for: with asyncio, and without.
CLIENTS: dict[str, tuple[Any, Any]] = {
    "": (RemoteNode, blocking.Node),
    "jobs": (RemoteJobs, blocking.Jobs),
    "installed": (RemoteInstalled, blocking.Installed),
    "configuration": (RemoteConfiguration, looking.Configuration),
    "secrets": (RemoteSecrets, looking.Secrets),
    "documents": (RemoteDocuments, looking.Documents),
    "instance": (RemoteInstance, blocking.Instance),
    "call": (RemoteCall, calls.Call),
}
ELSEWHERE = {(RemoteInstance, "call"): "call_with"}


@pytest.mark.parametrize("operation", ALL, ids=lambda each: each.name)
def test_the_python_client_has_it_with_asyncio_and_without(operation: operations.Operation) -> None:
    if operation.client.startswith("-") or operation.client == "connect":
        return
    room, _, method = operation.client.rpartition(".")
    for face in CLIENTS[room]:
        name = ELSEWHERE.get((face, method), method)
        assert callable(getattr(face, name, None)), f"{face.__name__} has no {name}"


# What the client has beside the list: it puts several of them together, or is about the program itself.
TOGETHER = {
    "": {"load_many", "unload_many", "remove", "manifest", "status", "samples"},
    "jobs": {"submit_sequence", "submit_uniform", "samples"},
    "instance": {"call_with", "start_with", "stream_with", "signature", "look", "unload"}
    | {"enable", "disable", "prefetch"},
}


@pytest.mark.parametrize("room", TOGETHER)
def test_the_client_has_nothing_that_is_no_operation(room: str) -> None:
    kind = CLIENTS[room][0]
    named = {each.client.rpartition(".")[2] for each in ALL if each.client.rpartition(".")[0] == room}
    named |= {new for (face, _), new in ELSEWHERE.items() if face is kind}
    found = {name for name, each in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}
    assert found - named - TOGETHER[room] == set()


def test_every_page_exists() -> None:
    known = {each.path for each in web.ROUTES}
    assert {each.page for each in ALL if not each.page.startswith("-")} <= known


@pytest.mark.parametrize("name", BODIES)
def test_an_example_is_taken_and_what_does_not_fit_is_named(name: str) -> None:
    body = BODIES[name]
    example = dict(body.example)
    assert bodies.taken(example, **body.kinds).keys() == body.members.keys()
    for changed, bad in (
        ({**example, "surprise": 1}, "surprise"),
        *(({**example, member: object()}, member) for member in body.members),
        *(({k: v for k, v in example.items() if k != member}, member) for member in body.required),
    ):
        with pytest.raises(errors.UsageError) as caught:
            bodies.taken(changed, **body.kinds)
        assert list(caught.value.details["fields"]) == [bad]


def test_a_schema_says_what_the_check_does() -> None:
    told = schemas.SUBMIT.schema()
    assert told["properties"]["plugin"]["type"] == "string"
    assert told["properties"]["delay_s"]["type"] == ["number", "null"]
    assert told["required"] == ["plugin"]
    assert told["additionalProperties"] is False
    assert schemas.SUBMIT.kinds["delay_s"] == (int, float, None)


@pytest.mark.parametrize("name", sorted(DESCRIBED))
def test_a_route_tells_how_it_refuses(name: str) -> None:
    operation = operations.BY_ROUTE[name]
    responses = DESCRIBED[name]["responses"]
    assert responses.keys() >= {str(operation.status)}
    assert "500" not in responses  # a fault of the node is never what was meant
    for status, told in responses.items():
        if status != str(operation.status):
            assert told == {"$ref": f"#/components/responses/Refused{status}"}
    for reference in re.findall(r"#/components/[\w/]+", str(DESCRIBED[name])):
        room, _, found = reference.removeprefix("#/components/").partition("/")
        assert found in DOCUMENT["components"][room]
