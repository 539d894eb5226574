"""Health tells the truth: a disk that is really full, a thread that has really ended, a daemon that stops."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import daemons, nodes
from tests.waiting import eventually

from toft.dispatch.health import Health
from toft.host.disks import Space
from toft.kernel import errors

_MB = 1 << 20


def failing(answer: daemons.Answer) -> list[str]:
    """Return the checks that fail, and see that the status says the same."""
    told = answer.value
    found = [each["check"] for each in told["checks"] if not each["ok"]]
    assert (answer.status, told["ok"]) == ((503, False) if found else (200, True)), told
    assert all(each["hint"] and each["evidence"] for each in told["checks"] if not each["ok"])
    return found


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MB, its own in truth."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=48m,mode=700", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this user may not mount a file system of its own: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_node_with_a_full_disk_is_not_ready_and_is_again_when_there_is_room(
    small_disk: Path, tmp_path: Path
) -> None:
    nodes.register(small_disk / "home")
    with daemons.running(small_disk / "home", tmp_path) as daemon:
        answer = daemon.request("GET", "/readyz")
        assert failing(answer) == []
        assert [each["check"] for each in answer.value["checks"]] == [
            *("disk", "writer", "reader", "dispatcher", "state")
        ]
        filler = small_disk / "filler"
        with filler.open("wb") as file:
            for _ in range(48):
                try:
                    file.write(os.urandom(_MB))
                    file.flush()
                except OSError:
                    break
        assert os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize < _MB
        for route in ("/healthz", "/readyz"):
            eventually(lambda route=route: "disk" in failing(daemon.request("GET", route)))
        assert daemon.request("GET", "/livez").status == 200
        data = os.urandom(2 * _MB)
        route = f"/v1/artifacts/{hashlib.sha256(data).hexdigest()}"
        answer = daemon.request("PUT", route, data, {"Content-Type": "application/octet-stream"})
        assert (answer.status, answer.value["code"]) == (503, "store.disk_full")
        assert [each for each in (small_disk / "home" / "artifacts").rglob("*") if each.is_file()] == []
        filler.unlink()
        eventually(lambda: failing(daemon.request("GET", "/readyz")) == [])
        job = daemon.request("POST", "/v1/jobs", {"plugin": "misbehaving"}).value["id"]
        assert daemon.request("GET", f"/v1/jobs/{job}/wait").value["state"] == "completed"


def test_a_daemon_that_stops_is_healthy_and_not_ready(toft_home: Path, tmp_path: Path) -> None:
    nodes.register(toft_home)
    with daemons.running(toft_home, tmp_path, drain_s=20) as daemon:
        body = {"plugin": "misbehaving", "arguments": {"do": "work", "seconds": 30}}
        job = daemon.request("POST", "/v1/jobs", body).value["id"]
        eventually(lambda: daemon.request("GET", f"/v1/jobs/{job}").value["state"] == "running")
        os.kill(daemon.pid, signal.SIGTERM)
        eventually(lambda: failing(daemon.request("GET", "/readyz")) == ["state"])
        assert daemon.request("GET", "/readyz").value["state"] == "draining"
        assert failing(daemon.request("GET", "/healthz")) == []


async def test_a_writer_that_has_ended_is_seen_and_whoever_waits_for_it_is_told(tmp_path: Path) -> None:
    nodes.register(tmp_path / "home")
    async with nodes.running(tmp_path / "home") as node:
        engine = await node.jobs.open()
        health = Health(tmp_path, node.jobs.open)
        assert all(each.ok for each in await health.checks())
        store = engine.means.store
        # A closed connection is the end of the thread that owns it.
        for _ in range(2):
            with pytest.raises(errors.UnavailableError) as caught:
                await store.write(lambda connection: connection.close())
            assert caught.value.code == "store.thread_ended"
        with pytest.raises(errors.UnavailableError) as caught:
            await node.jobs.submit("misbehaving", {})
        assert caught.value.code == "store.thread_ended"
        found = {each.check: each for each in await Health(tmp_path, node.jobs.open).checks()}
        assert (found["writer"].ok, found["writer"].evidence) == (False, "its thread has ended")
        assert found["reader"].ok


@pytest.mark.parametrize(
    ("space", "is_ok"),
    [
        (Space(17 * _MB, 99 * _MB, 1000), True),
        (Space(17 * _MB, 99 * _MB, None), True),
        (Space(15 * _MB, 99 * _MB, 1000), False),
        (Space(17 * _MB, 99 * _MB, 3), False),
        (OSError(5, "Input/output error"), False),
    ],
)
async def test_a_disk_without_bytes_without_files_or_without_an_answer_is_not_well(
    tmp_path: Path, space: Any, is_ok: bool
) -> None:
    def read_space(path: Path) -> Space:
        if isinstance(space, OSError):
            raise space
        assert isinstance(space, Space)
        return space

    async with nodes.running(tmp_path / "home") as node:
        (disk, *others) = await Health(tmp_path, node.jobs.open, read_space).checks()
        assert (disk.check, disk.ok) == ("disk", is_ok)
        assert all(each.ok for each in others)


async def test_however_many_ask_it_is_looked_at_once(tmp_path: Path) -> None:
    looked = 0

    def read_space(path: Path) -> Space:
        nonlocal looked
        looked += 1
        return Space(99 * _MB, 99 * _MB, None)

    async with nodes.running(tmp_path / "home") as node:
        health = Health(tmp_path, node.jobs.open, read_space)
        for _ in range(50):
            await health.checks()
    assert looked == 1
