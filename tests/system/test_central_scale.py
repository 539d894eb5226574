"""Many nodes wait at one central, and all of them are offered a new revision soon; their cost is measured.

`TOFT_AGENTS=10000` makes it as large as it must be; by itself it is of a size that every run can afford.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.centrals import Central
from tests.waiting import eventually

from toft.kernel import ids
from toft.managed import protocol
from toft.store import database

AGENTS = int(os.environ.get("TOFT_AGENTS", "500"))
PROCESSES = 4
WITHIN_S = 30.0
MOST_BYTES = 1 << 30


def test_all_that_wait_are_offered_a_new_revision_soon(tmp_path: Path) -> None:
    central = Central(tmp_path / "central")
    central.start()
    central.save({"x-note": "first"})
    central.stop()
    credentials = asyncio.run(_settle(central.data / "central.db"))
    central.start()
    try:
        crowds = [_crowd(central.url, credentials[n::PROCESSES]) for n in range(PROCESSES)]
        eventually(
            lambda: central.admin("GET", "status")["waiting"] == AGENTS, within_s=180, what="all of them wait"
        )
        began = time.monotonic()
        central.save({"x-note": "second"})
        told = [json.loads(each.communicate(timeout=120)[0]) for each in crowds]
        took_s = max(each["at"] for each in told) - began
        peak = _peak_bytes(central.pid)
        sys.stdout.write(f"{AGENTS} agents: all offered after {took_s:.1f} s; {peak / 1e6:.0f} MB at most\n")
        assert len({etag for each in told for etag in each["etags"]}) == 1
        assert took_s < WITHIN_S
        assert peak < MOST_BYTES
    finally:
        central.stop()


async def _settle(path: Path) -> list[str]:
    """Write down so many nodes at once, as if each had joined; returns their credentials."""
    store = database.Database(path)
    await store.open({"access": "toft.access", "central": "toft.central"})
    queries = database.read_queries("toft.central")
    made = [(f"node_{ids.ulid()}", f"nt_{n:043d}") for n in range(AGENTS)]

    def write(connection: database.Connection) -> None:
        for number, (id, credential) in enumerate(made):
            fields = dict.fromkeys(("hostname", "os", "agent_version", "machine_id_hash"), "")
            node = {**fields, "id": id, "tenant": "main", "name": f"n{number}", "labels": "{}"}
            node |= {"public_key": f"key {number}", "state": "active", "join_token": ""}
            connection.execute(queries["insert_node"], {**node, "assigned_group": None, "created_at": 1.0})
            given = {"sha256": protocol.fingerprint(credential), "node": id, "now": 1.0, "expires_at": 1e11}
            connection.execute(queries["insert_credential"], given)

    await store.write(write)
    await store.close()
    return [credential for _, credential in made]


def _crowd(url: str, credentials: list[str]) -> subprocess.Popen[str]:
    parts = urlsplit(url)
    process = subprocess.Popen(
        [sys.executable, "-m", "toft.bench.waiting_agents"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent.parent,
    )
    assert process.stdin is not None
    given = {"host": parts.hostname, "port": parts.port, "credentials": credentials}
    process.stdin.write(json.dumps(given) + "\n")
    process.stdin.flush()
    return process


def _peak_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not say it")
