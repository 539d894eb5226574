"""What a document pins, installed for real: wheels, environments, workers; nothing is looked up anywhere."""

import os
from pathlib import Path
from typing import Any

import pytest
from tests.pinned import document_of, pin, plugin_wheel
from tests.sample_packages import write_wheel

from toft import wiring
from toft.kernel import settings as node_settings
from toft.managed import generations, staging, trees
from toft.managed.document import Document, DocumentError


class Machine:
    """One home, and what is staged on it."""

    def __init__(self, home: Path, house: Path) -> None:
        self.home = home
        self.house = house
        self.engine = generations.Generations.at(home)
        self.settings = node_settings.read({}, directory=home.parent, home=home, wheelhouses=(house,))
        self.installer = wiring.open_installer(self.settings, os.environ)

    async def stage(self, offered: Document, **more: Any) -> staging.Staged:
        more = {"installer": self.installer, **more}
        return await staging.stage(self.engine, offered, nonce="cli", source="a test", **more)

    def prove(self) -> generations.Boot:
        boot = self.engine.boot("next")
        assert self.engine.confirm(boot)
        return boot

    @property
    def bad(self) -> dict[str, str]:
        return {each.etag: each.reason for each in self.engine.read().state.bad}

    def wheels(self) -> list[str]:
        directory = self.home / "managed" / "store" / "wheels"
        return sorted(os.listdir(directory)) if directory.exists() else []


@pytest.fixture
def machine(toft_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    house = tmp_path / "house"
    house.mkdir()
    return Machine(toft_home, house)


async def test_a_plugin_nobody_has_is_installed_before_the_document_is_checked_whole(
    machine: Machine,
) -> None:
    """T02, T04: an instance's configuration is held against the plugin that was only just installed."""
    library = write_wheel("greetlib", "1.0", {"greetlib.py": "X = 1\n"}, machine.house)
    wheel = plugin_wheel(machine.house, imports="import greetlib", requires=["greetlib>=1", "toft-sdk"])
    pins = {"echo": pin(wheel, [library])}
    wrong = document_of(pins, instances={"echo": {"config": {"nonsense": 1}}})
    with pytest.raises(DocumentError) as caught:
        await machine.stage(wrong)
    assert caught.value.details["problems"][0]["path"].startswith("instances.echo.config")
    assert machine.bad == {wrong.etag: "validation_failed"}
    assert machine.engine.read().active is None
    assert len(machine.wheels()) == 2, "what was installed stays"

    right = document_of(pins, instances={"echo": {}})
    assert (await machine.stage(right)).action == "applied"
    boot = machine.prove()
    (artifact,) = boot.meta.artifacts
    assert artifact["name"] == "echo"
    assert artifact["version"] == "1.0"
    kept = trees.Trees(machine.home)
    assert kept.problem(artifact) == ""
    found = kept.pinned(boot.meta.artifacts)["echo"]
    assert found.manifest["code"]["module"] == "echo_plugin"
    assert found.manifest["toft"]["environment"] == artifact["tree"]
