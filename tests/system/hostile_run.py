"""Run the hostile probe in a worker: `python hostile_run.py MODE HOME GROUP...`; prints what worked as JSON.

A program, so that it can run as another user and be the host whose environment and descriptors are sought.
MODE `none` runs the probe as an ordinary child: its attempts do work where nothing stops them.
"""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from toft.host.keeper import Keeper, Sandbox, SpawnSpec

PYTHON = os.path.realpath(sys.executable)
PROBE = Path(__file__).with_name("hostile_probe.py").read_text()
DEVICES = (
    "/dev/vda",
    "/dev/sda",
    "/dev/nvme0n1",
    "/dev/mem",
    "/dev/kmsg",
    "/dev/kvm",
    "/dev/loop0",
    "/dev/fuse",
)
# Where system services listen; an ordinary user finds the one that is on most machines.
SERVICE = f"/run/toft-test-{os.getpid()}" if os.access("/run", os.W_OK) else "/run/dbus/system_bus_socket"
AGENT = f"/tmp/ssh-toft-{os.getpid()}"
# Gives an ordinary child its descriptors under the numbers that a worker has them.
AS_CHILD = """
import os, sys
for number, fd in enumerate(sys.argv[2:]):
    os.dup2(int(fd), 3 + number)
exec(sys.argv[1])
"""
SYSTEM = ("/etc", "/usr", "/root", "/var", "/opt", "/home", "/boot")


def make_home(home: Path) -> None:
    """Lay out a home with a secret, a database, an environment and the data of two plugins."""
    for name in ("secrets", "environments/abc", "data/mine", "data/other"):
        (home / name).mkdir(parents=True)
    (home / "secrets/secrets.json").write_text('{"other": {"KEY": "hunter2"}}')
    (home / "node.db").write_bytes(b"SQLite format 3")
    (home / "environments/abc/module.py").write_text("x = 1")


def sandbox(home: Path) -> Sandbox:
    return Sandbox(
        hidden=(str(home),),
        read_only=(str(home / "environments/abc"),),
        writable=(str(home / "data/mine"), "/tmp", "/var/tmp", "/dev/shm"),
    )


def facts(home: Path, mode: str, groups: list[str], keeper: int, neighbour: int) -> dict[str, Any]:
    return {
        "groups": groups,
        "home": str(home),
        "shown": ["environments", "data"],
        "database": str(home / "node.db"),
        "secret": str(home / "secrets/secrets.json"),
        "environment": str(home / "environments/abc"),
        "other_data": str(home / "data/other"),
        "protected": [] if mode == "none" else [path for path in SYSTEM if os.path.isdir(path)],
        "host": os.getpid(),
        "keeper": keeper,
        "neighbour": neighbour,
        "token": os.environ["TOFT_TEST_TOKEN"],
        "devices": [device for device in DEVICES if os.path.exists(device)],
        "group": "/sys/fs/cgroup/memory/toft-escape",
        "abstract": f"toft-test-{os.getpid()}",
        "service": SERVICE,
        "agent": f"{AGENT}/agent",
    }


async def run_probe(mode: str, home: Path, groups: list[str]) -> dict[str, Any]:
    given, give = os.pipe()
    told, tell = os.pipe()
    ours, theirs = socket.socketpair()
    environment = {"PATH": "/usr/bin:/bin"}
    keeper = await Keeper.start("auto" if mode == "none" else mode)  # type: ignore[arg-type]
    neighbour = await keeper.spawn(SpawnSpec((PYTHON, "-c", "import time; time.sleep(99)"), environment, "/"))
    unix = socket.AF_UNIX
    with (
        ours,
        theirs,
        socket.socket(unix) as abstract,
        socket.socket(unix) as service,
        socket.socket(unix) as agent,
        os.fdopen(told, "rb") as results,
    ):
        abstract.bind(f"\0toft-test-{os.getpid()}")
        abstract.listen()
        os.mkdir(AGENT, 0o700)
        agent.bind(f"{AGENT}/agent")
        agent.listen()
        if os.access("/run", os.W_OK):
            service.bind(SERVICE)
            service.listen()
        os.write(give, json.dumps(facts(home, mode, groups, keeper.pid, neighbour.pid)).encode())
        fds = (given, tell, theirs.fileno())
        if mode == "none":
            command = [PYTHON, "-c", AS_CHILD, PROBE, *map(str, fds)]
            await asyncio.to_thread(subprocess.run, command, pass_fds=fds, check=True)
        else:
            process = await keeper.spawn(
                SpawnSpec(
                    (PYTHON, "-I", "-S", "-c", PROBE),
                    environment,
                    "/",
                    fds=fds,
                    stderr=2,
                    sandbox=sandbox(home),
                )
            )
            await process.wait()
        for fd in (given, give, tell):
            os.close(fd)
        said = json.loads(results.read())
    shutil.rmtree(AGENT)
    if os.access("/run", os.W_OK):
        os.unlink(SERVICE)
    neighbour_lives = neighbour.exit is None
    await keeper.close()
    return {"isolation": keeper.isolation.mode, "neighbour_lives": neighbour_lives, "results": said}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(run_probe(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))))
