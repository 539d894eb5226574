"""What a document declares is there on a running node, stays as it says, and goes with it."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests import nodes
from tests.daemons import Daemon, running
from tests.waiting import eventually

VARIABLE = {"name": "VAULT_KEY", "secret": True, "required": False}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("applied")
    home = directory / "home"
    nodes.register(home)
    nodes.register(home, "vault", worker_env=[VARIABLE])
    with running(home, directory, listen="127.0.0.1:0", drain_s=3) as made:
        yield made


@pytest.fixture(autouse=True)
def _leave_nothing(daemon: Daemon) -> Iterator[None]:
    yield
    daemon.toft("config", "unpin")


def write(daemon: Daemon, **sections: Any) -> str:
    """Write a document that proves itself at once; JSON, because what is odd is written easily in it."""
    path = daemon.toft.directory / "node.json"
    path.write_text(json.dumps({"schema_version": 1, "health": {"settle_s": 0.1}, **sections}))
    return str(path)


def apply(daemon: Daemon, **sections: Any) -> str:
    done = daemon.toft("config", "apply", write(daemon, **sections), "--wait", "60", "--json")
    assert done.status == 0, done.err or done.out
    etag: str = done.value["etag"]
    return etag


def refused(daemon: Daemon, **sections: Any) -> dict[str, str]:
    """Return what is wrong with a document, by place."""
    error = daemon.toft("config", "apply", write(daemon, **sections), "--json").error
    assert error["code"] == "document.invalid"
    return {each["path"]: each["message"] for each in error["details"]["problems"]}


def status(daemon: Daemon) -> dict[str, Any]:
    """Return what it says of itself; nothing while it starts again."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        found: dict[str, Any] = daemon.request("GET", "/v1/status").value
        return found
    return {}


def declared(daemon: Daemon) -> dict[str, dict[str, Any]]:
    found = status(daemon).get("document")
    return {each["instance"]: each for each in found["instances"]} if found else {}


def state(daemon: Daemon, instance: str) -> str:
    return str(declared(daemon).get(instance, {}).get("state"))


@contextlib.contextmanager
def asking(daemon: Daemon, path: str, token: str) -> Iterator[http.client.HTTPResponse]:
    """Send a request to the port with a token."""
    found = daemon.place.find()
    assert found is not None
    connection = http.client.HTTPConnection(urlsplit(found.listen).netloc, timeout=25)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        yield connection.getresponse()
    finally:
        connection.close()


def status_of(daemon: Daemon, path: str, token: str) -> int:
    with asking(daemon, path, token) as answer:
        answer.read()
        return answer.status


def where(daemon: Daemon, instance: str) -> dict[str, Any]:
    job = {"plugin": "misbehaving", "instance": instance, "action": "where"}
    id = daemon.request("POST", "/v1/jobs", job).value["id"]
    assert daemon.request("GET", f"/v1/jobs/{id}/wait").value["state"] == "completed"
    found: dict[str, Any] = daemon.request("GET", f"/v1/jobs/{id}/result").value
    return found


def test_instances_are_loaded_as_declared_kept_so_and_taken_back(daemon: Daemon) -> None:
    toft = daemon.toft
    toft("plugin", "config", "misbehaving", "--instance", "left", "label=mine")
    one = {"plugin": "misbehaving", "config": {"label": "one"}}
    declares = {"left": one, "off": {**one, "enabled": False}}
    found = refused(daemon, instances=declares, monitors=["left", "off", "absent"])
    assert set(found) == {"monitors[1]", "monitors[2]"}
    first = apply(daemon, instances=declares, monitors=["left"])
    eventually(lambda: state(daemon, "left") == "ready", within_s=20)
    assert where(daemon, "left")["label"] == "one"
    assert state(daemon, "off") == "disabled"
    assert daemon.request("GET", "/v1/instances/left").value["options"] == {"is_monitor": True}
    shown = status(daemon)["document"]
    assert shown["etag"] == first
    assert [(each["section"], each["key"]) for each in shown["local_not_applied"]] == [("instances", "left")]

    for command in (
        ("plugin", "config", "misbehaving", "--instance", "left", "label=other"),
        ("plugin", "remove", "misbehaving"),
    ):
        error = toft(*command, "--json").error
        assert error["code"] == "generation.declared", command
        assert "toft config apply" in error["hint"]
    of_plugin, of_left = "/v1/plugins/misbehaving", "/v1/instances/left"
    for method, path, body in (
        ("DELETE", of_left, None),
        ("POST", f"{of_left}/disable", None),
        ("POST", f"{of_left}/reconfigure", {"changes": {"label": "other"}}),
        ("POST", f"{of_plugin}/options", {"changes": {"concurrency": 2}, "instance": "left"}),
        ("POST", f"{of_plugin}/enabled", {"enabled": True, "instance": "off"}),
    ):
        assert daemon.request(method, path, body).value["code"] == "generation.declared", path
    assert daemon.request("POST", "/v1/instances", {"plugin": "misbehaving", "instance": "off"}).status == 200
    assert where(daemon, "left")["label"] == "one"

    second = apply(daemon, instances={"left": {**one, "config": {"label": "two"}}})
    eventually(lambda: state(daemon, "left") == "ready", within_s=20)
    assert where(daemon, "left")["label"] == "two"
    assert toft("config", "rollback", "--json").value["active"] == first != second
    eventually(lambda: state(daemon, "off") == "disabled", within_s=20)
    eventually(lambda: state(daemon, "left") == "ready", within_s=20)
    assert where(daemon, "left")["label"] == "one"
    toft("config", "unpin")
    apply(daemon)
    assert where(daemon, "left")["label"] == "mine", "what was set on the node holds again"


def test_an_instance_that_cannot_be_loaded_waits_for_what_it_lacks(daemon: Daemon) -> None:
    toft = daemon.toft
    vault = {"plugin": "vault", "secrets": {"VAULT_KEY": "store:shared/TEAM_KEY"}}
    broken = {"plugin": "misbehaving", "config": {"at_initialize": "raise"}}
    apply(daemon, instances={"vault": vault, "broken": broken, "well": {"plugin": "misbehaving"}})
    eventually(lambda: state(daemon, "well") == "ready", within_s=20)
    eventually(lambda: state(daemon, "vault") == "failed", within_s=20)
    eventually(lambda: state(daemon, "broken") == "failed", within_s=20)
    error = declared(daemon)["vault"]["error"]
    assert error["code"] == "secret.unresolved"
    assert error["hint"] == "toft secret set shared TEAM_KEY"
    assert "vault is not loaded" in toft("status").err
    assert toft("secret", "set", "shared", "TEAM_KEY", "--from-stdin", stdin="hunter2hunter2").status == 0
    eventually(lambda: state(daemon, "vault") == "ready", within_s=20)
    seen = toft("run", "vault.look", "--instance", "vault", "--json").value["result"]["environ"]
    assert seen["VAULT_KEY"] == "hunter2hunter2"
    held = [path for path in (toft.home / "managed").rglob("*") if path.is_file()]
    assert not [path for path in held if b"hunter2" in path.read_bytes()], "a secret is never in a document"
    good = apply(daemon)
    gated = {"settle_s": 0.1, "gates": {"loaded": {"kind": "instances"}}}
    path = write(daemon, instances={"broken": broken}, health=gated)
    done = toft("config", "apply", path, "--wait", "60", "--json")
    assert json.loads(done.out)["outcome"] == "rolled_back: health_failed"
    eventually(lambda: status(daemon).get("state") == "ready", within_s=20)
    assert toft("config", "show", "--json").value["active"] == good


def test_what_does_not_fit_what_is_installed_is_refused_with_its_place(daemon: Daemon) -> None:
    before = daemon.toft("config", "show", "--json").value
    odd: dict[str, Any] = {"plugin": "misbehaving"}
    huge = {**odd, "options": {"memory_bytes": 10**30, "writable": ["relative"], "nonsense": 1}}
    found = refused(
        daemon,
        instances={
            "nobody": {"plugin": "no-such-plugin"},
            "misfit": {**odd, "config": {"seconds": -1, "unknown": True}},
            "huge": huge,
            "keys": {"plugin": "vault", "secrets": {"OTHER": "store:KEY"}},
            "path": {"plugin": "vault", "secrets": {"VAULT_KEY": "store:../KEY"}},
            "bao": {"plugin": "vault", "secrets": {"VAULT_KEY": "openbao:kv/data/x"}},
            "plain": {"plugin": "vault", "options": {"env": {"VAULT_KEY": "in the open"}}},
            "absent": {"plugin": "not-here", "enabled": False},
        },
    )
    assert set(found) == {
        "instances.nobody.plugin",
        "instances.misfit.config.seconds",
        "instances.misfit.config.unknown",
        "instances.huge.options.memory_bytes",
        "instances.huge.options.writable[0]",
        "instances.huge.options.nonsense",
        "instances.keys.secrets.OTHER",
        "instances.path.secrets.VAULT_KEY",
        "instances.bao.secrets.VAULT_KEY",
        "instances.plain.options.env",
    }
    assert "store:KEY" in found["instances.bao.secrets.VAULT_KEY"]
    assert daemon.toft("config", "show", "--json").value["active"] == before["active"]


def test_tokens_hold_while_the_document_does(daemon: Daemon) -> None:
    toft = daemon.toft
    made = toft("token", "hash", "--new", "--json").value
    text, digest = made["token"], made["sha256"]
    assert toft("token", "hash", stdin=f"{text}\n").out.strip() == digest
    mine = toft("token", "create", "ci", "--scope", "*", "--json").value["token"]
    other = toft("token", "create", "other", "--scope", "read", "--json").value["token"]
    found = refused(
        daemon,
        access={
            "tokens": {
                "ci": {"sha256": digest, "scopes": ["read", "jobs:read"]},
                "twin": {"sha256": digest, "scopes": ["read"], "expires_at": "2027-02-30T00:00:00Z"},
            }
        },
    )
    assert set(found) == {
        "access.tokens.ci.scopes[1]",
        "access.tokens.twin.sha256",
        "access.tokens.twin.expires_at",
    }
    etag = apply(daemon, access={"tokens": {"ci": {"sha256": digest, "scopes": ["read"]}}})
    assert status_of(daemon, "/v1/jobs", text) == 200
    assert status_of(daemon, "/v1/jobs", mine) == 401, "the document has a token of that name"
    assert status_of(daemon, "/v1/jobs", other) == 200
    listed = {
        (each["name"], each["state"], each["declared_by"]) for each in toft("token", "list", "--json").value
    }
    assert listed == {("ci", "valid", etag), ("ci", "overridden", None), ("other", "valid", None)}
    for command in (("token", "revoke", "ci"), ("token", "create", "ci", "--scope", "read")):
        error = toft(*command, "--json").error
        assert error["code"] == "generation.declared"
        assert "toft config apply" in error["hint"]
    shown = status(daemon)["document"]["local_not_applied"]
    assert [(each["section"], each["key"]) for each in shown] == [("access.tokens", "ci")]

    # What drains may take its time; what the token has open may not.
    job = {"plugin": "misbehaving", "action": "work", "arguments": {"seconds": 5}}
    running_job = daemon.request("POST", "/v1/jobs", job).value["id"]
    eventually(
        lambda: daemon.request("GET", f"/v1/jobs/{running_job}").value["state"] == "running", within_s=10
    )
    with asking(daemon, "/v1/events/stream", text) as stream:
        assert stream.status == 200
        toft("config", "rollback")
        began = time.monotonic()
        with contextlib.suppress(http.client.IncompleteRead):
            stream.read()
        assert time.monotonic() - began < 1
    # In this order, however long anything takes on a busy machine.
    log = daemon.log()
    assert log.rindex("token_withdrawn") < log.rindex("draining")
    eventually(lambda: status(daemon).get("state") == "ready", within_s=40)
    assert status_of(daemon, "/v1/jobs", text) == 401
    assert status_of(daemon, "/v1/jobs", mine) == 200


def test_a_schedule_that_cannot_come_true_is_refused_with_its_place(daemon: Daemon) -> None:
    misfit = {"instance": "misbehaving", "action": "echo", "every_s": 60}
    found = refused(
        daemon,
        instances={"off": {"plugin": "misbehaving", "enabled": False}},
        schedules={
            "off": {**misfit, "instance": "off"},
            "never": {"instance": "misbehaving", "cron": "0 0 31 2 *"},
        },
    )
    assert set(found) == {"schedules.off.instance", "schedules.never.cron"}
    found = refused(
        daemon,
        schedules={
            "nobody": {**misfit, "instance": "nobody"},
            "action": {**misfit, "action": "absent"},
            "arguments": {**misfit, "arguments": {"odd": 1}},
        },
    )
    assert set(found) == {
        "schedules.nobody.instance",
        "schedules.action.action",
        "schedules.arguments.arguments.odd",
    }


def test_jobs_by_the_clock_come_once_for_each_due_time_through_a_kill(tmp_path: Path) -> None:
    nodes.register(tmp_path / "home")
    with running(tmp_path / "home", tmp_path, drain_s=3) as daemon:
        _kill_under_schedules(daemon)


def _kill_under_schedules(daemon: Daemon) -> None:
    apply(
        daemon,
        instances={"ticker": {"plugin": "misbehaving", "options": {"concurrency": 1}}},
        schedules={
            "tick": {"instance": "ticker", "action": "echo", "arguments": {"value": 1}, "every_s": 1},
            "hang": {"instance": "ticker", "action": "work", "arguments": {"seconds": 60}, "every_s": 1},
            "nightly": {"instance": "ticker", "action": "echo", "cron": "30 4 * * *"},
        },
    )

    def stands(name: str) -> dict[str, Any]:
        listed = (status(daemon).get("document") or {}).get("schedules", [])
        return next((each for each in listed if each["schedule"] == name), {"submitted": 0, "skipped": 0})

    eventually(lambda: stands("hang")["skipped"] >= 1, within_s=20)
    assert stands("nightly")["next_at"].endswith("T04:30:00.000Z")
    job = stands("hang")["last_job"]
    story = daemon.request("GET", f"/v1/jobs/{job}/why").value
    assert "asked for by the schedule hang" in [each["because"] for each in story]
    assert any("submitted no other job" in each["what"] for each in story)
    before = stands("tick")["submitted"]
    daemon.kill()
    time.sleep(2.5)  # what passes meanwhile is one turn
    assert daemon.toft("up", "--detach").status == 0
    eventually(lambda: stands("tick")["submitted"] > before, within_s=20)
    apply(daemon)
    assert status(daemon)["document"]["schedules"] == []
    with_due = [
        (each["by"], each["due_at"])
        for each in daemon.request("GET", "/v1/events?limit=1000").value
        if each["type"] == "submitted" and "due_at" in each
    ]
    assert len(with_due) == len(set(with_due)), "no due time has two jobs"
    assert sum(by == "the schedule hang" for by, _ in with_due) <= 2, "one open job, and one after the kill"
