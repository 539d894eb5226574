"""One refusal has one code, whether it is met over HTTP, on the command line or in Python."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests import daemons, nodes
from tests.daemons import Daemon

import toft
from toft import blocking
from toft.api import operations
from toft.kernel.errors import NodeError
from toft.plugins.plugin_errors import PluginError

NONE = "job_01ARZ3NDEKTSV4RRFFQ69G5FAV"
NO_SEQUENCE = "seq_01ARZ3NDEKTSV4RRFFQ69G5FAV"


@dataclass(frozen=True)
class Case:
    """One thing that is refused, as each face is asked for it; None for a face that has no word for it."""

    operation: str
    code: str
    cli: tuple[str, ...] | None
    client: Callable[[blocking.Node], Any] | None
    part: str = NONE
    body: dict[str, Any] = field(default_factory=dict)
    query: str = ""


def _of_a_job(operation: str, *words: str, call: Callable[[Any], Any]) -> Case:
    return Case(operation, "job.not_found", (*words, NONE), lambda node: call(node.jobs))


def _of_a_sequence(verb: str, call: Callable[[Any], Any]) -> Case:
    words = ("sequence", verb, NO_SEQUENCE)
    return Case(
        f"sequence.{verb}", "sequence.not_found", words, lambda node: call(node.jobs), part=NO_SEQUENCE
    )


def _of_a_plugin(operation: str, *words: str, call: Callable[[Any], Any] | None, **more: Any) -> Case:
    return Case(operation, "plugin.not_found", words, call, part="nothing", **more)


CASES = (
    _of_a_job("job.show", "job", "show", call=lambda jobs: jobs.get(NONE)),
    _of_a_job("job.wait", "job", "wait", call=lambda jobs: jobs.wait(NONE)),
    _of_a_job("job.result", "job", "result", call=lambda jobs: jobs.result(NONE)),
    _of_a_job("job.attempts", "job", "show", call=lambda jobs: jobs.attempts(NONE)),
    _of_a_job("job.logs", "job", "logs", call=lambda jobs: jobs.logs(NONE)),
    _of_a_job("job.why", "why", call=lambda jobs: jobs.why(NONE)),
    _of_a_job("job.cancel", "job", "cancel", call=lambda jobs: jobs.cancel(NONE)),
    _of_a_job("job.retry", "job", "retry", call=lambda jobs: jobs.retry(NONE)),
    Case(
        "job.reorder", "job.not_found", ("job", "reorder", NONE, "--first"),
        lambda node: node.jobs.reorder(NONE, first=True), body={"first": True},
    ),
    Case(
        "job.list", "job.not_found", ("job", "list", "--before", NONE),
        lambda node: node.jobs.list(before=NONE), query=f"before={NONE}",
    ),
    Case(
        "job.submit", "plugin.not_found", ("job", "submit", "nothing"),
        lambda node: node.jobs.submit("nothing"), body={"plugin": "nothing"},
    ),
    Case(
        "job.submit", "call.action_unknown", ("job", "submit", "misbehaving.fly"),
        lambda node: node.jobs.submit("misbehaving", action="fly"),
        body={"plugin": "misbehaving", "action": "fly"},
    ),
    Case(
        "job.submit", "job.request", ("job", "submit", "misbehaving", "--priority", "9999999"),
        lambda node: node.jobs.submit("misbehaving", priority=9_999_999),
        body={"plugin": "misbehaving", "priority": 9_999_999},
    ),
    _of_a_sequence("show", lambda jobs: jobs.sequence(NO_SEQUENCE)),
    _of_a_sequence("wait", lambda jobs: jobs.wait_sequence(NO_SEQUENCE)),
    _of_a_sequence("cancel", lambda jobs: jobs.cancel_sequence(NO_SEQUENCE)),
    _of_a_sequence("retry", lambda jobs: jobs.retry_sequence(NO_SEQUENCE)),
    _of_a_plugin("plugin.show", "plugin", "show", "nothing", call=lambda node: node.installed.get("nothing")),
    _of_a_plugin("plugin.config", "plugin", "config", "nothing", call=lambda node: node.config("nothing")),
    _of_a_plugin(
        "secret.list", "secret", "list", "nothing",
        call=lambda node: node.installed.variables("nothing"),
    ),
    _of_a_plugin("plugin.logs", "plugin", "logs", "nothing", call=lambda node: node.logs("nothing")),
    _of_a_plugin(
        "plugin.configure", "plugin", "config", "nothing", "label=x",
        call=lambda node: node.configure("nothing", {"label": "x"}), body={"changes": {"label": "x"}},
    ),
    _of_a_plugin(
        "plugin.set_options", "plugin", "options", "nothing", "spare=true",
        call=lambda node: node.set_options("nothing", {"spare": True}), body={"changes": {"spare": True}},
    ),
    _of_a_plugin(
        "plugin.set_enabled", "plugin", "disable", "nothing",
        call=lambda node: node.set_enabled("nothing", False), body={"enabled": False},
    ),
    Case(
        "plugin.configure", "config.invalid", ("plugin", "config", "misbehaving", "colour=red"),
        lambda node: node.configure("misbehaving", {"colour": "red"}), part="misbehaving",
        body={"changes": {"colour": "red"}},
    ),
    Case(
        "plugin.set_options", "instance.options", ("plugin", "options", "misbehaving", "colour=red"),
        lambda node: node.set_options("misbehaving", {"colour": "red"}), part="misbehaving",
        body={"changes": {"colour": "red"}},
    ),
    _of_a_job("job.samples", "why", call=lambda jobs: jobs.samples(job=NONE)),
    # The client has these of a node elsewhere alone.
    _of_a_plugin("plugin.config_schema", "plugin", "config", "nothing", "--schema", call=None),
    _of_a_plugin("plugin.config_options", "plugin", "config", "nothing", "--options", call=None),
    _of_a_plugin(
        "plugin.check_config", "plugin", "config", "nothing", "label=x", call=None,
        body={"changes": {"label": "x"}},
    ),
    _of_a_plugin(
        "plugin.refresh", "plugin", "refresh", "nothing", call=lambda node: node.refresh("nothing")
    ),
    _of_a_plugin(
        "plugin.regenerate", "plugin", "regenerate", "nothing",
        call=lambda node: node.installed.regenerate("nothing"),
    ),
    _of_a_plugin(
        "plugin.check", "plugin", "check", "nothing", call=lambda node: node.installed.check("nothing")
    ),
    Case(
        "plugin.add", "source.invalid", ("plugin", "add", "two words"),
        lambda node: node.installed.add("two words"), body={"source": "two words"},
    ),
    Case(
        "environment.size", "source.invalid", ("plugin", "size", "two words"),
        lambda node: node.installed.size("two words"), body={"source": "two words"},
    ),
    Case(
        "environment.remove", "environment.not_found", None,
        lambda node: node.installed.remove_environment("0" * 16), part="0" * 16,
    ),
    Case(
        "secret.remove", "secret.not_found", ("secret", "rm", "misbehaving", "NONE"), None,
        part="misbehaving/NONE",
    ),
    Case(
        "secret.set",
        "secret.bad_name",
        ("secret", "set", "misbehaving", "1 bad", "--from-stdin"),
        lambda node: node.set_secret("misbehaving", "1 bad", "x"),
        part="misbehaving/1%20bad",
        body={"value": "x"},
    ),
    Case(
        "instance.load", "plugin.not_found", ("run", "nothing"), lambda node: node.load("nothing"),
        body={"plugin": "nothing"},
    ),
    Case(
        "instance.show", "instance.not_found", None, lambda node: node.instance("nothing"), part="nothing",
    ),
    Case(
        "environment.remove", "environment.not_found", None,
        lambda node: node.installed.remove_environment("nothing"), part="nothing",
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("parity")
    nodes.register(directory / "home")
    with daemons.running(directory / "home", directory) as running:
        yield running


def over_http(daemon: Daemon, case: Case) -> str:
    operation = next(each for each in operations.OPERATIONS if each.name == case.operation)
    parts = iter(case.part.split("/"))
    path = re.sub(r"\{\w+\}", lambda _: next(parts), operation.route) + (
        f"?{case.query}" if case.query else ""
    )
    body = json.dumps(case.body).encode() if case.body else b""
    head = f"{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
    answer = daemon.ask(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return str(json.loads(answer.partition(b"\r\n\r\n")[2])["code"])


def on_the_command_line(daemon: Daemon, case: Case) -> str:
    if case.cli is None:
        return case.code
    return str(daemon.toft(*case.cli, "--json", stdin="x").error["code"])


def in_python(daemon: Daemon, case: Case) -> str:
    if case.client is None:
        return case.code
    with toft.connect(daemon.toft.home) as node, pytest.raises((NodeError, PluginError)) as caught:
        case.client(node)
    return str(getattr(caught.value, "code", ""))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.operation}-{case.code}")
def test_every_face_tells_the_same_code(daemon: Daemon, case: Case) -> None:
    told = over_http(daemon, case), on_the_command_line(daemon, case), in_python(daemon, case)
    assert told == (case.code,) * 3


# What is refused by other words on purpose, or tried beside its own tests.
ELSEWHERE = {
    "plugin.remove": "removing what is not there is done already",
    "instance.act": "plugin enable and disable are tried",
    "instance.stats": "toft top shows what there is",
    "instance.logs": "plugin logs are tried",
    "instance.config_options": "plugin config is tried",
    "instance.reconfigure": "plugin config is tried",
    "call.begin": "toft run loads first; instance.load is tried",
}


def test_every_operation_on_something_is_tried_or_says_where() -> None:
    named = {
        each.name
        for each in operations.OPERATIONS
        if "{" in each.route and not each.cli.startswith("-") and not each.client.startswith("-")
    }
    assert named - {each.operation for each in CASES} == ELSEWHERE.keys() & named
