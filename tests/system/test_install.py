"""Installing plugins end to end: real interpreters, real environments, one process to ask the class."""

import asyncio
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.sample_packages import write_project, write_wheel

import toft_sdk
from toft.kernel import errors
from toft.plugins import install
from toft.plugins.artifacts import Artifacts
from toft.plugins.environments import (
    environment_errors,
    environments,
    interpreters,
    provisioning,
    sdk,
    uv_environments,
)
from toft.plugins.manifests import registry
from toft.plugins.manifests.manifest import Manifest

PLUGIN = '''
    """Says hello."""
    from toft_sdk import Plugin
    import greetlib

    class Hello(Plugin):
        """Greets people."""

        def execute(self, who: str = "world") -> str:
            return f"hello {who} from greetlib {greetlib.VERSION}"
'''
_ASK = (
    "import sys, json; sys.path.insert(0, sys.argv[1]); from toft_sdk import introspect;"
    "print(json.dumps(introspect.describe(sys.argv[2], sys.argv[3] or None)))"
)


class Node:
    """What a node's installer is made of, with a plain process in the place of the sandboxed worker."""

    def __init__(self, home: Path, wheelhouse: Path) -> None:
        options = uv_environments.UvOptions(offline=True, wheelhouses=(wheelhouse,))
        uv = uv_environments.UvProvisioner(interpreters.Interpreters(), options)
        self.home = home
        self.wheelhouse = wheelhouse
        self.sdk = sdk.SdkCopy(home)
        self.provisioners = [uv]
        self.store = environments.Environments(home, self.provisioners)
        self.registry = registry.Registry(home)
        self.installer = install.Installer(
            self.registry, self.store, self.describe, artifacts=Artifacts(home)
        )

    async def describe(
        self, environment: environments.Environment, module: str, class_name: str | None
    ) -> Mapping[str, Any]:
        command = [environment.python, "-I", "-c", _ASK, str(self.sdk.directory), module, class_name or ""]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            raise toft_sdk.errors.FatalError(done.stderr.splitlines()[-1])
        described: Mapping[str, Any] = json.loads(done.stdout)
        return described

    def leftovers(self) -> list[str]:
        found = [name for name in os.listdir(self.store.root) if name.startswith(".")]
        return found + [
            path.name for path in self.store.root.iterdir() if not (path / environments.RECORD).exists()
        ]


@pytest.fixture
def node(toft_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    house = tmp_path / "wheelhouse"
    write_wheel("greetlib", "1.0", {"greetlib.py": "VERSION = '1.0'\n"}, house)
    write_wheel("greetlib", "2.0", {"greetlib.py": "VERSION = '2.0'\n"}, house)
    return Node(toft_home, house)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "hello", "hello", {"hello.py": PLUGIN}, requires=("greetlib<2",))


async def test_add_installs_a_project_directory(node: Node, project: Path) -> None:
    said: list[str] = []
    [found] = await node.installer.add(install.Wish(source=str(project)), progress=said.append)
    assert found.name == "hello"
    assert found.code.module == "hello"
    assert found.code.class_name == "Hello"
    assert found.runtime.source == str(project)
    assert node.registry.list() == [found]
    assert [each.hash for each in node.store.list()] == [found.runtime.environment]
    assert any("resolving" in line for line in said)
    assert node.leftovers() == []


async def test_a_failed_add_leaves_nothing(node: Node, tmp_path: Path) -> None:
    bad = write_project(
        tmp_path / "bad",
        "bad",
        {"bad.py": PLUGIN + "\n    raise RuntimeError('no')\n"},
        requires=("greetlib",),
    )
    with pytest.raises(toft_sdk.errors.PluginError, match="RuntimeError: no"):
        await node.installer.add(install.Wish(source=str(bad)))
    assert node.registry.list() == []
    assert os.listdir(node.store.root) == []
    assert not (node.home / "plugins").exists()


async def test_a_failed_add_keeps_an_environment_that_others_use(node: Node, project: Path) -> None:
    await node.installer.add(install.Wish(source=str(project)))
    with pytest.raises(errors.UsageError):
        await node.installer.add(install.Wish(source=str(project), name="../x"))
    copy = write_project(project.parent / "other", "hello", {"hello.py": PLUGIN}, requires=("greetlib<2",))
    with pytest.raises(errors.ConflictError, match="installed already"):
        await node.installer.add(install.Wish(source=str(copy)))
    [kept] = node.store.list()
    assert node.registry.get("hello").runtime.environment == kept.hash
    assert not node.installer.collect()


TWO = (
    PLUGIN
    + """
    class Bye(Hello):
        pass

    class Again(Plugin):
        name = "again"

        def execute(self) -> None:
            pass
"""
)


def rewritten(project: Path, text: str) -> None:
    (project / "hello.py").write_text(textwrap.dedent(text))


async def test_every_plugin_of_a_project_is_installed_or_one_by_its_name(node: Node, tmp_path: Path) -> None:
    both = write_project(
        tmp_path / "both",
        "both",
        {"both.py": TWO},
        requires=("greetlib",),
        entry_points={"greeter": "both:Hello", "again": "both:Again"},
    )
    found = await node.installer.add(install.Wish(source=str(both)))
    assert [each.name for each in found] == ["again", "greeter"]
    assert len(node.store.list()) == 1
    assert node.installer.remove("again")
    assert len(node.store.list()) == 1
    [only] = await node.installer.add(install.Wish(source=str(both), name="again"))
    assert only.code.class_name == "Again"
    with pytest.raises(environment_errors.SourceError, match="--name must be one of theirs: again, greeter"):
        await node.installer.add(install.Wish(source=str(both), name="other"))


async def test_two_plugins_of_one_name_are_refused_unless_forced(node: Node, project: Path) -> None:
    [first] = await node.installer.add(install.Wish(source=str(project)))
    other = write_project(project.parent / "other", "other", {"other.py": PLUGIN}, requires=("greetlib",))
    with pytest.raises(errors.ConflictError, match="hello is installed already") as caught:
        await node.installer.add(install.Wish(source=str(other), name="hello"))
    assert caught.value.code == "plugin.exists"
    assert node.registry.list() == [first]
    assert len(node.store.list()) == 1
    [second] = await node.installer.add(install.Wish(source=str(other), name="hello"), force=True)
    assert node.registry.list() == [second]
    assert [each.hash for each in node.installer.collect()] == [first.runtime.environment]


@pytest.mark.parametrize("name", ["../evil", "a\nb", "", "UPPER", "x" * 65])
async def test_a_name_that_is_none_is_refused(node: Node, tmp_path: Path, name: str) -> None:
    evil = write_project(
        tmp_path / "evil",
        "evil",
        {"evil.py": PLUGIN.replace("class Hello(Plugin):", f"class Hello(Plugin):\n        name = {name!r}")},
        requires=("greetlib",),
    )
    with pytest.raises((errors.NodeError, toft_sdk.errors.PluginError)):
        await node.installer.add(install.Wish(source=str(evil)))
    assert node.registry.list() == []
    assert os.listdir(node.store.root) == []
    assert not (node.home / "evil").exists()


async def test_refresh_builds_beside_and_swaps(node: Node, project: Path) -> None:
    wish = install.Wish(source=str(project), name="mine", python=sys.executable, env_vars={"A": "1"})
    [old] = await node.installer.add(wish)
    rewritten(project, PLUGIN.replace("Greets people.", "Greets everybody."))
    new = await node.installer.refresh("mine")
    assert new.code.description == "Greets everybody."
    assert (new.name, new.install.env_vars) == ("mine", {"A": "1"})
    assert new.runtime.environment != old.runtime.environment
    assert node.registry.get("mine") == new
    assert len(node.store.list()) == 2
    assert [each.hash for each in node.installer.collect()] == [old.runtime.environment]


async def test_a_refresh_that_fails_changes_nothing(node: Node, project: Path) -> None:
    [old] = await node.installer.add(install.Wish(source=str(project)))
    rewritten(project, "raise RuntimeError('broken')")
    with pytest.raises(environment_errors.SourceError, match="no plugin class"):
        await node.installer.refresh("hello")
    assert node.registry.list() == [old]
    assert [each.hash for each in node.store.list()] == [old.runtime.environment]


async def test_refresh_takes_the_newest_that_fits(node: Node, project: Path) -> None:
    [old] = await node.installer.add(install.Wish(source=str(project)))
    assert "greetlib==1.0 " in old.runtime.lock
    write_wheel("greetlib", "1.5", {"greetlib.py": "VERSION = '1.5'\n"}, node.wheelhouse)
    assert "greetlib==1.5 " in (await node.installer.refresh("hello")).runtime.lock


async def test_regenerate_asks_again_and_keeps_the_environment(node: Node, project: Path) -> None:
    [old] = await node.installer.add(install.Wish(source=str(project)))
    new = await node.installer.regenerate("hello")
    assert new.code.regenerated_at
    assert new.install == old.install
    assert new.runtime == old.runtime


async def test_check_says_what_is_wrong(node: Node, project: Path) -> None:
    await node.installer.add(install.Wish(source=str(project)))
    assert [(each.check, each.ok) for each in await node.installer.check("hello")] == [
        ("environment", True),
        ("import", True),
        ("drift", True),
    ]
    [environment] = node.store.list()
    node.store.remove(environment.hash)
    [finding] = await node.installer.check("hello")
    assert not finding.ok
    assert finding.next == "toft plugin refresh hello"
    await node.installer.refresh("hello")
    assert all(each.ok for each in await node.installer.check("hello"))


async def test_an_environment_in_use_outlives_its_plugin(node: Node, project: Path) -> None:
    await node.installer.add(install.Wish(source=str(project)))
    [environment] = node.store.list()
    with node.store.hold(environment.hash):
        assert node.installer.remove("hello")
        assert node.store.list() == [environment]
        assert node.installer.collect() == ()
    assert node.installer.collect() == (environment,)


async def test_a_manifest_that_cannot_be_read_keeps_its_environment(node: Node, project: Path) -> None:
    [found] = await node.installer.add(install.Wish(source=str(project)))
    path = node.home / "plugins" / "hello" / "manifest.json"
    path.write_text(path.read_text()[:-20])
    assert node.installer.collect() == ()
    assert node.store.find(found.runtime.environment)


async def test_a_plugins_yaml_installs_what_it_can_and_names_the_rest(
    node: Node, project: Path, tmp_path: Path
) -> None:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    entry = "  - {{name: {0}, env_name: env-{0}, package: {1}, python_version: '{2}', env_vars: {{A: b}}}}\n"
    listed = tmp_path / "plugins.yaml"
    listed.write_text(
        "plugins:\n"
        + entry.format("first", "./hello", version)
        + entry.format("second", "nowhere-to-be-found", version)
        + entry.format("third", "./hello", version)
    )
    with pytest.raises(errors.NodeError) as caught:
        await node.installer.add(install.Wish(source=str(listed)))
    assert list(caught.value.details["failed"]) == ["second"]
    found = node.registry.list()
    assert [each.name for each in found] == ["first", "third"]
    assert (found[0].install.conda_env, found[0].install.env_vars) == ("env-first", {"A": "b"})
    assert len(node.store.list()) == 1


async def test_a_cancelled_add_leaves_nothing(node: Node, project: Path) -> None:
    describing = asyncio.Event()

    async def describe(*_: object) -> Mapping[str, Any]:
        describing.set()
        await asyncio.Event().wait()
        raise AssertionError

    installer = install.Installer(node.registry, node.store, describe, artifacts=Artifacts(node.home))
    adding = asyncio.create_task(installer.add(install.Wish(source=str(project))))
    await asyncio.wait_for(describing.wait(), 30)
    assert node.store.list()
    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding
    assert os.listdir(node.store.root) == []
    assert node.registry.list() == []


async def test_an_add_that_is_cancelled_in_its_last_step_is_whole(node: Node, project: Path) -> None:
    writing, may, loop = asyncio.Event(), threading.Event(), asyncio.get_running_loop()

    class Slow(registry.Registry):
        def write(self, manifest: Manifest, *, replace: bool = True) -> Path:
            loop.call_soon_threadsafe(writing.set)
            may.wait(30)
            return super().write(manifest, replace=replace)

    installer = install.Installer(Slow(node.home), node.store, node.describe, artifacts=Artifacts(node.home))
    adding = asyncio.create_task(installer.add(install.Wish(source=str(project))))
    await asyncio.wait_for(writing.wait(), 30)
    for _ in range(2):
        adding.cancel()
        await asyncio.sleep(0)
    # Long enough for whoever does not wait to take the environment away.
    await asyncio.wait((adding,), timeout=0.2)
    may.set()
    await asyncio.wait((adding,))
    assert adding.cancelled()
    [found] = node.registry.list()
    assert [each.hash for each in node.store.list()] == [found.runtime.environment]


async def test_a_failure_spares_the_environment_another_add_is_using(node: Node, project: Path) -> None:
    failing, failed = asyncio.Event(), asyncio.Event()

    async def fail(*_: object) -> Mapping[str, Any]:
        failing.set()
        await failed.wait()
        raise toft_sdk.errors.FatalError("no")

    bad = install.Installer(node.registry, node.store, fail, artifacts=Artifacts(node.home))
    first = asyncio.create_task(bad.add(install.Wish(source=str(project), name="bad")))
    await asyncio.wait_for(failing.wait(), 30)
    [environment] = node.store.list()
    with node.store.hold(environment.hash):
        failed.set()
        with pytest.raises(toft_sdk.errors.FatalError):
            await first
        assert node.store.list() == [environment]


async def test_the_sdk_is_compiled_once_for_each_interpreter_and_placed_once(node: Node) -> None:
    store = environments.Environments(node.home, node.provisioners, prepare=node.sdk.prepare)
    environment = await store.build(provisioning.EnvironmentRequest(requirements=("greetlib",)))
    package = Path(node.sdk.boot_path()).parent
    compiled = {
        path.name.split(".")[0] for path in package.glob(f"__pycache__/*.{environment.cache_tag}.pyc")
    }
    assert compiled == {path.stem for path in package.glob("*.py")}
    for path in package.glob("__pycache__/*.pyc"):
        # Unchecked: neither the source's date nor its hash is looked at when it is loaded.
        assert int.from_bytes(path.read_bytes()[4:8], "little") == 0b01
    before = {path: path.stat().st_mtime_ns for path in package.rglob("*.pyc")}
    assert (
        await sdk.SdkCopy(node.home).prepare(environment.python, environment.cache_tag)
        == node.sdk.boot_path()
    )
    assert {path: path.stat().st_mtime_ns for path in package.rglob("*.pyc")} == before
    assert os.listdir(node.home / "sdk") == [package.parent.name]
    with pytest.raises(errors.NodeError) as caught:
        await node.sdk.prepare("/bin/false", "another")
    assert caught.value.code == "environment.sdk_refused"
