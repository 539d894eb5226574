"""Stands between a client and a node: carries bytes, with TLS to the client, and cuts when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Open = Callable[[], Coroutine[Any, Any, Streams]]


class Relay:
    """One address that leads to a node; see `open`."""

    def __init__(self, target: Open, tls: ssl.SSLContext | None) -> None:
        self.port = 0
        self.connections = 0
        self.lets_through: int | None = None
        self._target = target
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._carrying: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay")

    def cut(self) -> None:
        """End every connection, as a network does that is gone for a moment."""
        self._do(self._cut())

    def close_port(self) -> None:
        """Listen no more, and end every connection."""
        self._do(self._stop())

    def open_port(self) -> None:
        """Listen again at the same address."""
        self._do(self._start())

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._cut()

    async def _cut(self) -> None:
        for each in list(self._carrying):
            each.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = self._loop.create_task(self._carry(reader, writer))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            there, back = await self._target()
            ends.append(back)
            await asyncio.wait(
                [
                    asyncio.ensure_future(_pump(reader, back)),
                    asyncio.ensure_future(self._bring(there, writer)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            for each in ends:
                each.transport.abort()

    async def _bring(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Carry to the client; a connection that has brought `lets_through` bytes breaks."""
        brought = 0
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                brought += len(data)
                sink.write(data)
                await sink.drain()
                if self.lets_through is not None and brought > self.lets_through:
                    return


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()


@contextlib.contextmanager
def running(target: Open, tls: ssl.SSLContext | None = None) -> Iterator[Relay]:
    """Run a relay for the length of a `with` block."""
    relay = Relay(target, tls)
    relay._thread.start()
    try:
        relay.open_port()
        yield relay
    finally:
        relay.close_port()
        relay._loop.call_soon_threadsafe(relay._loop.stop)
        relay._thread.join()
        relay._loop.close()


class Authority:
    """Signs certificates, for tests only."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "toft tests")])
        self.file = directory / "ca.pem"
        made = self._signed(self._name, self._key, (), 1.0, x509.BasicConstraints(ca=True, path_length=0))
        self.file.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def make(self, *names: str, days: float = 1.0) -> tuple[Path, Path]:
        """Return the files of a certificate for these names, and of its key; negative days have passed."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "node")])
        made = self._signed(subject, key, names, days, x509.BasicConstraints(ca=False, path_length=None))
        stem = f"{'_'.join(names)}_{days}"
        certificate, secret = self._directory / f"{stem}.pem", self._directory / f"{stem}.key"
        certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return certificate, secret

    def context(self, *names: str, days: float = 1.0) -> ssl.SSLContext:
        """Return what a server shows that has such a certificate."""
        found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        found.load_cert_chain(*self.make(*names, days=days))
        return found

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        names: tuple[str, ...],
        days: float,
        kind: x509.BasicConstraints,
    ) -> x509.Certificate:
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)  # noqa: TID251 - of today
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(end - datetime.timedelta(days=10))
            .not_valid_after(end)
            .add_extension(kind, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        if kind.ca:
            usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, critical=True)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([*map(_named, names)]), critical=False
            )
        return builder.sign(self._key, hashes.SHA256())


def _named(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
