"""Measures a central: nodes that wait at it, how far a revision gets that is good nowhere, and joining.

Run as a program; see `lines.serve`. Each measure has a central of its own, a process as `toft central serve`
is one; nodes that only wait are in four other processes, the one that joins is a real one.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from toft.bench import lines
from toft.kernel import clock, ids
from toft.managed import protocol
from toft.store import database

PROCESSES = 4
FLEET = 200
_AGAIN_S = 0.3
_PATIENCE_S = 300.0


@dataclass(frozen=True)
class Scale:
    """How much is done.

    Attributes:
        agents: Nodes that wait.
    """

    agents: int = 10_000


SMALL = Scale(agents=200)


@dataclass(frozen=True)
class Answer:
    """What a central answered.

    Attributes:
        told: Its body, as JSON; None where it had none.
    """

    status: int
    headers: http.client.HTTPMessage
    told: Any


class Central:
    """A central that runs.

    Args:
        data: Where it keeps everything.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self.url = ""
        self._token_file = data.with_name(f"{data.name}-token")
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and return once it takes requests."""
        listen = urlsplit(self.url).netloc or "127.0.0.1:0"
        command = [sys.executable, "-m", "toft.daemon.central", "--data", str(self.data), "--listen", listen]
        command += ["--admin-token-file", str(self._token_file)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().split()[2].rstrip(";")

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    @property
    def peak_mb(self) -> float:
        """Return the most memory it has had."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(each.split()[1]) for each in status if each.startswith("VmHWM:")) / 1000

    def ask(self, method: str, path: str, body: Any = None, token: str = "", **headers: str) -> Answer:
        """Send a request, and return its answer."""
        parts = urlsplit(self.url)
        said = {name.replace("_", "-"): value for name, value in headers.items() if value}
        said["Authorization"] = f"Bearer {token}"
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, None if body is None else json.dumps(body), said)
            came = connection.getresponse()
            return Answer(came.status, came.headers, json.loads(came.read() or b"null"))

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        """Ask as its administrator."""
        answer = self.ask(method, f"/v1/admin/{path}", body, self._token_file.read_text().strip())
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {answer.told}")
        return answer.told

    def save(self, note: str, *, publish: bool) -> dict[str, Any]:
        """Store a document for all nodes."""
        control = {"urls": [self.url], "poll_interval_s": 5}
        layer = {"control": control, "health": {"settle_s": 0}, "x-note": note}
        saved: dict[str, Any] = self.admin("POST", "documents", {"layer": layer, "publish": publish})
        return saved

    def settle(self, count: int) -> list[tuple[str, str]]:
        """Write down so many nodes at once, as if each had joined; returns their ids and credentials."""
        self.stop()
        made = asyncio.run(_settle(self.data / "central.db", count))
        self.start()
        return made


class Driver:
    """A central as a contender.

    Args:
        folder: Where everything is made.
        scale: How much is done; less in tests.
    """

    def __init__(self, folder: Path, scale: Scale) -> None:
        self._folder = folder
        self._scale = scale

    def offers(self) -> Mapping[str, float]:
        """Let all wait, and offer all of them a new revision at once: a rollout in an emergency."""
        with _central(self._folder / "offers") as central:
            central.save("first", publish=True)
            credentials = [each for _, each in central.settle(self._scale.agents)]
            crowds = [_crowd(central.url, credentials[each::PROCESSES]) for each in range(PROCESSES)]
            _until(lambda: central.admin("GET", "status")["waiting"] == len(credentials))
            saved = central.save("second", publish=False)
            began = time.monotonic()
            central.admin("POST", "rollouts", {"document": saved["document"]["id"], "emergency": True})
            told = [json.loads(each.communicate(timeout=_PATIENCE_S)[0]) for each in crowds]
            if len({etag for each in told for etag in each["etags"]}) != 1:
                raise RuntimeError("they were not all offered the same")
            return {
                "agents": float(len(credentials)),
                "offer_all_s": max(each["at"] for each in told) - began,
                "central_rss_mb": central.peak_mb,
            }

    def bad_rollout(self) -> Mapping[str, float]:
        """Roll out to 200 nodes, in the waves nobody chose, what each of them goes back from."""
        with _central(self._folder / "bad") as central:
            central.save("good", publish=True)
            agents = [_Agent(central, id, credential) for id, credential in central.settle(FLEET)]
            for each in agents:
                each.take()
            saved = central.save("bad", publish=False)
            rollout = central.admin("POST", "rollouts", {"document": saved["document"]["id"]})["id"]
            _until(lambda: central.admin("GET", f"rollouts/{rollout}")["nodes"])
            reached = 0
            while central.admin("GET", f"rollouts/{rollout}")["state"] == "running":
                for each in agents:
                    reached += each.try_and_go_back()
            # Nobody else is reached after that either.
            reached += sum(each.try_and_go_back() for each in agents)
            return {"bad_rollout_share": reached / FLEET}

    def join(self) -> Mapping[str, float]:
        """Let a machine join, with everything that this takes, until it has proven its first document."""
        with _central(self._folder / "join") as central:
            central.save("first", publish=True)
            token = central.admin("POST", "tokens", {})["token"]
            home = self._folder / f"node-{ids.ulid()}"
            toft = [sys.executable, "-m", "toft", "--home", str(home)]
            began = time.perf_counter()
            try:
                subprocess.run(
                    [*toft, "join", central.url, "--wait", "120", "--json"],
                    input=token,
                    check=True,
                    capture_output=True,
                    text=True,
                )
                return {"join_s": time.perf_counter() - began}
            finally:
                subprocess.run([*toft, "down", "--now"], check=False, capture_output=True)


class _Agent:
    """A node that asks, and goes back from whatever comes after its first document."""

    def __init__(self, central: Central, id: str, credential: str) -> None:
        self._central = central
        self._credential = credential
        self._etag = ""
        self._refused: set[str] = set()
        self.id = id

    def take(self) -> None:
        """Run what is offered."""
        self._etag = self._offered()

    def try_and_go_back(self) -> bool:
        """Ask; say of something new that it was bad. Returns whether there was something new."""
        offered = self._offered()
        if offered in ("", self._etag, *self._refused):
            return False
        self._refused.add(offered)
        at = clock.rfc3339(clock.SYSTEM.now())
        said = {"etag": offered, "event": "rolled_back", "reason": "health_failed", "at": at}
        report = {
            "seq": 1,
            "boot_nonce": "bench",
            "running": {"etag": self._etag},
            "phase": "idle",
            "history": [said],
        }
        self._central.ask("POST", protocol.REPORT, report, self._credential)
        return True

    def _offered(self) -> str:
        runs = protocol.quoted(self._etag) if self._etag else ""
        answer = self._central.ask("GET", protocol.CONFIG, None, self._credential, If_None_Match=runs)
        return protocol.read_etag(answer.headers["ETag"]) if answer.status == 200 else ""


@contextlib.contextmanager
def _central(data: Path) -> Iterator[Central]:
    central = Central(data.with_name(f"{data.name}-{ids.ulid()}"))
    central.start()
    try:
        yield central
    finally:
        central.stop()


def _crowd(url: str, credentials: list[str]) -> subprocess.Popen[str]:
    parts = urlsplit(url)
    process = subprocess.Popen(
        [sys.executable, "-m", "toft.bench.waiting_agents"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    given = {"host": parts.hostname, "port": parts.port, "credentials": credentials}
    process.stdin.write(json.dumps(given) + "\n")
    process.stdin.flush()
    return process


def _until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not is_so():
        if time.monotonic() > deadline:
            raise RuntimeError(f"it was not so after {_PATIENCE_S:g} s")
        time.sleep(_AGAIN_S)


async def _settle(path: Path, count: int) -> list[tuple[str, str]]:
    store = database.Database(path)
    await store.open({"access": "toft.access", "central": "toft.central"})
    queries = database.read_queries("toft.central")
    made = [(f"node_{ids.ulid()}", f"nt_{number:043d}") for number in range(count)]
    now = clock.SYSTEM.now()

    def write(connection: database.Connection) -> None:
        for number, (id, credential) in enumerate(made):
            fields = dict.fromkeys(("hostname", "os", "agent_version", "machine_id_hash"), "")
            node = {**fields, "id": id, "tenant": "main", "name": f"n{number}", "labels": "{}"}
            node |= {"public_key": f"key {number}", "state": "active", "join_token": ""}
            connection.execute(queries["insert_node"], {**node, "assigned_group": None, "created_at": now})
            given = {"sha256": protocol.fingerprint(credential), "node": id, "now": now, "expires_at": 1e11}
            connection.execute(queries["insert_credential"], given)

    await store.write(write)
    await store.close()
    return made


def main() -> None:
    """Be measured until nobody asks any more."""
    scale = SMALL if "small" in sys.argv[1:] else Scale()
    with tempfile.TemporaryDirectory(prefix="toft-bench-", ignore_cleanup_errors=True) as folder:
        lines.serve(Driver(Path(folder), scale))


if __name__ == "__main__":
    main()
