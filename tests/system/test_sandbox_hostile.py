"""A worker that tries to reach the host, its files, another plugin and the kernel does not get there."""

import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.leaks import leaks_checked
from tests.namespaces import skip_without
from tests.system.hostile_run import make_home

import toft

__all__ = ["leaks_checked"]
pytestmark = pytest.mark.usefixtures("leaks_checked")

HERE = Path(__file__).parent
GROUPS = ("files", "mounts", "processes", "init", "kernel")
NOBODY = 65534
# What Landlock does not govern: names of files, and sockets that have a path.
WEAKER = {"list the home", "reach a system service", "reach the agent that holds the user's keys"}


@pytest.fixture(params=["this user", "ordinary user"])
def user(request: pytest.FixtureRequest) -> int | None:
    if request.param == "this user":
        return None
    if os.geteuid() != 0:
        pytest.skip("this user is an ordinary user")
    if not os.access("/usr/bin/python3.11", os.X_OK):
        pytest.skip("needs python3.11 where every user can run it")
    return NOBODY


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that any user can reach, with our modules and a home in it."""
    path = Path(tempfile.mkdtemp(prefix="toft-hostile-", dir="/var/tmp"))
    try:
        shutil.copytree(
            Path(toft.__file__).parent, path / "lib/toft", ignore=shutil.ignore_patterns("__pycache__")
        )
        for name in ("hostile_run.py", "hostile_probe.py"):
            shutil.copy(HERE / name, path / name)
        make_home(path / "home")
        yield path
    finally:
        shutil.rmtree(path)


async def tried(place: Path, user: int | None, mode: str, *groups: str) -> dict[str, Any]:
    """Run the probe; return what each attempt came to."""
    if user is not None:
        await asyncio.to_thread(give_away, place, user)
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(place / "lib"), "TOFT_TEST_TOKEN": "hush-7fa1"}
    program = await asyncio.create_subprocess_exec(
        sys.executable if user is None else "/usr/bin/python3.11",
        *("-B", str(place / "hostile_run.py"), mode, str(place / "home"), *groups),
        cwd="/",
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        user=user,
        group=user,
    )
    told, complaint = await program.communicate()
    if b"isolation_unavailable" in complaint or b"does not allow namespaces" in complaint:
        skip_without(complaint.decode()[-300:], user)
    assert program.returncode == 0, complaint.decode()
    said: dict[str, Any] = json.loads(told)
    return said


def give_away(place: Path, user: int) -> None:
    for path in (place, *place.rglob("*")):
        os.chown(path, user, user)


def worked(said: dict[str, Any]) -> dict[str, str]:
    return {name: result["why"] for name, result in said["results"].items() if result["worked"]}


@pytest.mark.parametrize("group", GROUPS)
async def test_nothing_a_hostile_worker_tries_works(place: Path, user: int | None, group: str) -> None:
    said = await tried(place, user, "namespaces", group)
    assert said["isolation"] == "namespaces"
    assert worked(said) == {}
    assert len(said["results"]) >= 4
    assert said["neighbour_lives"]


async def test_the_attempts_do_work_where_nothing_stops_them(place: Path) -> None:
    said = await tried(place, None, "none", "files", "processes")
    assert {
        "read the database",
        "read another plugin's secret",
        "list the home",
        "write to the environment",
        "write to another plugin's data",
        "signal the host",
        "read the environment of the host",
        "read the descriptors of the host",
        "read the memory of the neighbour",
        "trace the host",
        "signal the host by its socket",
        "take a descriptor of the host by its socket",
    } <= set(worked(said))


async def test_without_namespaces_landlock_keeps_a_worker_to_itself(place: Path, user: int | None) -> None:
    said = await tried(place, user, "plain", "files", "processes", "kernel")
    assert said["isolation"] == "plain"
    assert {name: why for name, why in worked(said).items() if name not in WEAKER} == {}
