"""Installing through a node: the worker that describes and runs a plugin is the real one, in its sandbox."""

import json
import os
import textwrap
from pathlib import Path
from typing import Any

import pytest
from tests import nodes
from tests.namespaces import skip_without
from tests.sample_channel import make_channel
from tests.sample_packages import write_project, write_wheel

from toft.kernel import errors
from toft.plugins.node import Node
from toft_sdk import errors as plugin_errors

PLUGIN = '''
    from toft_sdk import Plugin, action

    class Hello(Plugin):
        """Greets people."""

        def execute(self, who: str = "world") -> str:
            import greetlib
            return "hello " + who + " from greetlib " + greetlib.VERSION

        @action
        def prefix(self) -> str:
            import sys
            return sys.prefix

        @action
        def scribble(self) -> str:
            import greetlib
            with open(greetlib.__file__, "a") as file:
                file.write("VERSION = 'mine'")
            return "written"
'''


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    monkeypatch.setenv("RATTLER_CACHE_DIR", str(tmp_path / "rattler-cache"))
    house = tmp_path / "wheelhouse"
    write_wheel("greetlib", "1.0", {"greetlib.py": "VERSION = '1.0'\n"}, house)
    return house


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "hello", "hello", {"hello.py": PLUGIN}, requires=("greetlib",))


def running(home: Path, house: Path) -> Any:
    return nodes.running(home, offline=True, wheelhouses=[str(house)])


async def called(node: Node, name: str, action: str | None = None, **arguments: Any) -> Any:
    instance = await node.load(name)
    try:
        return await instance.call(action, **arguments)
    finally:
        await instance.unload()


async def test_a_plugin_is_added_runs_and_is_removed(toft_home: Path, house: Path, project: Path) -> None:
    async with running(toft_home, house) as node:
        [added] = await node.installed.add(str(project))
        assert await called(node, "hello", who="you") == "hello you from greetlib 1.0"
        [environment] = await node.installed.environments()
        assert await called(node, "hello", "prefix") == str(environment.path)
        assert added.runtime.environment == environment.hash
        assert (await node.installed.size("hello")).exists
        await node.remove("hello")
        assert os.listdir(toft_home / "environments") == []


async def test_a_worker_cannot_write_into_its_environment(
    toft_home: Path, house: Path, project: Path
) -> None:
    async with running(toft_home, house) as node:
        await node.installed.add(str(project))
        with pytest.raises(plugin_errors.PluginError, match=r"(?i)read-only|permission"):
            await called(node, "hello", "scribble")


async def test_an_environment_yml_becomes_a_prefix_a_worker_runs_in(
    toft_home: Path, house: Path, project: Path, tmp_path: Path
) -> None:
    channel = make_channel(tmp_path / "channel")
    file = tmp_path / "environment.yml"
    file.write_text(f"channels: ['{channel}']\ndependencies: [python, 'greetlib 2.*']\n")
    project = write_project(tmp_path / "conda", "conda-hello", {"hello.py": PLUGIN})
    async with running(toft_home, house) as node:
        [added] = await node.installed.add(str(project), env_file=str(file))
        assert added.runtime.environment_kind == "conda"
        assert await called(node, "hello") == "hello world from greetlib 2.0"
        [environment] = await node.installed.environments()
        assert await called(node, "hello", "prefix") == str(environment.path)


async def test_a_loaded_plugins_environment_is_not_collected(
    toft_home: Path, house: Path, project: Path
) -> None:
    async with running(toft_home, house) as node:
        await node.installed.add(str(project))
        instance = await node.load("hello")
        await node.installed.remove("hello")
        assert await node.installed.collect_environments() == ()
        assert await instance.call() == "hello world from greetlib 1.0"
        await instance.unload()
        assert len(await node.installed.collect_environments()) == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("raise RuntimeError('not today')", None),
        ("import os\nos._exit(3)", None),
        ("import os\nos.kill(os.getpid(), 11)", None),
        ("import missing_module", None),
    ],
)
async def test_a_plugin_that_cannot_be_described_leaves_nothing(
    toft_home: Path, house: Path, tmp_path: Path, body: str, code: str | None
) -> None:
    text = f"from toft_sdk import Plugin\nclass Bad(Plugin): ...\n{body}\n"
    project = write_project(tmp_path / "bad", "bad", {"bad.py": text})
    async with running(toft_home, house) as node:
        with pytest.raises((errors.NodeError, plugin_errors.PluginError)):
            await node.installed.add(str(project))
        assert await node.installed.list() == []
    assert os.listdir(toft_home / "environments") == []
    assert list((toft_home / "plugins").glob("*")) == []


HOSTILE = """
import json, os, pathlib

def tried(path):
    try:
        pathlib.Path(path).write_text("x")
        return "written"
    except OSError as error:
        return type(error).__name__

home = pathlib.Path({home!r})
found = {{
    "home": sorted(os.listdir(home)),
    "environments": [len(name) for name in os.listdir(home / "environments")],
    "person": tried(os.path.expanduser("~/.toft-was-here")),
    "tmp": tried("/tmp/toft-was-here"),
    "beside": tried({beside!r}),
    "own": tried("here"),
}}
pathlib.Path("found.json").write_text(json.dumps(found))
"""


async def test_the_build_of_a_package_is_confined_like_a_worker(
    toft_home: Path, house: Path, tmp_path: Path
) -> None:
    project = write_project(tmp_path / "nosy", "nosy", {"nosy.py": PLUGIN, "found.json": "{}"})
    backend = (project / "backend.py").read_text()
    text = HOSTILE.format(home=str(toft_home), beside=str(project / "beside"))
    (project / "backend.py").write_text(text + backend)
    async with running(toft_home, house) as node:
        if node.rooms.isolation.mode != "namespaces":
            skip_without(node.rooms.isolation.reason)
        await node.installed.add(str(project), requirements=["greetlib"])
        [environment] = await node.installed.environments()
    found = json.loads(next(environment.path.glob("lib/python*/site-packages/found.json")).read_text())
    assert found["home"] == ["environments"]
    # Its own working directory alone: no other environment, no database, no secrets.
    assert found["environments"] == [len(".work-") + 26]
    assert found["own"] == "written"
    assert {found[name] for name in ("person", "tmp", "beside")} <= {"OSError", "PermissionError"}
    assert not (project / "beside").exists()


async def test_one_file_with_its_requirements_in_it_is_a_plugin(
    toft_home: Path, house: Path, tmp_path: Path
) -> None:
    block = "# /// script\n# dependencies = ['greetlib']\n# ///\n"
    (tmp_path / "single.py").write_text(block + textwrap.dedent(PLUGIN))
    async with running(toft_home, house) as node:
        [added] = await node.installed.add(str(tmp_path / "single.py"))
        assert (added.name, added.code.module) == ("hello", "single")
        assert await called(node, "hello") == "hello world from greetlib 1.0"
        (tmp_path / "single.py").write_text(block + textwrap.dedent(PLUGIN).replace("hello ", "good day "))
        await node.refresh("hello")
        assert await called(node, "hello") == "good day world from greetlib 1.0"
