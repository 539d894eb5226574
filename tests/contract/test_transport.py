"""One client against servers that hurt: real sockets, real TLS, and a bound and a clear word for each."""

import contextlib
import gzip
import hashlib
import socket
import ssl
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import fake_central
from tests.fake_central import FakeCentral, Reply, Request
from tests.relays import Authority

from toft.managed import protocol, transport
from toft.managed.connections import Connections
from toft.managed.transport import AnswerError, Trust, TrustError, UnreachableError

MOST = transport.MOST_BYTES


@pytest.fixture
def central() -> Iterator[FakeCentral]:
    with fake_central.running() as made:
        yield made


async def ask(
    central: FakeCentral, trust: Trust | None = None, *, deadline_s: float = 5.0, path: str = protocol.CONFIG
) -> transport.Answer:
    asks = Connections(trust or Trust())
    try:
        headers = {"Authorization": "Bearer secret"}
        return await asks.ask("GET", central.url + path, headers=headers, deadline_s=deadline_s)
    finally:
        await asks.close()


def raw(*parts: bytes, pause_s: float = 0.0) -> fake_central.Hurt:
    """Send bytes, with pauses between them; what is left of them when the other end has gone is not sent."""

    def hurt(connection: socket.socket, request: Request) -> None:
        for part in parts:
            connection.sendall(part)
            if pause_s:
                connection.settimeout(pause_s)
                with contextlib.suppress(TimeoutError):
                    if not connection.recv(1):
                        return

    return hurt


def endless(head: bytes, piece: bytes) -> tuple[fake_central.Hurt, list[int]]:
    sent: list[int] = []

    def hurt(connection: socket.socket, request: Request) -> None:
        connection.sendall(head)
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(piece)
                sent.append(len(piece))

    return hurt, sent


def test_the_deadlines_are_what_is_promised() -> None:
    assert (transport.DEADLINE_S, MOST) == (30.0, 1_048_576)


async def test_exactly_as_much_as_is_allowed_comes_and_one_byte_more_does_not(central: FakeCentral) -> None:
    central.then(protocol.CONFIG, Reply(body=b"x" * MOST), Reply(body=b"x" * (MOST + 1)))
    assert len((await ask(central)).body) == MOST
    with pytest.raises(AnswerError) as refused:
        await ask(central)
    assert refused.value.code == "control.too_large"


async def test_a_gigabyte_that_is_announced_is_not_read(central: FakeCentral) -> None:
    seen: list[str] = []

    def announced(connection: socket.socket, request: Request) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
        connection.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b"", "nothing more is asked on it"
        seen.append("closed")

    central.then(protocol.CONFIG, announced)
    with pytest.raises(AnswerError, match="1073741824 bytes"):
        await ask(central)
    central.stop()
    assert seen == ["closed"]


async def test_a_body_without_an_end_is_cut_at_the_first_byte_too_many(central: FakeCentral) -> None:
    for head, piece in (
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n",
            zlib.compressobj(wbits=31).compress(b"") + gzip.compress(bytes(200 << 20), 9),
        ),
    ):
        hurt, sent = endless(head, piece)
        central.then(protocol.CONFIG, hurt)
        with pytest.raises(AnswerError) as refused:
            await ask(central)
        assert refused.value.code in ("control.too_large", "control.bad_answer")
        assert sum(sent) < 64 << 20


async def test_a_bomb_is_bounded_by_what_it_unfolds_into(central: FakeCentral) -> None:
    bomb = gzip.compress(bytes(64 << 20), 9)
    assert len(bomb) < 100_000
    told = {"Content-Encoding": "gzip"}
    central.then(
        protocol.CONFIG,
        Reply(headers=told, body=bomb),
        Reply(headers=told, body=gzip.compress(b"y" * MOST)),
        Reply(headers=told, body=gzip.compress(b"y" * (MOST + 1))),
        Reply(headers=told, body=b"not packed at all"),
        Reply(headers={"Content-Encoding": "br"}, body=b"x"),
    )
    with pytest.raises(AnswerError) as refused:
        await ask(central)
    assert refused.value.code == "control.too_large"
    assert (await ask(central)).body == b"y" * MOST
    for why in ("the most", "cannot be unpacked", "nobody asked for"):
        with pytest.raises(AnswerError, match=why):
            await ask(central)


@pytest.mark.parametrize(
    "hurt",
    [
        raw(b"", pause_s=30),
        raw(b"HTTP/1.1 200 OK\r\n", pause_s=30),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", *[b"x"] * 100, pause_s=0.3),
        raw(*[b"HTTP/1.1 102 Processing\r\n\r\n"] * 100, pause_s=0.1),
        raw(b"HTTP/1.1 200 OK\r\n", *[b"X-A: b\r\n"] * 100, pause_s=0.1),
    ],
    ids=["no answer", "half a head", "a byte now and then", "soon, soon", "headers for ever"],
)
async def test_whoever_takes_too_long_is_cut_off(central: FakeCentral, hurt: fake_central.Hurt) -> None:
    central.then(protocol.CONFIG, hurt)
    with pytest.raises(UnreachableError) as refused:
        await ask(central, deadline_s=0.6)
    assert refused.value.code == "control.deadline"


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"garbage\r\n\r\n",
        b"\x00\x01\x02\xff" * 50,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"HTTP/1.1 999999 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad Header\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_an_error_with_a_name(central: FakeCentral, said: bytes) -> None:
    central.then(protocol.CONFIG, raw(said))
    with pytest.raises(UnreachableError) as refused:
        await ask(central)
    assert refused.value.code == "control.unreachable"
    assert central.url in refused.value.message


async def test_nobody_is_followed_elsewhere(central: FakeCentral) -> None:
    with fake_central.running() as other:
        for status in (301, 302, 303, 307, 308):
            central.then(protocol.CONFIG, Reply(status, {"Location": other.url + protocol.CONFIG}))
            assert (await ask(central)).status == status
        assert other.requests == []


async def test_nobody_at_an_address_is_an_error_with_a_name(central: FakeCentral) -> None:
    central.stop()
    with pytest.raises(UnreachableError, match="cannot be asked"):
        await ask(central)
    asks = Connections(Trust())
    for url in (
        "https://" + "a" * 70 + ".example.org",
        "http://[::1",
        "https://.example.org",
        "http://localhost:0",
    ):
        with pytest.raises((UnreachableError, TrustError)):
            await asks.ask("GET", url, headers={}, deadline_s=5.0)
    await asks.close()


async def test_plain_http_is_for_this_machine_alone() -> None:
    for url in (
        "http://central.example.org",
        "http://central.example.org/x",
        "http://127.0.0.1.example.org",
        "ftp://localhost",
    ):
        with pytest.raises(TrustError) as refused:
            transport.check(url, Trust())
        assert refused.value.code == "control.plain_http"
    transport.check("http://central.example.org", Trust(insecure_http=True))
    for url in ("http://127.0.0.1:8", "http://[::1]:8/a", "http://localhost", "https://central.example.org"):
        transport.check(url, Trust())
    with pytest.raises(TrustError):
        transport.check("ftp://localhost", Trust(insecure_http=True))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def pin_of(path: Path) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(path.read_text())).hexdigest()


async def test_who_may_be_told_a_credential_is_settled_before_it_is_sent(
    authority: Authority, tmp_path: Path
) -> None:
    certificate, key = authority.make("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    other = Authority(tmp_path).file
    pin, wrong = pin_of(certificate), "0" * 64
    spelled = ":".join(pin[at : at + 2] for at in range(0, 64, 2)).upper()
    with fake_central.running(context) as central:
        for trust in (
            Trust(ca_file=str(authority.file)),
            Trust(pin_sha256=pin),
            Trust(pin_sha256=spelled),
            Trust(ca_file=str(authority.file), pin_sha256=pin),
        ):
            assert (await ask(central, trust)).status == 401, trust
        told = len(central.requests)
        for trust, refusal, code in (
            (Trust(), UnreachableError, "control.unreachable"),
            (Trust(ca_file=str(other)), UnreachableError, "control.unreachable"),
            (Trust(ca_file=str(other), pin_sha256=pin), UnreachableError, "control.unreachable"),
            (Trust(pin_sha256=wrong), TrustError, "control.other_certificate"),
            (Trust(ca_file=str(authority.file), pin_sha256=wrong), TrustError, "control.other_certificate"),
            (Trust(pin_sha256="abc"), TrustError, "control.pin"),
            (Trust(ca_file=str(tmp_path / "none.pem")), TrustError, "control.ca_file"),
            (Trust(ca_file=__file__), TrustError, "control.ca_file"),
        ):
            with pytest.raises(refusal) as refused:
                await ask(central, trust)
            assert refused.value.code == code
        assert len(central.requests) == told, "none of these was told anything"


async def test_a_certificate_that_is_over_or_for_another_name_is_refused_unless_it_is_pinned(
    authority: Authority,
) -> None:
    for names, days in ((("127.0.0.1",), -1.0), (("other.example.org",), 1.0)):
        certificate, key = authority.make(*names, days=days)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        with fake_central.running(context) as central:
            with pytest.raises(UnreachableError, match="certificate"):
                await ask(central, Trust(ca_file=str(authority.file)))
            assert (await ask(central, Trust(pin_sha256=pin_of(certificate)))).status == 401


async def test_old_tls_is_refused(authority: Authority) -> None:
    context = authority.context("127.0.0.1")
    with warnings.catch_warnings(action="ignore"):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with fake_central.running(context) as central, pytest.raises(UnreachableError):
        await ask(central, Trust(ca_file=str(authority.file)))


async def drain(asks: Connections, url: str) -> None:
    async with asks.stream(url, headers={}, idle_s=0.5) as (_, _, parts):
        async for _ in parts:
            pass


async def test_what_is_large_comes_in_parts(central: FakeCentral) -> None:
    body = bytes(range(256)) * 40_000
    central.then("/v1/artifacts/x", Reply(body=body), raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"))
    central.then("/v1/artifacts/x", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", pause_s=30))
    asks = Connections(Trust())
    url = central.url + "/v1/artifacts/x"
    async with asks.stream(url, headers={}) as (status, headers, parts):
        assert (status, headers["content-length"]) == (200, str(len(body)))
        assert b"".join([part async for part in parts]) == body
    for code in ("control.unreachable", "control.deadline"):
        with pytest.raises(UnreachableError) as refused:
            await drain(asks, url)
        assert refused.value.code == code
    await asks.close()
