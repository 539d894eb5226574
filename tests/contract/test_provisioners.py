"""What every provisioner promises, and what the store promises over it."""

import os
import subprocess
from pathlib import Path

import pytest
from tests.sample_packages import write_project, write_wheel

from toft.plugins import environments, interpreters, uv_environments


@pytest.fixture
def wheelhouse(tmp_path: Path) -> Path:
    house = tmp_path / "wheelhouse"
    write_wheel("greetlib", "1.0", {"greetlib.py": "VERSION = '1.0'\n"}, house)
    write_wheel("greetlib", "2.0", {"greetlib.py": "VERSION = '2.0'\n"}, house)
    return house


@pytest.fixture
def uv_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    return tmp_path / "uv-cache"


@pytest.fixture
def store(toft_home: Path, wheelhouse: Path, uv_cache: Path) -> environments.Environments:
    options = uv_environments.UvOptions(offline=True, wheelhouses=(wheelhouse,))
    provisioner = uv_environments.UvProvisioner(interpreters.Interpreters(), options)
    return environments.Environments(toft_home, [provisioner])


def printed(environment: environments.Environment, code: str) -> str:
    command = [environment.python, "-I", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


async def test_requirement_becomes_an_environment_that_runs(store: environments.Environments) -> None:
    request = environments.EnvironmentRequest(requirements=("greetlib",))
    environment = await store.build(request)
    assert environment.is_new
    assert environment.packages == {"greetlib": "2.0"}
    assert "greetlib==2.0 --hash=sha256:" in environment.lock
    assert printed(environment, "import greetlib; print(greetlib.VERSION)") == "2.0"
    assert store.list() == [environment]
    assert environment.size_bytes > 0


async def test_local_project_is_built_without_littering_it(
    store: environments.Environments, tmp_path: Path
) -> None:
    project = write_project(
        tmp_path / "hello", "hello", {"hello.py": "X = 1\n"}, requires=("greetlib<2", "toft-sdk")
    )
    before = sorted(os.listdir(project))
    environment = await store.build(environments.EnvironmentRequest(local_project=project))
    assert environment.packages == {"greetlib": "1.0", "hello": "1.0"}
    assert sorted(os.listdir(project)) == before
    assert str(tmp_path) not in environment.lock
