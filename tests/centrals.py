"""A central for tests: a process of its own, started as a service manager would, and nodes that only talk."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import secrets
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from toft.managed import messages, protocol
from toft.managed.signatures import PrivateKey


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def value(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of the problem that it tells."""
        return str(self.value["code"])


class Central:
    """One running central.

    Args:
        data: Where it keeps everything.
        options: More of its command line.
    """

    def __init__(self, data: Path, *options: str, trusted: Path | None = None) -> None:
        self.data = data
        self._options = options
        self._context = ssl.create_default_context(cafile=trusted) if trusted else None
        self._process: subprocess.Popen[str] | None = None
        self.url = ""
        self.token_file = data.parent / f"{data.name}-admin-token"

    def start(self, listen: str = "127.0.0.1:0") -> None:
        """Start it, and return once it takes requests; after a first start, where it was."""
        listen = urlsplit(self.url).netloc or listen
        command = [sys.executable, "-m", "toft.daemon.central", "--data", str(self.data), "--listen", listen]
        command += ["--admin-token-file", str(self.token_file), *self._options]
        log = open(self.data.parent / f"{self.data.name}.log", "ab")  # noqa: SIM115 - the process has it
        with log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("ready at "), (line, self.log())
        self.url = line.split()[2].rstrip(";")

    def log(self) -> str:
        """What it has logged."""
        return (self.data.parent / f"{self.data.name}.log").read_text()

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """End it without asking."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End it in order, and return its exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> int:
        if self._process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)
        status = self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None
        return status

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str = "",
        timeout_s: float = 60,
        source: str = "127.0.0.1",
        **headers: str,
    ) -> Answer:
        """Send a request; `body` is JSON, or bytes as they are."""
        parts = urlsplit(self.url)
        connection: http.client.HTTPConnection
        if self._context is not None:
            connection = http.client.HTTPSConnection(
                str(parts.hostname), parts.port, timeout=timeout_s, context=self._context
            )
        else:
            connection = http.client.HTTPConnection(
                str(parts.hostname), parts.port, timeout=timeout_s, source_address=(source, 0)
            )
        said = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            said["Authorization"] = f"Bearer {token}"
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        with contextlib.closing(connection):
            connection.request(method, path, content, said)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())

    def admin(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """Ask as the first administrator; returns the value of an answer that is good."""
        found = self.try_admin(method, path, body, **query)
        assert found.status < 300, (found.status, found.body)
        return found.value

    def try_admin(self, method: str, path: str, body: Any = None, **query: Any) -> Answer:
        """Ask as the first administrator."""
        token = self.token_file.read_text().strip()
        return self.ask(method, f"/v1/admin/{path}?{urlencode(query)}", body, token=token)

    def save(
        self, layer: Mapping[str, Any], *, publish: bool = True, tenant: str = "main", **more: Any
    ) -> Any:
        """Save a layer, with this central as its control unless it says another."""
        control = {"urls": [self.url], "poll_interval_s": 5}
        layer = {"control": control, **layer} if more.get("scope", "tenant") == "tenant" else layer
        return self.admin("POST", "documents", {"layer": layer, "publish": publish, **more}, tenant=tenant)

    def join_token(self, tenant: str = "main", **wish: Any) -> str:
        """Make a join token and return its text."""
        return str(self.admin("POST", "tokens", wish, tenant=tenant)["token"])

    def add_artifact(self, data: bytes, filename: str, tenant: str = "main") -> str:
        """Store a wheel, and return its hash."""
        sha256 = hashlib.sha256(data).hexdigest()
        self.admin("PUT", f"artifacts/{sha256}", data, filename=filename, tenant=tenant)
        return sha256


class Agent:
    """A node that only talks.

    Args:
        central: With whom.
    """

    def __init__(self, central: Central, hostname: str = "host") -> None:
        self._central = central
        self.key = PrivateKey.make()
        self.hostname = hostname
        self.node_id = ""
        self.credential = ""
        self.etag = ""
        self.root: Any = None
        # All of 127.0.0.0/8 is this machine: who guesses from one address slows down nobody at another one.
        self.source = f"127.{secrets.randbelow(250)}.{secrets.randbelow(250)}.{secrets.randbelow(250) + 2}"

    def enroll(self, token: str) -> Answer:
        """Ask to become a node."""
        facts = messages.Facts(hostname=self.hostname, os="linux", agent_version="0.1.0")
        body = messages.enroll(token, self.key, secrets.token_hex(16), facts)
        answer = self._central.ask("POST", protocol.ENROLL, body, source=self.source)
        if answer.status < 300:
            self.node_id, self.credential = answer.value["node_id"], answer.value["access_token"]
            self.root = answer.value["root"]
        return answer

    def join(self, **wish: Any) -> Agent:
        """Become a node."""
        answer = self.enroll(self._central.join_token(**wish))
        assert answer.status == 201, answer.body
        return self

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send a request with the node's credential."""
        return self._central.ask(method, path, body, token=self.credential, source=self.source, **headers)

    def poll(self, wait_s: int = 0, *, takes: bool = True) -> Answer:
        """Ask for the document; what comes is then taken as what runs."""
        headers = {"If_None_Match": protocol.quoted(self.etag)} if self.etag else {}
        if wait_s:
            headers["Prefer"] = f"wait={wait_s}"
        answer = self.ask("GET", protocol.CONFIG, **headers)
        if answer.status == 200 and takes:
            self.etag = protocol.read_etag(answer.headers["ETag"])
        return answer

    def report(self, seq: int, boot: str = "boot-1", **more: Any) -> Answer:
        """Send a report."""
        return self.ask("POST", protocol.REPORT, {"seq": seq, "boot_nonce": boot, **more})


@contextlib.contextmanager
def running(directory: Path, *options: str, **more: Any) -> Iterator[Central]:
    """Start a central for the length of a `with` block."""
    central = Central(directory / "central", *options, **more)
    central.start()
    try:
        yield central
    finally:
        central.stop()
