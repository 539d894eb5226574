"""The process of a central: `python -m toft.daemon.central`; people start it with `toft central serve`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from toft.access import gate as gates
from toft.access import tokens
from toft.api.central import app as applications
from toft.api.central.service import Service
from toft.central import ingest, room, waiting
from toft.central.artifacts import Artifacts
from toft.daemon import listener, network, notify
from toft.kernel import errors, lasting, log
from toft.kernel import settings as node_settings
from toft.kernel.version import VERSION
from toft.managed import protocol
from toft.store import claims, database, durable
from toft.web.central import app as pages

_log = log.get_logger("central")
_DRAIN_S = 5.0
_REQUEST_BYTES = 4 << 30
FIRST_TOKEN = "admin"


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a central is started with.

    Attributes:
        data: Where it keeps everything.
        settings: Where it listens, and with which certificate.
        urls: By which addresses nodes reach it; where it listens when there are none.
        database: The address of a PostgreSQL database; a file in `data` when empty.
        environ: The environment variables.
        token_file: Where the first administrator's token goes; shown on standard output when None.
        slots: How many nodes may wait for a document at a time.
        telemetry_bytes: How much of each signal of a node is kept.
        say: Tells whoever started it something.
        ready: Called with its address once it takes requests.
    """

    data: Path
    settings: node_settings.Settings
    urls: Sequence[str] = ()
    database: str = ""
    environ: Mapping[str, str]
    token_file: Path | None = None
    slots: int = waiting.SLOTS
    telemetry_bytes: int = ingest.KEPT_BYTES
    say: Callable[[str], None] = lambda text: None
    ready: Callable[[str], None] = lambda url: None


def run(given: Surroundings) -> None:
    """Be a central until somebody ends it; blocks.

    Raises:
        UsageError: It would be public without TLS, or an address is none.
        ConflictError: One runs on this data already.
        UnavailableError: Nobody can listen there.
    """
    where = network.check(given.settings)
    if where is None:
        raise errors.UsageError("a central listens somewhere: --listen HOST:PORT", code="daemon.listen")
    for each in given.urls:
        protocol.check_url(each)
    durable.make_directory(given.data, 0o700)
    held = claims.claim(given.data)
    if held is None:
        raise errors.ConflictError(
            f"a central runs on {given.data} already",
            code="central.running",
            hint="end that one first, or name another directory with --data",
        )
    with held:
        log.show("INFO", sys.stderr)
        _allow_many_files()
        asyncio.run(_Serving(given, where).live())


def _allow_many_files() -> None:
    """Let each node that waits have its connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Serving:
    """One life."""

    def __init__(self, given: Surroundings, where: network.Where) -> None:
        self._given = given
        self._where = where
        self._stop = asyncio.Event()
        self._notify = notify.Notifier(given.environ)

    async def live(self) -> None:
        """Serve until a signal comes, then end in order."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        given = self._given
        async with AsyncExitStack() as stack:
            stack.callback(self._notify.tell, "STOPPING=1")
            store = await asyncio.to_thread(_database, given)
            stack.push_async_callback(store.close)
            await store.open({"access": "toft.access", "central": "toft.central"})
            tls = await asyncio.to_thread(network.context, given.settings)
            sock = await asyncio.to_thread(network.bind, self._where)
            stack.callback(sock.close)
            url = network.url(sock, self._where, given.settings, is_tls=tls is not None)
            central = await room.Central(
                store, given.urls or (url,), slots=given.slots, telemetry_bytes=given.telemetry_bytes
            ).open()
            stack.push_async_callback(central.close)
            gate = gates.Gate(await tokens.Tokens(store).open())
            stack.push_async_callback(gate.tokens.close)
            await self._first_token(gate)
            artifacts = Artifacts(store, given.data / "artifacts")
            await asyncio.to_thread(artifacts.sweep)
            service = Service(
                central=central,
                gate=gate,
                artifacts=artifacts,
                request_bytes=_REQUEST_BYTES,
                listen=url,
            )
            names = (
                self._where.host,
                *given.settings.allowed_hosts,
                *(urlsplit(each).hostname or "" for each in given.urls),
            )
            served = listener.Listener(
                applications.build(service, names, faces=(pages.mount,)),
                listener.OpenLimits(headers_s=30.0),
                tls=tls,
            )
            await served.start(sock)
            stack.push_async_callback(served.close, _DRAIN_S)
            for work in (central.keep, central.controller.run, self._notify.keep_alive):
                stack.callback(asyncio.create_task(lasting.keep_on(work)).cancel)
            _settle_memory()
            _log.info("ready", url=url, pid=os.getpid(), version=VERSION, nodes=len(central.nodes))
            self._notify.tell("READY=1", f"STATUS={url}")
            given.ready(url)
            await self._stop.wait()
            _log.info("draining", waiting=len(central.waiting))
            self._notify.tell("STOPPING=1", "STATUS=draining")
            # Whoever waits is answered that nothing has changed, and asks again when there is somebody.
            central.waiting.close()
        _log.info("stopped")

    async def _first_token(self, gate: gates.Gate) -> None:
        """Make a token for the first administrator, where nobody has ever had one."""
        if await gate.tokens.list():
            return
        file = self._given.token_file
        _, text = await gate.tokens.create(FIRST_TOKEN, ["*"])
        if file is not None:
            await asyncio.to_thread(durable.write_file, file, f"{text}\n".encode(), mode=0o600)
            return
        self._given.say(text)


def _database(given: Surroundings) -> database.Opened:
    if not given.database:
        return database.Database(given.data / "central.db")
    try:
        from toft.store import postgres  # noqa: PLC0415 - a library that only this kind needs
    except ImportError as error:
        raise errors.UsageError(
            "a database on a server needs a library that is not installed",
            code="central.no_postgres",
            details={"missing": str(error)},
            hint="pip install 'toft[postgres]'",
        ) from error
    return postgres.PostgresDatabase(given.database)


def _settle_memory() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def main(arguments: Sequence[str] | None = None) -> int:
    """Be a central, for a service manager and for tests; people type `toft central serve`."""
    parser = argparse.ArgumentParser(prog="toft central serve", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--listen", required=True)
    parser.add_argument("--url", action="append", default=[])
    parser.add_argument("--tls-cert", type=Path)
    parser.add_argument("--tls-key", type=Path)
    parser.add_argument("--insecure-public", action="store_true")
    parser.add_argument("--admin-token-file", type=Path)
    parser.add_argument("--database", default="")
    parser.add_argument("--slots", type=int, default=waiting.SLOTS)
    parser.add_argument("--telemetry-bytes", type=int, default=ingest.KEPT_BYTES)
    given = parser.parse_args(arguments)
    try:
        serve(
            data=given.data,
            listen=given.listen,
            urls=given.url,
            tls=(given.tls_cert, given.tls_key),
            insecure_public=given.insecure_public,
            token_file=given.admin_token_file,
            slots=given.slots,
            telemetry_bytes=given.telemetry_bytes,
            dsn=given.database,
        )
    except errors.NodeError as error:
        sys.stderr.write(f"error: {error.message}\n" + (f"next: {error.hint}\n" if error.hint else ""))
        return error.exit_code
    return 0


def serve(
    *,
    data: Path,
    listen: str,
    urls: Sequence[str] = (),
    tls: tuple[Path | None, Path | None] = (None, None),
    insecure_public: bool = False,
    token_file: Path | None = None,
    slots: int = waiting.SLOTS,
    telemetry_bytes: int | None = None,
    dsn: str = "",
) -> None:
    """Be a central; what somebody has to know stands on standard output."""
    settings = node_settings.read(
        {}, home=data, listen=listen, tls_cert=tls[0], tls_key=tls[1], insecure_public=insecure_public or None
    )

    def say(text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    run(
        Surroundings(
            data=settings.home,
            settings=settings,
            urls=urls,
            database=dsn or os.environ.get("TOFT_CENTRAL_DATABASE", ""),
            environ=dict(os.environ),
            token_file=token_file,
            slots=slots,
            telemetry_bytes=telemetry_bytes or ingest.KEPT_BYTES,
            say=lambda text: say(f"admin token (shown once): {text}"),
            ready=lambda url: say(f"ready at {url}; Ctrl-C ends it"),
        )
    )


if __name__ == "__main__":
    sys.exit(main())
