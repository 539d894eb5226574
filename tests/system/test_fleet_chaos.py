"""A real central and five real nodes through three rollouts, one of them bad, while they are killed.

`TOFT_SEED` replays a run, `TOFT_KILLS` says how many there are in each rollout.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests import centrals, daemons
from tests.centrals import Central
from tests.command_line import CommandLine
from tests.waiting import eventually

from toft.client import place as places
from toft.managed import generations, phases

NODES = 5
SEED = int(os.environ.get("TOFT_SEED", "20261127"))
KILLS = int(os.environ.get("TOFT_KILLS", "3"))
PAUSE_S = 2.0
WITHIN_S = 180
RULES = {"waves": [{"percent": 20, "bake_s": 2}, {"percent": 100, "bake_s": 2}]}
# An instance of a plugin that nobody has, and a gate that looks at instances.
BAD = {"instances": {"ghost": {"plugin": "ghost"}}, "health": {"gates": {"loaded": {"kind": "instances"}}}}


class Node:
    """A home, and the supervisor that keeps a daemon of it alive."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.home = directory / "home"
        self.toft = CommandLine(self.home, directory)
        self.place = places.Place(self.home)
        self.id = ""
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._log = directory / "supervisor.log"

    def join(self, central: Central) -> None:
        """Join, and start what keeps it running."""
        token = central.join_token()
        done = self.toft("join", central.url, "--no-daemon", "--json", stdin=token)
        assert done.status == 0, done.err
        daemon = [sys.executable, "-m", "toft.daemon", "--home", str(self.home), "--offline"]
        guard = [sys.executable, "-m", "toft.managed.guard", "--home", str(self.home), "--supervise", "--"]
        with self._log.open("ab") as log:
            self._supervisor = subprocess.Popen(
                [*guard, *daemon], stderr=log, stdout=log, cwd=self.home.parent, env=self.toft.environ
            )

    def kill(self) -> None:
        """End its daemon without asking; the supervisor starts another one."""
        found = self.place.find()
        if found is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(found.pid, signal.SIGKILL)

    def end(self) -> None:
        """End it in order."""
        if self._supervisor is not None:
            self._supervisor.terminate()
            self._supervisor.wait(60)

    def look(self) -> dict[str, Any]:
        """Return what its disk and its process say, without asking central or any code that reports."""
        standing = generations.Generations.at(self.home).read()
        slot = standing.slots[standing.active or ""]
        assert slot.document is not None
        # The bytes that lie there are those of the name under which they were taken.
        assert f"sha256-{hashlib.sha256(slot.document).hexdigest()}" == slot.meta.etag
        value = json.loads(slot.document)
        booted = standing.state.booted
        assert booted is not None
        return {
            "etag": slot.meta.etag,
            "loaded": booted.etag,
            "phase": standing.state.phase,
            "ok": standing.state.ok,
            "bad": [each.etag for each in standing.state.bad],
            "lanes": value["settings"]["lanes"],
            "runs_lanes": eventually(self.lanes, 60, what="its daemon answers"),
        }

    def lanes(self) -> int:
        """Ask its daemon by its own socket; 0 while there is none."""
        with socket.socket(socket.AF_UNIX) as sock, places.address(self.place.socket) as address:
            sock.settimeout(20)
            try:
                sock.connect(address)
                connection = http.client.HTTPConnection("localhost")
                connection.sock = sock
                connection.request("GET", "/v1/status")
                return int(json.loads(connection.getresponse().read())["lanes"])
            except (OSError, http.client.HTTPException):
                return 0


@contextlib.contextmanager
def fleet(directory: Path, central: Central) -> Iterator[list[Node]]:
    nodes = [Node(directory / f"node-{number}") for number in range(NODES)]
    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda node: node.join(central), nodes))
        yield nodes
    finally:
        with ThreadPoolExecutor(NODES) as pool:
            list(pool.map(Node.end, nodes))
        daemons.reap()


@pytest.mark.timeout(900)
def test_every_node_ends_on_a_verified_generation_and_its_report_is_true(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    with centrals.running(tmp_path) as central:
        central.save({"settings": {"lanes": 2}, "health": {"settle_s": 0}})
        with fleet(tmp_path, central) as nodes:
            settled(central, "all joined")
            first = set_of(central, "asked_etag")
            assert roll_out(central, nodes, chance, {"settings": {"lanes": 3}}) == "done"
            agree(central, nodes, lanes=3)
            assert set_of(central, "asked_etag") != first
            assert roll_out(central, nodes, chance, {"settings": {"lanes": 4}, **BAD}) == "aborted"
            reached = central.admin("GET", "rollouts")[0]["counts"]
            assert sum(reached.values()) == 1, reached
            agree(central, nodes, lanes=3)
            assert roll_out(central, nodes, chance, {"settings": {"lanes": 5}}) == "done"
            agree(central, nodes, lanes=5)
        assert central.admin("GET", "audit/verify")["is_whole"]


def roll_out(central: Central, nodes: list[Node], chance: random.Random, layer: dict[str, Any]) -> str:
    """Roll a layer out while somebody is killed now and then; returns how it ended."""
    is_bad = "instances" in layer
    layer = {**layer, "health": {"settle_s": 0, **layer.get("health", {})}}
    saved = central.save(layer, publish=False)
    rules = {**RULES, "abort_count": 1 if is_bad else NODES}
    body = {"document": saved["document"]["id"], "rules": rules}
    id = central.admin("POST", "rollouts", body)["id"]
    kills = KILLS
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        time.sleep(PAUSE_S * chance.random())
        if kills:
            kills -= 1
            victim = chance.choice([central, *nodes])
            victim.kill()
            if victim is central:
                central.start()
        told = central.admin("GET", f"rollouts/{id}")
        if told["state"] in ("done", "aborted"):
            return str(told["state"])
        if told["state"] == "paused":
            # Killed in its trial, a node needs longer than its wave has; a person would let it go on as well.
            assert central.try_admin("POST", f"rollouts/{id}/resume", {}).status in (200, 409)
    raise AssertionError(f"seed {SEED}: {central.admin('GET', f'rollouts/{id}')}")


def set_of(central: Central, name: str) -> set[str]:
    return {str(each[name]) for each in central.admin("GET", "nodes")}


def settled(central: Central, what: str) -> list[dict[str, Any]]:
    """Wait until every node runs what it is offered and has said so."""

    def look() -> list[dict[str, Any]]:
        found = [central.admin("GET", f"nodes/{each['id']}") for each in central.admin("GET", "nodes")]
        is_settled = len(found) == NODES and all(
            each["offered"] and each["running"]["etag"] == each["offered"]["etag"] and each["phase"] == "idle"
            for each in found
        )
        return found if is_settled else []

    return eventually(look, within_s=WITHIN_S, what=f"seed {SEED}: {what}")


def agree(central: Central, nodes: list[Node], *, lanes: int) -> None:
    """Compare what each node has reported with its disk and with its process."""
    reported = {each["id"]: each for each in settled(central, f"all have {lanes} lanes")}
    for node in nodes:
        seen = node.look()
        id = json.loads((node.home / "managed" / "enrollment.json").read_bytes())["node_id"]
        told = reported[id]
        assert seen["phase"] is phases.Phase.IDLE
        assert seen["etag"] == seen["loaded"] == seen["ok"] == told["running"]["etag"], (seen, told)
        assert seen["etag"] not in seen["bad"]
        assert seen["lanes"] == seen["runs_lanes"] == lanes
