"""What `toft plugin new` writes works as it is: alone, under its own tests, installed, and examined."""

import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.interpreters import interpreter
from tests.workers import worker

import toft
import toft_sdk
from toft.plugins import conformance, scaffold
from toft.plugins.wire.connection import Connection

SDK = str(Path(toft_sdk.__file__).parent.parent)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    scaffold.write("say-hello", tmp_path)
    return tmp_path / "say-hello"


def run(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": SDK, "UV_LINK_MODE": "copy"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("version", ["3.8", "3.13"])
def test_it_runs_alone_with_plain_python(project: Path, version: str) -> None:
    printed = run([interpreter(version), "src/say_hello_plugin/__init__.py", "text=Ada"], project)
    assert printed == '"Hello, Ada!"\n'


def test_its_own_test_passes(project: Path) -> None:
    assert "1 passed" in run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider"], project)


@pytest.mark.parametrize("version", ["3.8", "3.13"])
async def test_installed_it_keeps_its_promises(project: Path, tmp_path: Path, version: str) -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    environment = tmp_path / "environment"
    run([uv, "venv", "--quiet", "--python", interpreter(version), str(environment)], tmp_path)
    python = str(environment / "bin" / "python")
    # No network: its build backend is part of uv.
    run([uv, "pip", "install", "--quiet", "--offline", "--python", python, str(project)], tmp_path)

    @contextlib.asynccontextmanager
    async def open_worker(module: str, class_name: str | None) -> AsyncIterator[Connection]:
        async with worker(class_name, module=module, python=python) as running:
            yield running.connection

    found = await conformance.examine(open_worker, "say_hello_plugin", "SayHello")
    assert [each for each in found if not each.ok] == []
    assert "example 1 holds in a worker" in [each.check for each in found]


@pytest.mark.parametrize("version", ["3.8", "3.12"])
def test_a_node_examines_installs_and_runs_it_without_an_edit(project: Path, version: str) -> None:
    python = interpreter(version)
    with toft.connect() as node:
        found = node.installed.test(str(project), python=python)
        assert [each for each in found if not each.ok] == []
        assert node.plugins() == []
        (added,) = node.installed.add(str(project), python=python)
        assert (added.name, added.runtime.python_version.startswith(version)) == ("say-hello", True)
        assert added.code.version == "0.1.0"
        plugin = node.load("say-hello")
        assert plugin.call() == "Hello, world!"
        assert plugin.call(text="Ada") == "Hello, Ada!"
        with pytest.raises(toft_sdk.InputError) as caught:
            plugin.call(txt="Ada")
        assert caught.value.fields == {"txt": "unknown; did you mean text?"}
