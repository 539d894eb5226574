"""Installing plugins end to end: real interpreters, real environments, one process to ask the class."""

import asyncio
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.sample_packages import write_project, write_wheel

import toft_sdk
from toft.kernel import errors
from toft.plugins import environments, install, interpreters, registry, sdk, uv_environments

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
        self.sdk = sdk.SdkCopy(home)
        self.store = environments.Environments(home, [uv], prepare=self.sdk.prepare)
        self.registry = registry.Registry(home)
        self.installer = install.Installer(self.registry, self.store, self.describe)

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
