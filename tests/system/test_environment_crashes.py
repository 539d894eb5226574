"""A build that is killed at any moment leaves all of an environment or nothing, and no process."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.sample_packages import write_project, write_wheel
from tests.waiting import eventually, eventually_async

from toft.kernel import errors
from toft.plugins.environments import (
    environment_errors,
    environments,
    interpreters,
    provisioning,
    uv_environments,
)
from toft.plugins.manifests import registry

BIG = "X = '" + "x" * 4_000_000 + "'\n"
DRIVER = str(Path(__file__).with_name("environment_driver.py"))


@pytest.fixture
def wheelhouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    house = tmp_path / "wheelhouse"
    modules = {f"greetlib/m{number}.py": f"X = {number}\n" * 50 for number in range(40)}
    write_wheel("greetlib", "1.0", {"greetlib/__init__.py": "VERSION = '1.0'\n", **modules}, house)
    return house


def store_of(home: Path, wheelhouse: Path) -> environments.Environments:
    options = uv_environments.UvOptions(offline=True, wheelhouses=(wheelhouse,))
    return environments.Environments(
        home, [uv_environments.UvProvisioner(interpreters.Interpreters(), options)]
    )


def start(
    home: Path, wheelhouse: Path, step: int = 0, wanted: Path | str = "greetlib"
) -> subprocess.Popen[str]:
    command = [sys.executable, DRIVER, str(home), str(wheelhouse), str(wanted), str(step)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def processes_below(path: Path) -> list[str]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(path) in line and process.pid != os.getpid():
            found.append(line)
    return found


def slow_project(tmp_path: Path) -> tuple[Path, Path]:
    """Make a project whose build starts a daemon and never ends, and the file that says it has begun."""
    marker = tmp_path / "daemon-of-a-build"
    project = write_project(tmp_path / "slow", "slow", {"slow.py": ""})
    (project / "backend.py").write_text(
        "import subprocess, sys, time\n"
        f"code = 'import time; time.sleep(300)  # {marker}'\n"
        "subprocess.Popen([sys.executable, '-c', code], start_new_session=True)\n"
        f"open({str(marker)!r}, 'w').close()\n"
        "time.sleep(300)\n"
    )
    return marker, project


def rest(store: environments.Environments) -> list[str]:
    """Return everything under the root that is not a finished environment."""
    finished = {each.hash for each in store.list()}
    return sorted(set(os.listdir(store.root)) - finished) if store.root.exists() else []


def assert_usable(store: environments.Environments) -> None:
    [environment] = store.list()
    code = "import greetlib.m39; print(greetlib.VERSION)"
    done = subprocess.run([environment.python, "-I", "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "1.0", done.stderr


def test_kill_at_every_step_leaves_all_or_nothing(toft_home: Path, tmp_path: Path, wheelhouse: Path) -> None:
    whole = start(tmp_path / "whole", wheelhouse)
    steps = len(whole.communicate(timeout=60)[0].splitlines()) - 1
    assert steps > 8
    store = store_of(toft_home, wheelhouse)
    for step in range(1, steps + 1):
        killed = start(toft_home, wheelhouse, step)
        killed.communicate(timeout=60)
        assert killed.returncode == -9
        eventually(lambda: not processes_below(toft_home), 2, "uv is gone")
        for environment in store.list():
            # Finished although the builder died: then it is whole.
            assert_usable(store)
            store.remove(environment.hash)
        store.sweep()
        assert rest(store) == [], f"step {step}"
    again = start(toft_home, wheelhouse)
    assert "True" in again.communicate(timeout=60)[0]
    assert_usable(store)


def test_kill_at_every_step_of_an_add_leaves_a_plugin_or_none(
    toft_home: Path, tmp_path: Path, wheelhouse: Path
) -> None:
    plugin = "from toft_sdk import Plugin\nclass Hello(Plugin): ...\n"
    project = write_project(tmp_path / "hello", "hello", {"hello.py": plugin})
    whole = start(tmp_path / "whole", wheelhouse, wanted=project)
    steps = len(whole.communicate(timeout=60)[0].splitlines()) - 1
    store, plugins = store_of(toft_home, wheelhouse), registry.Registry(toft_home)
    kills = 0
    # Up to the environment's own record an add is a build; what comes after is the manifest's. The last steps
    # make directories, and are fewer once those are there.
    for step in range(steps - 9, steps + 1):
        killed = start(toft_home, wheelhouse, step, project)
        killed.communicate(timeout=60)
        kills += killed.returncode == -9
        store.sweep()
        assert rest(store) == [], f"step {step}"
        assert not plugins.discover().problems
        plugins.sweep()
        kept = {path.name for path in (toft_home / "plugins").glob("*")}
        assert kept == {each.name for each in plugins.list()}
        for manifest in plugins.list():
            store.get(manifest.runtime.environment)
            plugins.remove(manifest.name)
        for environment in store.list():
            store.remove(environment.hash)
    assert kills > 5
    assert "added" in start(toft_home, wheelhouse, wanted=project).communicate(timeout=60)[0]
    assert [each.name for each in plugins.list()] == ["hello"]


def test_death_of_the_node_ends_a_build_and_everything_it_started(
    toft_home: Path, tmp_path: Path, wheelhouse: Path
) -> None:
    marker, project = slow_project(tmp_path)
    node = start(toft_home, wheelhouse, wanted=project)
    eventually(marker.exists, 20)
    assert processes_below(marker)
    node.kill()
    node.communicate()
    eventually(lambda: not processes_below(marker) and not processes_below(toft_home), 2)
    store = store_of(toft_home, wheelhouse)
    store.sweep()
    assert rest(store) == []


def test_death_of_the_command_line_ends_a_confined_build(
    toft_home: Path, tmp_path: Path, wheelhouse: Path
) -> None:
    project = write_project(tmp_path / "slow", "slow", {"slow.py": ""})
    (project / "backend.py").write_text(
        "import os, subprocess, sys, time\n"
        f"code = 'import time; time.sleep(300)  # {tmp_path}/daemon'\n"
        "subprocess.Popen([sys.executable, '-c', code], start_new_session=True)\n"
        "time.sleep(300)\n"
    )
    command = [sys.executable, "-m", "toft", "--offline", "plugin", "add", str(project)]
    node = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    eventually(lambda: processes_below(tmp_path / "daemon"), 30)
    node.kill()
    node.communicate()
    eventually(lambda: not processes_below(tmp_path / "daemon") and not processes_below(toft_home), 2)
    store = store_of(toft_home, wheelhouse)
    store.sweep()
    assert rest(store) == []


def test_kill_from_outside_at_any_time_leaves_all_or_nothing(toft_home: Path, wheelhouse: Path) -> None:
    store = store_of(toft_home, wheelhouse)
    begun = time.monotonic()
    start(toft_home, wheelhouse).communicate(timeout=60)
    whole_s = time.monotonic() - begun
    for part in range(1, 10):
        for environment in store.list():
            store.remove(environment.hash)
        process = start(toft_home, wheelhouse)
        # Not a wait for a state: the point is to strike at a moment nobody chose.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(whole_s * part / 12)
        process.kill()
        process.communicate()
        eventually(lambda: not processes_below(toft_home), 2, "uv is gone")
        store.sweep()
        assert rest(store) == []
        if store.list():
            assert_usable(store)
    start(toft_home, wheelhouse).communicate(timeout=60)
    assert_usable(store)


def test_two_processes_build_one_environment_once(toft_home: Path, wheelhouse: Path) -> None:
    both = [start(toft_home, wheelhouse) for _ in range(2)]
    said = [process.communicate(timeout=60)[0].splitlines()[-1].split() for process in both]
    assert said[0][1] == said[1][1]
    assert sorted(line[2] for line in said) == ["False", "True"]
    assert_usable(store_of(toft_home, wheelhouse))


async def test_cancelled_build_ends_uv_and_everything_it_started(
    toft_home: Path, tmp_path: Path, wheelhouse: Path
) -> None:
    marker, project = slow_project(tmp_path)
    store = store_of(toft_home, wheelhouse)
    build = asyncio.create_task(store.build(provisioning.EnvironmentRequest(local_project=project)))
    await eventually_async(marker.exists, 20)
    assert processes_below(marker)
    build.cancel()
    with pytest.raises(asyncio.CancelledError):
        await build
    assert processes_below(marker) == []
    assert processes_below(toft_home) == []
    assert os.listdir(store.root) == []


def test_collection_spares_what_another_process_holds(toft_home: Path, wheelhouse: Path) -> None:
    store = store_of(toft_home, wheelhouse)
    start(toft_home, wheelhouse).communicate(timeout=60)
    [environment] = store.list()
    code = (
        "import sys, pathlib; from toft.plugins.environments import environments as e\n"
        "with e.Environments(pathlib.Path(sys.argv[1]), []).hold(sys.argv[2]):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(toft_home), environment.hash],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    assert store.gc(()) == ()
    with pytest.raises(errors.ConflictError):
        store.remove(environment.hash)
    holder.kill()
    holder.communicate()
    assert store.gc(()) == (environment,)
    assert os.listdir(store.root) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk")
async def test_full_disk_is_said_and_leaves_nothing(tmp_path: Path, wheelhouse: Path) -> None:
    home = tmp_path / "small"
    home.mkdir()
    write_wheel("greetlib", "2.0", {"big.py": BIG}, wheelhouse)
    await asyncio.to_thread(
        subprocess.run, ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(home)], check=True
    )
    try:
        store = store_of(home, wheelhouse)
        with pytest.raises(environment_errors.DiskFullError) as caught:
            await store.build(provisioning.EnvironmentRequest(requirements=("greetlib",)))
        assert caught.value.category == "resource"
        assert caught.value.details["available_bytes"] < 4_000_000 < caught.value.details["needed_bytes"]
        assert os.listdir(store.root) == []
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", str(home)], check=True)


async def test_file_size_limit_is_said_as_a_full_disk(
    toft_home: Path, tmp_path: Path, wheelhouse: Path
) -> None:
    write_wheel("greetlib", "2.0", {"big.py": BIG}, wheelhouse)
    small = tmp_path / "small-uv"
    small.write_text('#!/bin/sh\nulimit -f 1000\nexec uv "$@"\n')
    small.chmod(0o755)
    options = uv_environments.UvOptions(offline=True, wheelhouses=(wheelhouse,), executable=str(small))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    uv = uv_environments.UvProvisioner(
        interpreters.Interpreters(), options, environ={**os.environ, "PATH": path}
    )
    store = environments.Environments(toft_home, [uv])
    with pytest.raises(environment_errors.DiskFullError):
        await store.build(provisioning.EnvironmentRequest(requirements=("greetlib",)))
    assert os.listdir(store.root) == []
