"""A daemon whose document pins its plugins: code and document come, are mended, and go back together."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests import centrals, daemons
from tests.command_line import CommandLine
from tests.daemons import Daemon, running
from tests.pinned import pin, plugin_wheel
from tests.sample_packages import write_wheel
from tests.waiting import eventually

BROKEN = """
from toft_sdk import Plugin

class Echo(Plugin):
    name = "echo"
    version = "2.0"

    def initialize(self) -> None:
        raise RuntimeError("there is no such model")

    def execute(self, text: str = "") -> str:
        return "2.0: " + text
"""


class Fleet:
    """A daemon, the wheels it may have, and documents for it."""

    def __init__(self, daemon: Daemon, house: Path) -> None:
        self.daemon = daemon
        self.toft = daemon.toft
        self.house = house
        self.environments = daemon.toft.home / "environments"
        self.wheels = daemon.toft.home / "managed" / "store" / "wheels"

    def apply(self, plugins: Mapping[str, Any], *more: str, **sections: Any) -> dict[str, Any]:
        value = {"schema_version": 1, "health": {"settle_s": 0.1}, "plugins": plugins, **sections}
        path = self.toft.directory / "node.json"
        path.write_text(json.dumps(value))
        found: dict[str, Any] = self.toft("config", "apply", str(path), "--wait", "60", "--json", *more).value
        return found

    def says(self, instance: str = "echo") -> str | None:
        """What the plugin answers; None while it is not there."""
        return says(self.toft, instance)

    def restart(self) -> None:
        self.daemon.kill()
        assert self.toft("up", "--detach").status == 0

    def artifact(self) -> dict[str, str]:
        found: dict[str, str] = active(self.toft)["artifacts"][0]
        return found

    def change(self, text: str = "raise SystemExit(7)\n") -> Path:
        """Change the code of the plugin that runs, as a hand or a broken disk would."""
        (path,) = (self.environments / self.artifact()["tree"]).glob(
            "lib/python*/site-packages/echo_plugin.py"
        )
        path.chmod(0o644)
        path.write_text(text)
        for compiled in path.parent.glob("__pycache__/echo_plugin.*"):
            compiled.parent.chmod(0o755)
            compiled.unlink()
        return path


def says(toft: CommandLine, instance: str = "echo") -> str | None:
    """What a plugin answers; None while it is not there."""
    done = toft("run", instance, "--json", "text=hi")
    return done.value["result"] if done.status == 0 else None


def active(toft: CommandLine) -> dict[str, Any]:
    """What is kept of the document that counts, and of the code that belongs to it."""
    found: dict[str, Any] = json.loads((toft.home / "managed" / "active" / "meta.json").read_text())
    return found


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    house = tmp_path / "house"
    house.mkdir()
    with running(tmp_path / "home", tmp_path, wheelhouses=[str(house)]) as daemon:
        yield Fleet(daemon, house)


def pins(fleet: Fleet, version: str) -> dict[str, Any]:
    return {"echo": pin(plugin_wheel(fleet.house, version))}


def test_code_comes_goes_back_and_is_mended_with_its_document(fleet: Fleet) -> None:
    first = fleet.apply(pins(fleet, "1.0"), instances={"echo": {}})
    assert first["outcome"] == "confirmed"
    eventually(lambda: fleet.says() == "1.0: hi", within_s=30)
    one = fleet.artifact()
    second = fleet.apply(pins(fleet, "2.0"), instances={"echo": {}})
    assert second["outcome"] == "confirmed"
    eventually(lambda: fleet.says() == "2.0: hi", within_s=30)
    assert fleet.artifact()["tree"] != one["tree"]
    assert fleet.toft("plugin", "refresh", "echo", "--json").error["code"] == "plugin.pinned"
    assert fleet.toft("env", "gc", "--json").value["removed"] == []

    assert fleet.toft("config", "rollback", "--json").value["active"] == first["etag"]
    eventually(lambda: fleet.says() == "1.0: hi", within_s=30)
    assert fleet.artifact() == one
    third = fleet.apply(pins(fleet, "3.0"), instances={"echo": {}})
    fourth = fleet.apply(pins(fleet, "4.0"), instances={"echo": {}})
    assert fourth["outcome"] == "confirmed"
    eventually(lambda: one["tree"] not in os.listdir(fleet.environments), within_s=20)
    assert len(os.listdir(fleet.environments)) == len(os.listdir(fleet.wheels)) == 3, "and one more is kept"
    assert f"{one['sha256']}.whl" not in os.listdir(fleet.wheels)

    # T78: what was changed is made again from its wheels, the same to the byte
    whole = fleet.artifact()
    changed = fleet.change()
    fleet.restart()
    eventually(lambda: fleet.says() == "4.0: hi", within_s=30)
    assert "class Echo" in changed.read_text()
    assert fleet.artifact() == whole
    assert "was changed after it was installed" in fleet.daemon.log()

    # and without them the document before runs, with its own code
    fleet.change()
    shutil.rmtree(fleet.house)
    (fleet.wheels / f"{whole['sha256']}.whl").unlink()
    fleet.restart()
    eventually(lambda: fleet.says() == "3.0: hi", within_s=30)
    shown = fleet.toft("config", "show", "--json").value
    assert shown["active"] == third["etag"]
    assert shown["rolled_back"]["reason"] == "slot_corrupt"
    assert fourth["etag"] not in {each["etag"] for each in shown["bad"]}, "a broken disk condemns nobody"


def test_a_central_brings_the_wheels_with_the_document(tmp_path: Path) -> None:
    """A node that has no wheelhouse asks its central for what the document pins, by the hash."""
    wheel = plugin_wheel(tmp_path / "elsewhere", imports="import greetlib", requires=["greetlib"])
    library = write_wheel("greetlib", "1.0", {"greetlib.py": "X = 1\n"}, tmp_path / "elsewhere")
    toft = CommandLine(tmp_path / "home", tmp_path)
    with centrals.running(tmp_path) as central:
        for each in (wheel, library):
            central.add_artifact(each.read_bytes(), each.name)
        plugins = {"echo": pin(wheel, [library])}
        central.save({"plugins": plugins, "instances": {"echo": {}}, "health": {"settle_s": 0}})
        try:
            joined = toft("join", central.url, "--wait", "100", "--json", stdin=central.join_token())
            assert joined.status == 0, joined.err
            assert joined.value["outcome"] == "confirmed"
            done = toft("run", "echo", "--json", "text=hi")
            assert done.value["result"] == "1.0: hi"
        finally:
            toft("down", "--now")
            daemons.reap()


def test_a_bad_wheel_that_is_rolled_out_goes_back_with_its_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is imported and fails when it is loaded: the code before it answers again, and central knows why."""
    good = plugin_wheel(tmp_path / "elsewhere")
    bad = plugin_wheel(tmp_path / "elsewhere", "2.0", source=BROKEN)
    toft = CommandLine(tmp_path / "home", tmp_path)
    with centrals.running(tmp_path) as central:
        for each in (good, bad):
            central.add_artifact(each.read_bytes(), each.name)
        central.save(layer(good))
        try:
            joined = toft("join", central.url, "--wait", "100", "--json", stdin=central.join_token())
            assert joined.value["outcome"] == "confirmed"
            assert says(toft) == "1.0: hi"
            first = active(toft)

            saved = central.save(layer(bad), publish=False)
            rules = {"waves": [{"percent": 100, "bake_s": 1}], "abort_count": 1}
            body = {"document": saved["document"]["id"], "rules": rules}
            id = central.admin("POST", "rollouts", body)["id"]
            eventually(lambda: active(toft) != first, 60, "the bad document is staged")
            staged_at = time.monotonic()
            second = active(toft)
            assert second["artifacts"][0]["tree"] != first["artifacts"][0]["tree"]
            eventually(lambda: active(toft) == first, 60, "the document goes back, with what belongs to it")
            eventually(lambda: says(toft) == "1.0: hi", 60)
            took_s = time.monotonic() - staged_at
            with capsys.disabled():
                sys.stdout.write(f" the old code answered {took_s:.1f} s after the bad one was staged;")
            assert took_s < 60

            told = eventually(lambda: (now := central.admin("GET", f"rollouts/{id}"))["ended_at"] and now, 30)
            assert told["state"] == "aborted"
            assert told["reason"] == "1 of 1 node went back or failed: health_failed"
            (node,) = told["nodes"]
            assert (node["stage"], node["reason"]) == ("rolled_back", "health_failed")
            assert node["detail"].startswith("loaded: echo cannot be loaded: ")
            assert "RuntimeError: there is no such model" in node["detail"]
            assert (node["etag"], node["runs"]) == (second["etag"], first["etag"])
            assert active(toft) == first
        finally:
            toft("down", "--now")
            daemons.reap()


def layer(wheel: Path) -> dict[str, Any]:
    health = {"settle_s": 0.2, "gates": {"loaded": {"kind": "instances"}}}
    return {"plugins": {"echo": pin(wheel)}, "instances": {"echo": {}}, "health": health}
