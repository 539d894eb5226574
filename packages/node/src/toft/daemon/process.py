"""The life of a daemon: take the home, open the node, serve, drain, close; in this order, back in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

from toft import wiring
from toft.api import app as applications
from toft.api import service as services
from toft.client import choice
from toft.client import place as places
from toft.daemon import doors, log_file, managing, network, notify, pulling
from toft.dispatch import node as nodes
from toft.kernel import errors, log
from toft.kernel.settings import Settings
from toft.kernel.version import VERSION
from toft.store import durable
from toft.web import app as pages

_log = log.get_logger("daemon")
_TIDY_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a daemon is started with.

    Attributes:
        settings: Of the node.
        environ: The environment variables.
        level: From which level on events are logged.
        takes_stderr: The log file also takes what is printed on standard error.
        ready: Called once it takes work.
    """

    settings: Settings
    environ: Mapping[str, str]
    level: str = "INFO"
    takes_stderr: bool = False
    ready: Callable[[], None] = lambda: None


def run(given: Surroundings) -> bool:
    """Be the daemon of a home until somebody ends it; blocks.

    Returns:
        Whether it is to be started again, with another generation.

    Raises:
        ConflictError: A daemon runs for this home already.
        RefusedError: The directory of the socket is open to others.
    """
    # Whoever finds the record may send it, before there is a loop and after it; the start looks anyway.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    place = places.Place(given.settings.home)
    network.check(given.settings)
    _prepare(place)
    starts_again = False
    with place.hold():
        try:
            # A socket that a killed daemon left would be taken for the one of this record.
            place.socket.unlink(missing_ok=True)
            place.write_record(VERSION)
            starts_again = _live(given, place)
        finally:
            # A process that becomes the next daemon stays the one to be ended, also while it holds nothing.
            if not starts_again:
                place.record.unlink(missing_ok=True)
    return starts_again


def _live(given: Surroundings, place: places.Place) -> bool:
    managed = managing.Managing.begin(place.home, given.environ)
    given = replace(given, settings=managed.settings(given.settings))
    log_to = log_file.LogFile(
        place.log,
        max_bytes=given.settings.log_bytes,
        files=given.settings.log_files,
        takes_stderr=given.takes_stderr,
    )
    with contextlib.closing(log_to):
        log_to.attach(given.level)
        managed.tell()
        # Not where it was started: what lies there decides nothing, and may be unmounted.
        os.chdir(place.home)
        _allow_many_files()
        try:
            asyncio.run(_Daemon(given, place, log_to, managed).live())
        except (errors.NodeError, OSError) as error:
            _log.error("failed", error=str(error))
            raise
        finally:
            # The loop took its handler along; the next program of this process inherits this one.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return managed.wants_restart


def _prepare(place: places.Place) -> None:
    durable.make_directory(place.home, 0o700)
    durable.make_directory(place.run, 0o700)
    if not places.is_private(place.run):
        # A mode that somebody has changed is mended; another owner is not.
        with contextlib.suppress(OSError):
            place.run.chmod(0o700)
    if not places.is_private(place.run):
        raise errors.RefusedError(
            f"{place.run} is not yours alone, and the socket would be there",
            code="daemon.run_directory",
            details={"path": str(place.run)},
            hint=f"rmdir {place.run}, or point TOFT_HOME at a directory of your own",
        )


def _allow_many_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _tell_failure(ended: asyncio.Task[None]) -> None:
    """Log what nobody waits for: a mistake of ours, and the daemon serves on without it."""
    if not ended.cancelled() and ended.exception() is not None:
        _log.error("managing_failed", error=repr(ended.exception()))


def _settle_memory() -> None:
    """Look for garbage only among what comes from now on, and not after every few requests.

    What is there after the start stays; going through it cost a tenth of each request over HTTP.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


class _Daemon:
    """One life."""

    def __init__(
        self,
        given: Surroundings,
        place: places.Place,
        log_to: log_file.LogFile,
        managed: managing.Managing,
    ) -> None:
        self._managed = managed
        self._given = given
        self._place = place
        self._log_to = log_to
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._looking: set[asyncio.Task[None]] = set()
        self._pulling: pulling.Pulling | None = None
        self._notify = notify.Notifier(given.environ)

    async def live(self) -> None:
        """Serve until a signal comes, then end in order."""
        self._obey()
        async with AsyncExitStack() as stack:
            stack.callback(self._notify.tell, "STOPPING=1")
            given, applied = self._given, self._managed.applied
            node = await stack.enter_async_context(
                wiring.open_node(settings=given.settings, environ=given.environ, applied=applied)
            )
            self._log_to.redact = node.rooms.redactor.text
            # Opening is the recovery: what was interrupted is known before anybody asks.
            await node.jobs.open()
            gate = await stack.enter_async_context(wiring.open_gate(node, applied))
            service = services.Service(
                node=node,
                socket=self._place.socket,
                settings=choice.told(given.settings, applied.settings),
                gate=gate,
            )
            phase = self._managed.attach(node, service, self._look, self._tell_phase)
            built = applications.build(service, faces=(pages.mount,))
            served = doors.Doors(built, gate, self._given.settings, self._listening)
            service.open_door = served.open_for_browser
            address = stack.enter_context(places.address(self._place.socket))
            stack.callback(self._place.socket.unlink, missing_ok=True)
            await served.open_network()
            await served.open_socket(address)
            # After the node's own end: whoever waits for a job still hears how it ended.
            watchdog = asyncio.create_task(self._notify.keep_alive())
            stack.callback(watchdog.cancel)
            service.state = services.State.READY
            _log.info("ready", pid=os.getpid(), socket=str(self._place.socket), version=VERSION)
            self._notify.tell("READY=1", f"MAINPID={os.getpid()}", f"STATUS={phase}")
            _settle_memory()
            self._given.ready()
            self._keep_tidy(node, stack)
            managing = asyncio.create_task(self._managed.work(self._restart))
            managing.add_done_callback(_tell_failure)
            stack.callback(managing.cancel)
            # What is left of this process when it is to end proves nothing any more: this ends first.
            async with self._managed.pull(self._restart) as self._pulling:
                # Somebody may have changed it since the start was decided, and found nobody to tell.
                self._look()
                await self._stop.wait()
                managing.cancel()
            await self._managed.withdraw()
            await self._drain(service)
            await service.sessions.end_all()
            await node.close()
            await served.close()
            # Last: it may have to wait for whoever holds the journal.
            await self._managed.end()
        _log.info("stopped")

    def _obey(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGQUIT, self._end_now)
        loop.add_signal_handler(signal.SIGHUP, self._look)

    def _keep_tidy(self, node: nodes.Node, stack: AsyncExitStack) -> None:
        installer = node.rooms.installer
        tidying = asyncio.create_task(installer.artifacts.keep_tidy(installer.is_installed_from))
        stack.callback(tidying.cancel)

    def _listening(self, url: str) -> None:
        """Let others on this machine find the port."""
        self._place.write_record(VERSION, listen=url)

    def _tell_phase(self, phase: str) -> None:
        # What `systemctl status` shows; one that is about to end says that instead.
        if not self._stop.is_set():
            self._notify.tell(f"STATUS={phase}")

    def _look(self) -> None:
        """Somebody has changed which generation counts, perhaps."""
        looks = [self._managed.look(self._restart)]
        if self._pulling is not None:
            looks.append(self._pulling.look())
        for look in looks:
            looking = asyncio.create_task(look)
            self._looking.add(looking)
            looking.add_done_callback(self._looking.discard)

    def _restart(self) -> None:
        """Stop in order to start again; whoever has asked for an end gets that."""
        if not self._stop.is_set():
            self._managed.wants_restart = True
            self._stop.set()

    def _end(self) -> None:
        """Stop in order; asked a second time, without waiting for what runs."""
        if self._stop.is_set() and not self._managed.wants_restart:
            self._hurry.set()
        self._managed.wants_restart = False
        self._stop.set()

    def _end_now(self) -> None:
        """Stop without waiting for what runs; two equal signals in a row may arrive as one."""
        self._managed.wants_restart = False
        self._hurry.set()
        self._stop.set()

    async def _drain(self, service: services.Service) -> None:
        """Take no new work, and give what runs the time that the settings allow."""
        service.state = services.State.DRAINING
        seconds = await self._managed.drain_s(self._given.settings.drain_s)
        _log.info("draining", calls=service.running, drain_s=seconds)
        # systemd knows only what the settings said when the unit was written.
        extended = f"EXTEND_TIMEOUT_USEC={int((seconds + _TIDY_S) * 1e6)}"
        self._notify.tell("STOPPING=1", "STATUS=draining", extended)
        hurry = asyncio.create_task(self._hurry.wait())
        idle = asyncio.ensure_future(
            asyncio.gather(service.wait_idle(), service.jobs.drain(seconds), return_exceptions=True)
        )
        try:
            waiting: set[asyncio.Future[Any]] = {hurry, idle}
            await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if service.running:
                _log.warning("interrupting", calls=service.running)
                service.interrupt()
        finally:
            hurry.cancel()
            idle.cancel()
