"""A real daemon on a real port: tokens, TLS, streams that end with their token, and browsers."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import ipaddress
import json
import ssl
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests import daemons, nodes
from tests.command_line import CommandLine
from tests.daemons import Daemon
from tests.waiting import eventually

WITHIN_S = 1.0
FRIEND = "https://tools.example.org"


class Port:
    """The TCP port of a daemon.

    Args:
        url: As the daemon wrote it.
        trusted: Who signed its certificate.
        source: From where it is asked; all of 127.0.0.0/8 is this machine, and each address has its own name.
    """

    def __init__(self, url: str, trusted: Path | None = None, source: str = "127.0.0.1") -> None:
        self.url = url
        self._source = (source, 0)
        self._parts = urlsplit(url)
        self._context = ssl.create_default_context(cafile=trusted) if trusted else None

    def open(self) -> http.client.HTTPConnection:
        host, port = str(self._parts.hostname), self._parts.port
        if self._context is not None:
            return http.client.HTTPSConnection(host, port, timeout=25, context=self._context)
        return http.client.HTTPConnection(host, port, timeout=25, source_address=self._source)

    @contextlib.contextmanager
    def asking(
        self, method: str, path: str, *, token: str = "", body: Any = None, **headers: str
    ) -> Iterator[HTTPResponse]:
        connection = self.open()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            named["Authorization"] = f"Bearer {token}"
        try:
            connection.request(method, path, None if body is None else json.dumps(body), named)
            yield connection.getresponse()
        finally:
            connection.close()

    def ask(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        with self.asking(method, path, **more) as answer:
            text = answer.read()
        with contextlib.suppress(ValueError):
            return answer.status, json.loads(text)
        return answer.status, text.decode()


def port_of(daemon: Daemon, **how: Any) -> Port:
    found = daemon.place.find()
    assert found is not None
    return Port(found.listen, **how)


def token(daemon: Daemon, name: str, *scopes: str, **more: Any) -> str:
    made = daemon.request("POST", "/v1/tokens", {"name": name, "scopes": scopes, **more})
    assert made.status == 201, made.body
    return str(made.value["token"])


@pytest.fixture(scope="module")
def early(tmp_path_factory: pytest.TempPathFactory) -> tuple[CommandLine, str]:
    """Give a home in which no daemon has run, and a token that was made there."""
    directory = tmp_path_factory.mktemp("access")
    nodes.register(directory / "home")
    toft = CommandLine(directory / "home", directory)
    return toft, str(toft("token", "create", "early", "--scope", "read", "--json").value["token"])


@pytest.fixture(scope="module")
def daemon(early: tuple[CommandLine, str]) -> Iterator[Daemon]:
    """Give the daemon of that home; every test makes tokens of its own."""
    toft, _ = early
    with daemons.running(toft.home, toft.directory, listen="127.0.0.1:0", cors_origins=[FRIEND]) as found:
        yield found


def test_a_token_is_made_used_listed_and_revoked_by_hand(daemon: Daemon) -> None:
    toft, port = daemon.toft, port_of(daemon)
    assert daemon.status()["listen"] == port.url
    made = toft("token", "create", "ci", "--scope", "job:write:misbehaving", "--expires", "1h")
    text = made.out.strip()
    assert text.startswith("toft_")
    assert "only time" in made.err
    job = {"plugin": "misbehaving", "action": "echo", "arguments": {"value": 1}}
    assert port.ask("POST", "/v1/jobs", body=job)[0] == 401
    status, told = port.ask("POST", "/v1/jobs", body=job, token=text)
    assert status == 201
    assert port.ask("GET", f"/v1/jobs/{told['id']}", token=text)[0] == 200
    status, told = port.ask("GET", "/v1/plugins", token=text)
    assert (status, told["code"], told["details"]["needed"]) == (403, "access.refused", "plugin:read")
    told = toft("why-denied", "read", "plugin", "--token", "ci", "--json").value
    assert (told["allowed"], told["needed"]) == (False, "plugin:read")
    (listed,) = [each for each in toft("token", "list", "--json").value if each["name"] == "ci"]
    assert listed["state"] == "valid"
    assert listed["last_used_at"]
    assert text not in toft("token", "list").out + daemon.log()
    toft("token", "revoke", "ci")
    status, told = port.ask("GET", "/v1/jobs", token=text)
    assert (status, told["code"], told["details"]) == (401, "access.unauthenticated", {"reason": "revoked"})
    assert toft("token", "revoke", "ci", "--json").error["code"] == "access.no_token"
    assert toft("token", "create", "x", "--scope", "jobs:read", "--json").error["code"] == "access.scope"


def test_a_token_that_was_made_while_no_daemon_ran_is_good_later(
    early: tuple[CommandLine, str], daemon: Daemon
) -> None:
    assert port_of(daemon).ask("GET", "/v1/jobs?plugin=none", token=early[1]) == (200, [])


def test_what_only_a_daemon_knows_is_not_guessed_without_one(toft_home: Path, tmp_path: Path) -> None:
    toft = CommandLine(toft_home, tmp_path)
    assert toft("why-denied", "read", "job", "--json").error["code"] == "daemon.not_running"
    assert toft("open", "--json").error["code"] == "daemon.not_running"


@pytest.mark.parametrize("way", ["revoked", "expired"])
def test_what_is_open_with_a_token_ends_within_a_second_of_it(daemon: Daemon, way: str) -> None:
    port = port_of(daemon)
    other = token(daemon, f"other-{way}", "read")
    mine = token(daemon, f"mine-{way}", "*", **({"lasts_s": 2.5} if way == "expired" else {}))
    with (
        port.asking("GET", "/v1/events/stream", token=mine) as stream,
        port.asking("POST", "/v1/sessions", token=mine) as lifeline,
        port.asking("GET", "/plugins/misbehaving/misbehaving/stream", token=mine) as page,
        port.asking("GET", "/v1/events/stream", token=other, Accept="application/x-ndjson") as others,
    ):
        assert {each.status for each in (stream, lifeline, page, others)} == {200}
        if way == "revoked":
            daemon.toft("token", "revoke", "mine-revoked")
        else:
            eventually(lambda: port.ask("GET", "/v1/jobs", token=mine)[0] == 401, within_s=10)
        began = time.monotonic()
        for each in (stream, lifeline, page):
            with contextlib.suppress(http.client.IncompleteRead):
                each.read()
        assert time.monotonic() - began < WITHIN_S
        # The stream of somebody else goes on.
        job = {"plugin": "misbehaving", "action": "echo", "arguments": {"value": 1}}
        assert daemon.request("POST", "/v1/jobs", job).value["id"] in others.readline().decode()
    for noise in ("Traceback", "ASGI"):
        assert noise not in daemon.log()


def test_a_browser_comes_in_by_a_link_that_works_once(daemon: Daemon) -> None:
    port = port_of(daemon)
    link = str(daemon.request("POST", "/v1/links").value["url"])
    assert link.startswith(port.url + "/sign-in/")
    path = urlsplit(link).path
    assert port.ask("GET", path, Sec_Purpose="prefetch")[0] == 204
    with port.asking("GET", path) as answer:
        cookie, policy = str(answer.getheader("Set-Cookie")), str(answer.getheader("Content-Security-Policy"))
        assert answer.status == 200
        assert b'http-equiv="refresh"' in answer.read()
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert port.ask("GET", path)[0] == 403
    mine = cookie.partition(";")[0]
    assert port.ask("GET", "/v1/jobs", Cookie=mine)[0] == 200
    with port.asking("GET", "/", Cookie=mine, Accept="text/html") as answer:
        page = answer.read().decode()
        assert answer.status == 200
    csrf = page.partition('<meta name="toft-csrf" content="')[2].partition('"')[0]
    assert len(csrf) > 20
    status, told = port.ask("POST", "/v1/sign-out", Cookie=mine)
    assert (status, told["code"]) == (403, "access.csrf")
    status, told = port.ask(
        "POST", "/v1/sign-out", Cookie=mine, X_Toft_CSRF=csrf, Sec_Fetch_Site="cross-site"
    )
    assert (status, told["code"]) == (403, "access.csrf")
    with port.asking("GET", "/v1/events/stream", Cookie=mine) as stream:
        assert stream.status == 200
        assert port.ask("POST", "/v1/sign-out", Cookie=mine, X_Toft_CSRF=csrf)[0] == 200
        with contextlib.suppress(http.client.IncompleteRead):
            stream.read()
    assert port.ask("GET", "/v1/jobs", Cookie=mine)[0] == 401
    status, text = port.ask("GET", "/", Cookie=mine, Accept="text/html")
    assert status == 401
    assert "toft open" in text


def test_a_link_opens_a_port_of_this_machine_when_there_is_none(toft_home: Path, tmp_path: Path) -> None:
    with daemons.running(toft_home, tmp_path) as daemon:
        assert daemon.status()["listen"] is None
        link = str(daemon.toft("open", "--json").value["url"])
        assert link.startswith("http://127.0.0.1:")
        assert port_of(daemon).ask("GET", urlsplit(link).path)[0] == 200
        assert daemon.toft("open").out.startswith(daemon.status()["listen"])


def test_the_port_refuses_strange_names_and_slows_down_guessing(daemon: Daemon) -> None:
    port = port_of(daemon, source="127.0.0.2")
    good = token(daemon, "good", "read")
    status, told = port.ask("GET", "/v1/jobs", token=good, Host="evil.example")
    assert (status, told["code"]) == (421, "access.host")
    # Saying that a request comes from elsewhere changes nothing about where it comes from.
    guesses = [
        port.ask("GET", "/v1/jobs", token=f"toft_{number}", X_Forwarded_For=f"10.0.0.{number}")[0]
        for number in range(14)
    ]
    assert guesses[:10] == [401] * 10
    assert 429 in guesses[10:]
    assert port.ask("GET", "/v1/jobs", token=good)[0] == 200
    assert "too_many_failures" in daemon.log()
    # Nobody in particular hears nothing of which routes there are.
    assert port.ask("GET", "/v1/no-such-route")[0] == port.ask("DELETE", "/v1/jobs")[0] == 401
    with port.asking("OPTIONS", "/v1/jobs", Origin="https://evil.example") as answer:
        assert answer.getheader("Access-Control-Allow-Origin") is None


def test_origins_that_the_settings_name_may_ask_with_a_token(daemon: Daemon) -> None:
    port = port_of(daemon)
    asked = {"Access_Control_Request_Method": "GET", "Access_Control_Request_Headers": "authorization"}
    for origin, allowed in ((FRIEND, FRIEND), ("https://evil.example", None)):
        with port.asking("OPTIONS", "/v1/jobs", Origin=origin, **asked) as answer:
            assert answer.getheader("Access-Control-Allow-Origin") == allowed
            assert answer.getheader("Access-Control-Allow-Credentials") is None
    with port.asking("GET", "/v1/jobs", Origin=FRIEND) as answer:
        assert (answer.status, answer.getheader("Access-Control-Allow-Origin")) == (401, FRIEND)


def certificate(directory: Path) -> tuple[Path, Path]:
    """Write a certificate for this machine that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node.example")])
    now = datetime.datetime.now(datetime.UTC)  # noqa: TID251 - a certificate is good now, not in a test's time
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = directory / "cert.pem", directory / "key.pem"
    cert_path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    key_path.chmod(0o600)
    return cert_path, key_path


def test_the_port_speaks_tls_and_its_cookies_stay_on_it(toft_home: Path, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    toft = CommandLine(toft_home, tmp_path)
    done = toft(
        "up", "-d", "--listen", "127.0.0.1:0", "--tls-cert", str(cert), "--tls-key", str(key), "--json"
    )
    try:
        assert done.value["listen"].startswith("https://127.0.0.1:")
        port = Port(done.value["listen"], cert)
        text = token(Daemon(toft), "ci", "read")
        assert port.ask("GET", "/v1/jobs", token=text) == (200, [])
        link = Daemon(toft).request("POST", "/v1/links").value["url"]
        with port.asking("GET", urlsplit(link).path) as answer:
            assert "Secure" in str(answer.getheader("Set-Cookie"))
        # Who does not speak TLS there is told nothing, and harms nobody.
        with pytest.raises((http.client.HTTPException, OSError)):
            Port(port.url.replace("https", "http")).ask("GET", "/v1/jobs", token=text)
        assert port.ask("GET", "/livez")[0] == 200
    finally:
        assert toft("down", "--now", "--json").status == 0
        daemons.reap()


REFUSED_PLACES = (
    ("daemon.insecure_listen", ["--listen", "0.0.0.0:0"]),
    ("daemon.insecure_listen", ["--listen", "[::]:0"]),
    ("daemon.listen", ["--listen", "8700"]),
    ("daemon.tls", ["--listen", "127.0.0.1:0", "--tls-cert", "x.pem"]),
    ("daemon.tls", ["--listen", "127.0.0.1:0", "--tls-cert", "x.pem", "--tls-key", "x.pem"]),
    ("daemon.port", ["--listen", "192.0.2.77:1", "--insecure-public"]),
)


def test_a_place_where_it_should_not_or_cannot_listen_is_refused_at_the_start(tmp_path: Path) -> None:
    asked = [
        (code, words, CommandLine(tmp_path / f"home-{number}", tmp_path))
        for number, (code, words) in enumerate(REFUSED_PLACES)
    ]
    # All at once: each is a command of its own in a home of its own.
    begun = [toft.start("up", "-d", *words, "--json") for _, words, toft in asked]
    for (code, words, toft), each in zip(asked, begun, strict=True):
        out, err = each.communicate(timeout=60)
        assert (each.returncode != 0, json.loads(err)["error"]["code"]) == (True, code), (words, out, err)
        assert not Daemon(toft).place.is_held(), words
    assert asked[0][2]("status", "--json").value["state"] == "stopped"
    daemons.reap()


def test_other_machines_are_let_in_without_tls_when_told_in_as_many_words(
    toft_home: Path, tmp_path: Path
) -> None:
    toft = CommandLine(toft_home, tmp_path)
    done = toft("up", "-d", "--listen", "0.0.0.0:0", "--insecure-public", "--json")
    try:
        assert Port(done.value["listen"]).ask("GET", "/livez") == (200, {"ok": True})
    finally:
        assert toft("down", "--now", "--json").status == 0
        daemons.reap()
