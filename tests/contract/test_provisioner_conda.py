"""What the conda provisioner promises beyond the contract: the file, the tools, the pip section, errors."""

import functools
import http.server
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.sample_channel import make_channel, write_micromamba
from tests.sample_packages import write_project, write_wheel

from toft.kernel import errors
from toft.plugins.environments import (
    conda_environments,
    conda_files,
    conda_tools,
    environment_errors,
    environments,
    interpreters,
    provisioning,
    uv_environments,
)


@pytest.fixture
def channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    monkeypatch.setenv("RATTLER_CACHE_DIR", str(tmp_path / "rattler-cache"))
    write_wheel("pipped", "1.0", {"pipped.py": "X = 1\n"}, tmp_path / "wheelhouse")
    return make_channel(tmp_path / "channel")


def store_of(home: Path, tmp_path: Path, **chosen: Any) -> environments.Environments:
    options = uv_environments.UvOptions(offline=True, wheelhouses=(tmp_path / "wheelhouse",))
    uv = uv_environments.UvProvisioner(interpreters.Interpreters(), options)
    conda = conda_environments.CondaProvisioner(
        uv, conda_environments.CondaOptions(**{"tool": "rattler", "offline": True, **chosen})
    )
    return environments.Environments(home, [uv, conda])


def file_of(tmp_path: Path, channel: str, *dependencies: str) -> str:
    path = tmp_path / "environment.yml"
    lines = "".join(f"  - {each}\n" for each in dependencies)
    path.write_text(f"name: any\nchannels: ['{channel}', nodefaults]\ndependencies:\n{lines}")
    return str(path)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def test_the_pip_section_goes_in_with_hashes(toft_home: Path, tmp_path: Path, channel: str) -> None:
    write_project(tmp_path / "beside", "beside", {"beside.py": ""})
    file = file_of(tmp_path, channel, "python", "greetlib<2", "pip:\n    - pipped\n    - ./beside")
    environment = await store_of(toft_home, tmp_path).build(provisioning.EnvironmentRequest(env_file=file))
    assert {"python", "greetlib", "pipped", "beside"} <= set(environment.packages)
    assert "pipped==1.0 --hash=sha256:" in environment.lock
    assert not any(line.startswith("beside @") for line in environment.lock.splitlines())


async def test_the_file_may_come_from_an_address(
    toft_home: Path, tmp_path: Path, channel: str, served: str
) -> None:
    file_of(tmp_path, channel, "python")
    store = store_of(toft_home, tmp_path, offline=False)
    found = await store.build(provisioning.EnvironmentRequest(env_file=f"{served}/environment.yml"))
    assert set(found.packages) == {"python"}
    with pytest.raises(environment_errors.DownloadError, match="404"):
        await store.build(provisioning.EnvironmentRequest(env_file=f"{served}/nothing.yml"))
    offline = provisioning.EnvironmentRequest(env_file=f"{served}/environment.yml", offline=True)
    with pytest.raises(environment_errors.DownloadError, match="offline"):
        await store.build(offline)


async def test_a_channel_that_is_not_there_is_a_download_error(toft_home: Path, tmp_path: Path) -> None:
    file = file_of(tmp_path, (tmp_path / "nowhere").as_uri(), "python")
    with pytest.raises(environment_errors.DownloadError, match="rattler cannot solve"):
        await store_of(toft_home, tmp_path).build(provisioning.EnvironmentRequest(env_file=file))


async def test_a_wanted_python_is_asked_for(toft_home: Path, tmp_path: Path, channel: str) -> None:
    request = provisioning.EnvironmentRequest(env_file=file_of(tmp_path, channel, "greetlib"), python="3.99")
    with pytest.raises(environment_errors.UnsatisfiableError, match="python 3.99"):
        await store_of(toft_home, tmp_path).build(request)


async def test_a_package_that_changed_after_the_lock_is_refused(
    toft_home: Path, tmp_path: Path, channel: str
) -> None:
    repodata = tmp_path / "channel" / "noarch" / "repodata.json"
    data = json.loads(repodata.read_text())
    for record in data["packages"].values():
        record["sha256"] = "0" * 64
    repodata.write_text(json.dumps(data))
    with pytest.raises(errors.NodeError) as caught:
        await store_of(toft_home, tmp_path).build(
            provisioning.EnvironmentRequest(env_file=file_of(tmp_path, channel, "python"))
        )
    assert "hash" in caught.value.message.lower()
    assert os.listdir(toft_home / "environments") == []


async def test_micromamba_on_path_is_told_channels_prefix_and_exact_packages(
    toft_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = make_channel(tmp_path / "channel", zips=False)
    write_micromamba(tmp_path / "bin" / "micromamba", tmp_path / "log")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    file = file_of(tmp_path, channel, "greetlib<2")
    store = store_of(toft_home, tmp_path, tool="micromamba")
    environment = await store.build(provisioning.EnvironmentRequest(env_file=file))
    solve, install = (json.loads(line) for line in (tmp_path / "log").read_text().splitlines())
    common = ["--override-channels", "--channel", channel, "--offline"]
    assert solve[:5] == ["create", "--yes", "--json", "--dry-run", "--prefix"]
    assert solve[6:] == [*common, "greetlib<2", "python >=3.8"]
    assert install[:4] == ["install", "--yes", "--prefix", str(environment.path)]
    version = ".".join(map(str, sys.version_info[:3]))
    assert install[4:8] == common
    assert install[8] == "--no-deps"
    assert sorted(install[9:]) == ["greetlib=1.0=0", f"python={version}=0"]


def test_no_tool_says_what_to_install() -> None:
    with pytest.raises(errors.NotFoundError, match="micromamba") as caught:
        conda_tools.choose("micromamba", prefix=None, environ={"PATH": "/nonexistent"}, timeout_s=1)
    assert caught.value.code == "environment.no_conda_tool"
    assert "setup-runtime" in caught.value.hint


def test_a_bad_file_says_everything_that_is_wrong() -> None:
    value = {
        "channels": "main",
        "dependencies": ["--evil", 3, {"pip": ["--index-url x", "./relative"]}],
        "platforms": ["linux-64"],
    }
    with pytest.raises(environment_errors.SourceError) as caught:
        conda_files.parse(value, what="environment.yml")
    problems = " ".join(caught.value.details["problems"])
    for part in ("platforms", "channels", "'--evil'", "has 3,", "--index-url", "./relative"):
        assert part in problems


@pytest.mark.parametrize(
    ("text", "error"),
    [("[", "not YAML"), ("- a", "must be an object"), ("dependencies: []", "dependencies"), ("", "object")],
)
def test_an_unreadable_file_is_refused(tmp_path: Path, text: str, error: str) -> None:
    (tmp_path / "e.yml").write_text(text)
    with pytest.raises(environment_errors.SourceError, match=error):
        conda_files.read(str(tmp_path / "e.yml"))


@pytest.mark.parametrize(
    ("dependency", "is_there"),
    [
        ("python", True),
        ("python=3.12", True),
        ("main::python >=3.9", True),
        ("python-dateutil", False),
        ("ipython", False),
    ],
)
def test_python_is_always_asked_for(dependency: str, is_there: bool) -> None:
    found = conda_files.parse({"dependencies": [dependency]}, what="x")
    assert found.specs == ((dependency,) if is_there else (dependency, "python >=3.8"))
