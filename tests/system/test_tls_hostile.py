"""What somebody sends to a TLS port who wants to break it ends with their connection, and with no other."""

from __future__ import annotations

import contextlib
import secrets
import socket
import ssl
import struct
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from tests import daemons, nodes
from tests.daemons import Daemon
from tests.relays import Authority
from tests.system.test_api_hostile import TWO_WAYS, request, told
from tests.waiting import eventually

WITHIN_S = 25.0
SMUGGLING = ("both lengths", "a list of lengths", "another encoding", "a space before the colon", "no host")
HANDSHAKE, APPLICATION = 22, 23


def record(kind: int, data: bytes, length: int | None = None) -> bytes:
    """Return a record as TLS frames it; its length may be another than is said."""
    return struct.pack("!BHH", kind, 0x0303, len(data) if length is None else length) + data


class Port:
    """The TLS port of a daemon.

    Args:
        daemon: Whose it is.
        authority: Signed its certificate.
    """

    def __init__(self, daemon: Daemon, authority: Authority) -> None:
        self.token = str(daemon.toft("token", "create", "all", "--scope", "*", "--json").value["token"])
        self._address = urlsplit(str(daemon.status()["listen"]))
        self.context = ssl.create_default_context(cafile=authority.file)

    def bare(self) -> socket.socket:
        """Connect without a word."""
        return socket.create_connection(("127.0.0.1", self._address.port or 0), timeout=WITHIN_S)

    def connect(self) -> ssl.SSLSocket:
        """Connect as one should."""
        return self.context.wrap_socket(self.bare(), server_hostname="localhost")

    def ask(self, data: bytes) -> bytes:
        """Send a request with the token, and return what comes."""
        named = b"Host: localhost\r\nAuthorization: Bearer " + self.token.encode() + b"\r\n"
        with self.connect() as sock:
            with contextlib.suppress(OSError):
                sock.sendall(data.replace(b"Host: x\r\n", named))
            return received(sock)

    def beneath(self, version: ssl.TLSVersion) -> tuple[socket.socket, ssl.SSLObject, ssl.MemoryBIO]:
        """Connect as one should, and return the connection beneath the protection."""
        context = ssl.create_default_context(cadata=ssl.DER_cert_to_PEM_cert(self._root()))
        context.minimum_version = context.maximum_version = version
        coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
        protected = context.wrap_bio(coming, going, server_hostname="localhost")
        sock = self.bare()
        while True:
            try:
                protected.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(going.read())
                coming.write(sock.recv(65536))
        sock.sendall(going.read())
        return sock, protected, going

    def _root(self) -> bytes:
        return self.context.get_ca_certs(binary_form=True)[0]


def received(sock: socket.socket) -> bytes:
    """Return what comes until the other end closes, however it does that."""
    came = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while data := sock.recv(65536):
            came += data
    return came


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("node")
    nodes.register(directory / "home")
    certificate, key = authority.make("localhost")
    with daemons.running(
        directory / "home", directory, listen="127.0.0.1:0", tls_cert=str(certificate), tls_key=str(key)
    ) as found:
        yield found


@pytest.fixture(scope="module")
def port(running: Daemon, authority: Authority) -> Port:
    return Port(running, authority)


@pytest.fixture
def daemon(running: Daemon, port: Port) -> Iterator[Daemon]:
    """The daemon; well before and after, for whoever asks it as one should."""
    yield running
    assert told(port.ask(request("GET", "/v1/jobs")))[0] == 200
    assert "Traceback" not in running.log()
    assert "request_failed" not in running.log()


def test_a_request_in_two_readings_is_one_refusal_here_too(daemon: Daemon, port: Port) -> None:
    for name in SMUGGLING:
        answer = port.ask(TWO_WAYS[name])
        assert answer.count(b"HTTP/1.1 ") <= 1, (name, answer)
        assert not answer or told(answer)[0] in (400, 501, 421), (name, answer[:200])
    assert port.ask(request("GET", "/v1/jobs")).endswith(b"\r\n\r\n[]")


NO_TLS = {
    "plain HTTP": b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "noise": secrets.token_bytes(20_000),
    "zeros": bytes(20_000),
    "a record that claims 65,535 bytes": record(HANDSHAKE, b"\x01", 0xFFFF) + bytes(70_000),
    "data before a handshake": record(APPLICATION, b"GET / HTTP/1.1\r\n\r\n"),
    "a greeting that is none": record(HANDSHAKE, b"\x01\x00\x00\x04junk"),
    "a greeting of sixteen megabytes": record(HANDSHAKE, b"\x01\xff\xff\xff" + bytes(16_000)) * 20,
    "an alert": record(21, b"\x02\x28"),
    "SSL 2": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(37),
}


@pytest.mark.parametrize("sent", NO_TLS.values(), ids=NO_TLS)
def test_what_is_no_tls_gets_no_answer_of_http(daemon: Daemon, port: Port, sent: bytes) -> None:
    with port.bare() as sock:
        with contextlib.suppress(OSError):
            sock.sendall(sent)
            sock.shutdown(socket.SHUT_WR)
        assert b"HTTP" not in received(sock)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_old_versions_are_not_spoken(daemon: Daemon, port: Port) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with port.bare() as sock, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(sock, server_hostname="localhost")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("junk", ["a second greeting", "noise", "a torn record"])
def test_garbage_beneath_the_protection_ends_the_connection(
    daemon: Daemon, port: Port, version: ssl.TLSVersion, junk: str
) -> None:
    sock, protected, going = port.beneath(version)
    with sock:
        protected.write(b"GET /v1/queue HTTP/1.1\r\nHost: localhost\r\nX-Half: ")
        sock.sendall(going.read())
        if junk == "a torn record":
            protected.write(b"done\r\n\r\n")
            torn = bytearray(going.read())
            torn[-1] ^= 1
            sock.sendall(torn)
        else:
            greeting = b"\x01\x00\x00\x26\x03\x03" + secrets.token_bytes(34) + b"\x00\x02\x00\xff"
            sock.sendall(
                record(HANDSHAKE, greeting) if junk == "a second greeting" else secrets.token_bytes(5000)
            )
        answer = received(sock)
        assert b"HTTP" not in answer


def test_who_says_nothing_or_half_of_it_is_not_waited_for(daemon: Daemon, port: Port) -> None:
    with contextlib.ExitStack() as opened:
        silent = opened.enter_context(port.bare())
        half = opened.enter_context(port.bare())
        half.sendall(record(HANDSHAKE, b"\x01\x00\x02\x00\x03\x03" + bytes(100), 512))
        greeted = opened.enter_context(port.connect())
        halfway = opened.enter_context(port.connect())
        halfway.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        # Gone in the middle, with and without a goodbye.
        with port.connect() as rude:
            rude.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with port.connect() as polite, contextlib.suppress(OSError):
            polite.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            polite.unwrap()
        assert told(port.ask(request("GET", "/readyz")))[0] == 200
        assert [received(each) for each in (silent, half, greeted, halfway)] == [b""] * 4


def test_hundreds_that_do_not_greet_keep_nobody_out(daemon: Daemon, port: Port) -> None:
    with contextlib.ExitStack() as opened:
        for _ in range(300):
            opened.enter_context(port.bare())
        assert told(port.ask(request("GET", "/readyz")))[0] == 200
    eventually(lambda: told(port.ask(request("GET", "/readyz")))[0] == 200)
