"""What a document pins, installed for real: wheels, environments, workers; nothing is looked up anywhere."""

import asyncio
import dataclasses
import json
import os
import zipfile
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.command_line import CommandLine
from tests.pinned import document_of, pin, plugin_wheel
from tests.sample_packages import write_wheel

from toft import wiring
from toft.kernel import errors
from toft.kernel import settings as node_settings
from toft.managed import building, collecting, document, generations, installing, staging, trees, wheels
from toft.managed.bundled import Bundled
from toft.managed.document import Document, DocumentError
from toft.managed.install_errors import InstallError


class Machine:
    """One home, and what is staged on it."""

    def __init__(self, home: Path, house: Path) -> None:
        self.home = home
        self.house = house
        self.engine = generations.Generations.at(home)
        self.boot = self.engine.boot("boot 0")
        self.settings = node_settings.read({}, directory=home.parent, home=home, wheelhouses=(house,))
        self.installer = wiring.open_installer(self.settings, os.environ)

    async def stage(self, offered: Document, **more: Any) -> staging.Staged:
        more = {"installer": self.installer, **more}
        return await staging.stage(self.engine, offered, nonce=self.boot.nonce, source="a test", **more)

    def prove(self) -> generations.Boot:
        self.boot = self.engine.boot(f"after {self.boot.nonce}")
        assert self.engine.confirm(self.boot)
        return self.boot

    @property
    def bad(self) -> dict[str, str]:
        return {each.etag: each.reason for each in self.engine.read().state.bad}

    def wheels(self) -> list[str]:
        directory = self.home / "managed" / "store" / "wheels"
        return sorted(os.listdir(directory)) if directory.exists() else []


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UV_CACHE_DIR", str(tmp_path_factory.mktemp("uv-cache")))
        yield


@pytest.fixture
def machine(toft_home: Path, tmp_path: Path, cache: None) -> Machine:
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


async def refused(machine: Machine, offered: Document) -> InstallError:
    """Stage what cannot be had, and see that what runs is untouched and who is blamed."""
    with pytest.raises(InstallError) as caught:
        await machine.stage(offered)
    assert machine.engine.read().active is None
    error = caught.value
    assert machine.bad == ({} if error.is_transient else {offered.etag: error.kind})
    return error


async def test_another_file_than_was_pinned_is_not_installed(machine: Machine) -> None:
    """T76."""
    told = pin(plugin_wheel(machine.house))
    offered = document_of({"echo": {**told, "sha256": "0" * 64}})
    error = await refused(machine, offered)
    assert error.kind == "artifact_hash_mismatch"
    assert machine.wheels() == []
    assert (await machine.stage(offered)).action == "skipped_bad_etag"


async def test_a_server_that_is_down_condemns_nobody(machine: Machine, tmp_path: Path) -> None:
    """T79: the same document, again, when the wheel can be had."""
    wheel = plugin_wheel(tmp_path / "elsewhere")

    class Central:
        is_up = False

        async def open(self, sha256: str) -> AsyncGenerator[bytes]:
            if not self.is_up:
                raise errors.UnavailableError("503")
            yield wheel.read_bytes()

    central = Central()
    machine.installer = wiring.open_installer(machine.settings, os.environ, central)
    offered = document_of({"echo": pin(wheel)})
    assert (await refused(machine, offered)).is_transient
    central.is_up = True
    assert (await machine.stage(offered)).action == "applied"
    assert machine.prove().etag == offered.etag


async def test_what_is_disabled_is_not_fetched_and_nobody_can_stage_without_an_installer(
    machine: Machine,
) -> None:
    """T08."""
    nowhere = {**pin(plugin_wheel(machine.house)), "filename": "gone-1.0-py3-none-any.whl"}
    with pytest.raises(errors.UnavailableError) as caught:
        await machine.stage(document_of({"gone": nowhere}), installer=None)
    assert caught.value.code == "generation.apply_engine_not_ready"
    assert machine.bad == {}
    assert (await machine.stage(document_of({"gone": {**nowhere, "enabled": False}}))).action == "applied"
    assert machine.wheels() == []


BROKEN = "raise RuntimeError('no such GPU')\n"
WHEELS: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "its import fails": (lambda house: pin(plugin_wheel(house, source=BROKEN)), "no such GPU"),
    "it is killed by its import": (
        lambda house: pin(plugin_wheel(house, source="import os; os._exit(3)\n")),
        "echo 1.0 cannot be installed",
    ),
    "it has no plugin": (
        lambda house: pin(write_wheel("echo-plugin", "1.0", {"echo.py": "X = 1\n"}, house)),
        "no plugin class",
    ),
    "something it needs is not pinned": (
        lambda house: pin(plugin_wheel(house, requires=["greetlib>=1"])),
        "needs greetlib>=1, which is not pinned",
    ),
    "something it needs is too old": (
        lambda house: pin(
            plugin_wheel(house, requires=["greetlib>=2"]),
            [write_wheel("greetlib", "1.0", {"greetlib.py": ""}, house)],
        ),
        "and 1.0 is pinned",
    ),
    "it is for another Python": (
        lambda house: _named(house, "echo_plugin-1.0-cp27-cp27m-win32.whl"),
        "is not for",
    ),
    "it is another wheel than its name says": (
        lambda house: _named(house, "other-1.0-py3-none-any.whl"),
        "says that it is echo-plugin 1.0",
    ),
    "it is no wheel": (lambda house: _written(house, b"not a zip"), "no wheel"),
    "it reaches out of its directory": (lambda house: _with_member(house, "../../evil.py"), "evil"),
}


def _named(house: Path, name: str) -> dict[str, Any]:
    return pin(plugin_wheel(house).rename(house / name))


def _written(house: Path, data: bytes) -> dict[str, Any]:
    path = plugin_wheel(house)
    path.write_bytes(data)
    return pin(path)


def _with_member(house: Path, name: str) -> dict[str, Any]:
    path = plugin_wheel(house)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "")
    return pin(path)


@pytest.mark.parametrize("name", WHEELS)
async def test_a_wheel_that_cannot_work_is_found_out_before_the_commit(machine: Machine, name: str) -> None:
    make, said = WHEELS[name]
    error = await refused(machine, document_of({"echo": make(machine.house)}))
    assert error.kind == "plugin_install_failed"
    assert said in error.message
    assert not error.is_transient
    assert error.hint or "cause" in error.details


async def test_an_import_that_never_ends_is_ended(machine: Machine) -> None:
    wheel = plugin_wheel(machine.house, source="import time\ntime.sleep(60)\n")
    machine.installer = wiring.open_installer(machine.settings, os.environ, import_s=1.0)
    async with asyncio.timeout(20):
        error = await refused(machine, document_of({"echo": pin(wheel)}))
    assert "was not imported" in error.message


async def test_what_somebody_changed_is_not_taken_for_what_was_installed(machine: Machine) -> None:
    """T21, T78: an environment is as good as its record, for the next document too."""
    pins = {"echo": pin(plugin_wheel(machine.house))}
    await machine.stage(document_of(pins))
    (artifact,) = machine.prove().meta.artifacts
    (module,) = (machine.home / "environments" / artifact["tree"]).glob("lib/*/site-packages/echo_plugin.py")
    module.chmod(0o644)
    module.write_text(module.read_text() + "# changed\n")
    machine.boot = machine.engine.boot("looks")
    assert machine.boot.damaged == ("echo",)
    await machine.stage(document_of(pins, settings={"lanes": 3}))
    assert "changed" not in module.read_text()
    boot = machine.prove()
    assert boot.damaged == ()
    assert boot.meta.artifacts == (artifact,)


async def test_two_plugins_of_one_document_share_wheels_and_nothing_else(machine: Machine) -> None:
    library = write_wheel("greetlib", "1.0", {"greetlib.py": "X = 1\n"}, machine.house)
    names = ("echo", "copy")
    wheels = [plugin_wheel(machine.house, name=name, imports="import greetlib") for name in names]
    pins = {name: pin(wheel, [library]) for name, wheel in zip(names, wheels, strict=True)}
    await machine.stage(document_of(pins))
    artifacts = machine.prove().meta.artifacts
    assert [each["name"] for each in artifacts] == ["copy", "echo"]
    assert len({each["tree"] for each in artifacts}) == 2
    assert len(machine.wheels()) == 3
    assert trees.Trees(machine.home).problems(artifacts) == {}


async def test_what_is_installed_is_not_collected_as_garbage(machine: Machine) -> None:
    await machine.stage(document_of({"echo": pin(plugin_wheel(machine.house))}))
    (artifact,) = machine.prove().meta.artifacts
    async with wiring.open_node(settings=machine.settings) as node:
        assert await node.installed.collect_environments() == ()
        with pytest.raises(errors.ConflictError):
            await node.installed.remove_environment(artifact["tree"])
        for change in (node.installed.remove, node.installed.refresh, node.installed.regenerate):
            with pytest.raises(errors.ConflictError) as caught:
                await change("echo")
            assert caught.value.code == "plugin.pinned"
        echo = await node.load("echo")
        assert await echo.call(text="hi") == "1.0: hi"
        assert [each.name for each in await node.plugins()] == ["echo"]
    record = json.loads((machine.home / "managed" / "store" / "recent.json").read_text())
    assert record["recent"][0]["trees"] == [artifact["tree"]]


async def test_what_the_command_prints_is_a_document(machine: Machine, tmp_path: Path) -> None:
    write_wheel("greetlib", "1.0", {"greetlib.py": "X = 1\n"}, machine.house)
    wheel = plugin_wheel(machine.house, imports="import greetlib", requires=["greetlib"])
    toft = CommandLine(machine.home, tmp_path)
    printed = await asyncio.to_thread(toft, "plugin", "pin", str(wheel))
    assert printed.status == 0, printed.err
    offered = document.author(b"schema_version = 1\n" + printed.out.encode(), "node.toml")
    assert (await machine.stage(offered)).action == "applied"
    assert machine.prove().meta.artifacts[0]["name"] == "echo"
    gone = await asyncio.to_thread(toft, "plugin", "pin", "nowhere.whl", "--json")
    assert gone.error["code"] == "source.not_found"


async def test_what_comes_with_toft_is_held_against_its_version_alone(machine: Machine) -> None:
    """T80: never fetched, whatever the hash says; another version is no plugin of these nodes."""
    own = Bundled(name="echo", version="1.0", module="toft_sdk.misbehaving", class_name="MisbehavingPlugin")
    told = {**pin(plugin_wheel(machine.house)), "sha256": "0" * 64}
    async with wiring.open_node(settings=machine.settings) as node:
        installer = installing.Installing(
            wheels.Wheels(machine.home, wheels.Places()),
            trees.Trees(machine.home),
            collecting.Keeping(machine.home),
            environments=building.PinnedEnvironments(node.rooms.installer, node.rooms.environments),
            knows=lambda name: None,
            came=lambda: {"echo": own},
        )
        other = {**told, "version": "2.0", "filename": "echo_plugin-2.0-py3-none-any.whl"}
        with pytest.raises(InstallError) as caught:
            await machine.stage(document_of({"echo": other}), installer=installer)
        assert caught.value.kind == "bundled_version_mismatch"
        assert not caught.value.is_transient
        assert list(machine.bad.values()) == ["bundled_version_mismatch"]
        (artifact,) = await installer.install(document_of({"echo": told}))
    assert machine.wheels() == []
    assert (artifact.version, artifact.tree) == ("1.0", trees.OWN)
    kept = trees.Trees(machine.home, came=lambda: {"echo": own})
    assert kept.problem(artifact.to_dict()) == ""
    found = kept.pinned([artifact.to_dict()])["echo"].manifest
    assert found["code"]["class"] == "MisbehavingPlugin"
    newer = trees.Trees(machine.home, came=lambda: {"echo": dataclasses.replace(own, version="3.0")})
    assert "3.0" in newer.problem(artifact.to_dict())
    assert "has none" in trees.Trees(machine.home, came=dict).problem(artifact.to_dict())
