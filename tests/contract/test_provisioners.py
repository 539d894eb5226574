"""What every provisioner promises; each one runs all of it."""

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.sample_channel import make_channel, write_micromamba, write_pixi
from tests.sample_packages import write_project, write_wheel

from toft.plugins.environments import (
    conda_environments,
    conda_tools,
    environment_errors,
    environments,
    interpreters,
    provisioning,
    uv_environments,
)


@dataclass
class Kind:
    """A store with one provisioner, and how to ask it for packages."""

    store: environments.Environments
    request: Callable[..., provisioning.EnvironmentRequest]
    kind: str


@pytest.fixture(params=["uv", "rattler", "micromamba", "pixi"])
def kind(
    request: pytest.FixtureRequest, toft_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Kind:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    monkeypatch.setenv("RATTLER_CACHE_DIR", str(tmp_path / "rattler-cache"))
    house = tmp_path / "wheelhouse"
    for version in ("1.0", "2.0"):
        write_wheel("greetlib", version, {"greetlib.py": f"VERSION = '{version}'\n"}, house)
    write_wheel("other", "1.0", {"other.py": ""}, house, requires=["greetlib<2"])
    options = uv_environments.UvOptions(offline=True, wheelhouses=(house,))
    uv = uv_environments.UvProvisioner(interpreters.Interpreters(), options)
    if request.param == "uv":

        def ask(*wanted: str, **more: object) -> provisioning.EnvironmentRequest:
            return provisioning.EnvironmentRequest(requirements=wanted, **more)  # type: ignore[arg-type]

        return Kind(environments.Environments(toft_home, [uv]), ask, "uv")
    return _conda(request.param, toft_home, tmp_path, uv)


def _conda(tool: str, home: Path, tmp_path: Path, uv: uv_environments.UvProvisioner) -> Kind:
    channel = make_channel(tmp_path / "channel", zips=tool == "rattler")
    programs = tmp_path / "prefix" / "bin"
    micromamba = write_micromamba(programs / "micromamba", tmp_path / "micromamba.log")
    write_pixi(programs / "pixi", micromamba, conda_tools.subdir())
    chosen = conda_environments.CondaOptions(tool=tool, offline=True, prefix=tmp_path / "prefix")
    conda = conda_environments.CondaProvisioner(uv, chosen)

    def ask(*wanted: str, **more: object) -> provisioning.EnvironmentRequest:
        file = tmp_path / f"environment-{len(os.listdir(tmp_path))}.yml"
        lines = "".join(f"  - {each.replace('==', '=').replace('<', ' <')}\n" for each in ("python", *wanted))
        file.write_text(f"name: x\nchannels:\n  - {channel}\ndependencies:\n{lines}")
        return provisioning.EnvironmentRequest(env_file=str(file), **more)  # type: ignore[arg-type]

    return Kind(environments.Environments(home, [uv, conda]), ask, "conda")


def printed(environment: environments.Environment, code: str) -> str:
    command = [environment.python, "-I", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


async def test_a_request_becomes_an_environment_that_runs(kind: Kind) -> None:
    said: list[str] = []
    environment = await kind.store.build(kind.request("greetlib"), said.append)
    assert environment.is_new
    assert environment.kind == kind.kind
    assert environment.packages["greetlib"] == "2.0"
    assert environment.python.startswith(str(environment.path))
    assert environment.python_version == printed(
        environment, "import platform; print(platform.python_version())"
    )
    assert environment.cache_tag == printed(environment, "import sys; print(sys.implementation.cache_tag)")
    assert printed(environment, "import greetlib; print(greetlib.VERSION)") == "2.0"
    assert printed(environment, "import sys; print(sys.prefix)") == str(environment.prefix)
    assert environment.prefix == environment.path or environment.path in environment.prefix.parents
    assert kind.store.list() == [environment]
    assert environment.size_bytes > 0
    assert said


async def test_every_package_is_locked_with_its_hash(kind: Kind) -> None:
    environment = await kind.store.build(kind.request("greetlib==1.0"))
    assert environment.packages["greetlib"] == "1.0"
    assert all("sha256:" in line for line in environment.lock.splitlines())


async def test_equal_requests_share_one_environment(kind: Kind) -> None:
    one = await kind.store.build(kind.request("greetlib"))
    two = await kind.store.build(kind.request("greetlib==2.0"))
    other = await kind.store.build(kind.request("greetlib==1.0"))
    assert one == two
    assert (one.is_new, two.is_new, other.is_new) == (True, False, True)
    assert other.hash != one.hash


async def test_files_belong_to_one_environment_and_are_read_only(kind: Kind) -> None:
    environment = await kind.store.build(kind.request("greetlib"))
    for path in (environment.path, *environment.path.rglob("*")):
        if not path.is_symlink():
            assert path.stat().st_mode & 0o222 == 0, path
        if path.is_file() and not path.is_symlink():
            assert path.stat().st_nlink == 1, path
    assert list(environment.path.rglob("__pycache__/greetlib.*.pyc"))


async def test_what_cannot_be_resolved_is_refused_and_leaves_nothing(kind: Kind) -> None:
    with pytest.raises(environment_errors.UnsatisfiableError) as caught:
        await kind.store.build(kind.request("greetlib==2.0", "other"))
    assert caught.value.code == "environment.unsatisfiable"
    assert "greetlib" in caught.value.message
    assert os.listdir(kind.store.root) == []


async def test_size_is_known_before(kind: Kind) -> None:
    estimate = await kind.store.size(kind.request("greetlib==1.0"))
    assert estimate.is_complete
    assert estimate.download_bytes > 0
    assert os.listdir(kind.store.root) == []


async def test_a_local_project_goes_in_and_its_directory_is_not_touched(kind: Kind, tmp_path: Path) -> None:
    project = write_project(
        tmp_path / "hello", "hello", {"hello.py": "X = 1\n"}, requires=("greetlib<2", "toft-sdk")
    )
    before = sorted(os.listdir(project))
    wanted = () if kind.kind == "uv" else ("python",)
    environment = await kind.store.build(kind.request(*wanted, local_project=project))
    assert (environment.packages["hello"], environment.packages["greetlib"]) == ("1.0", "1.0")
    assert environment.local_name == "hello"
    assert printed(environment, "import hello, greetlib; print(greetlib.VERSION)") == "1.0"
    assert sorted(os.listdir(project)) == before
    assert str(project) not in environment.lock
    assert list(environment.path.rglob("__pycache__/hello.*.pyc"))


async def test_removal_takes_everything(kind: Kind) -> None:
    environment = await kind.store.build(kind.request("greetlib"))
    assert kind.store.gc({environment.hash}) == ()
    assert kind.store.remove(environment.hash)
    assert os.listdir(kind.store.root) == []
    assert not kind.store.remove(environment.hash)
