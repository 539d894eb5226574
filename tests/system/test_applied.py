"""What a document declares is there on a running node, stays as it says, and goes with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

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
    with running(home, directory) as made:
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


def declared(daemon: Daemon) -> dict[str, dict[str, Any]]:
    asked = daemon.toft("status", "--json")
    found = asked.value.get("document") if asked.status == 0 else None
    return {each["instance"]: each for each in found["instances"]} if found else {}


def state(daemon: Daemon, instance: str) -> str:
    return str(declared(daemon).get(instance, {}).get("state"))


def where(daemon: Daemon, instance: str) -> dict[str, Any]:
    done = daemon.toft("run", "misbehaving.where", "--instance", instance, "--json")
    assert done.status == 0, done.err
    found: dict[str, Any] = done.value["result"]
    return found


def test_instances_are_loaded_as_declared_kept_so_and_taken_back(daemon: Daemon) -> None:
    toft = daemon.toft
    toft("plugin", "config", "misbehaving", "--instance", "left", "label=mine")
    one = {"plugin": "misbehaving", "config": {"label": "one"}}
    first = apply(daemon, instances={"left": one, "off": {**one, "enabled": False}})
    eventually(lambda: state(daemon, "left") == "ready", within_s=20)
    assert where(daemon, "left")["label"] == "one"
    assert state(daemon, "off") == "disabled"
    shown = toft("status", "--json").value["document"]
    assert shown["etag"] == first
    assert [(each["section"], each["key"]) for each in shown["local_not_applied"]] == [("instances", "left")]

    for command in (
        ("plugin", "config", "misbehaving", "--instance", "left", "label=other"),
        ("plugin", "disable", "misbehaving", "--instance", "left"),
        ("plugin", "options", "misbehaving", "--instance", "left", "concurrency=2"),
        ("plugin", "enable", "misbehaving", "--instance", "off"),
        ("plugin", "remove", "misbehaving"),
    ):
        error = toft(*command, "--json").error
        assert error["code"] == "instance.declared", command
        assert "toft config apply" in error["hint"]
    for method, path in (("DELETE", "/v1/instances/left"), ("POST", "/v1/instances/left/disable")):
        assert daemon.request(method, path).status == 409
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
    apply(daemon)


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
