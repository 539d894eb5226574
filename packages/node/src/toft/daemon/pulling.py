"""Ties a node to its central: the loop that asks, what it takes to be asked, and what becomes of an answer.

Only a node that has joined has any of it; the others pay for nothing but a look at three files.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toft.kernel import clock as clocks
from toft.kernel import log, threads
from toft.kernel.errors import ConflictError, NodeError, NotFoundError, UnavailableError
from toft.managed import (
    admission,
    document,
    gates,
    generations,
    identity,
    moments,
    outcomes,
    phases,
    polling,
    protocol,
    reports,
    served_wheels,
    staging,
    telemetry,
    transport,
    wheels,
)
from toft.managed.document import Document

if TYPE_CHECKING:
    from toft.managed import connections, enrolling

_log = log.get_logger("daemon.pulling")


async def _nothing() -> reports.Details:
    return reports.Details()


@dataclass(frozen=True, kw_only=True)
class Tells:
    """What a central is told of a node beside its journal.

    Attributes:
        details: Returns what only the process knows, for a report.
        sources: Where the rows come from that the document lets it send.
    """

    details: Callable[[], Awaitable[reports.Details]] = _nothing
    sources: Sequence[telemetry.Source] = ()


class Pulling:
    """What a daemon has to do with its central.

    Args:
        engine: Of the home.
        boot: What this process has loaded.
        loaded: What that says.
        restart: Ends this process in order, to load another generation.
        install: Makes what gets the plugins that a document pins, given where wheels are had by their hash.
        gated: Looks at the gates of a document before it is committed.
        tells: What the central is told beside the journal.
        clock: For all that waits.

    Attributes:
        has_polled: The central has answered this process.
    """

    def __init__(
        self,
        engine: generations.Generations,
        boot: generations.Boot,
        loaded: Document,
        restart: Callable[[], None],
        *,
        install: Callable[[wheels.Source], staging.Installer] | None = None,
        gated: gates.Gated | None = None,
        tells: Tells | None = None,
        clock: clocks.Clock = clocks.SYSTEM,
    ) -> None:
        self._engine = engine
        self._boot = boot
        self._document = loaded
        self._restart = restart
        self._installer = install(self) if install is not None else None
        self._gated = gated
        self._tells = tells or Tells()
        self._reports: reports.Reports | None = None
        self._telemetry: telemetry.Telemetry | None = None
        self._clock = clock
        self._began = clock.now()
        self._files = identity.Files.at(engine.directory.parent)
        self._found = identity.Found()
        self._transport: connections.Connections | None = None
        self._credentials: enrolling.Credentials | None = None
        self._polling: polling.Polling | None = None
        self._answered_at = clock.monotonic()
        self._is_proven = False
        self._is_ending = False
        self.has_polled = False

    async def __aenter__(self) -> Pulling:
        await self.start()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.stop()

    @property
    def is_on(self) -> bool:
        """Say whether this node has a central."""
        return self._polling is not None

    async def start(self) -> None:
        """Begin to ask, if there is anybody to ask."""
        self._found = await asyncio.to_thread(self._files.read)
        for problem in self._found.problems:
            _log.error("membership", problem=problem)
        member = self._found.membership
        if member is None:
            return
        if self._found.is_mended:
            await self._mend()
        self._transport, credentials = await asyncio.to_thread(self._open, member.trust)
        self._credentials = credentials
        self._polling = polling.Polling(
            self,
            credentials,
            self._urls,
            float(self._document.poll_interval_s),
            clock=self._clock,
        )
        self._reports = reports.Reports(
            self._engine.directory, credentials, self._good_url, self._seen, clock=self._clock
        )
        self._telemetry = telemetry.Telemetry(
            self._engine.directory,
            credentials,
            self._good_url,
            self._tells.sources,
            float(self._document.telemetry_every_s),
            clock=self._clock,
        )
        self._polling.start()
        self._reports.start()
        self._telemetry.start()

    async def stop(self) -> None:
        """End it before anything else ends: what is left of this process proves nothing any more."""
        ending = (self._polling, self._reports, self._telemetry)
        await asyncio.gather(*(each.stop() for each in ending if each is not None))
        if self._credentials is not None:
            await self._credentials.close()
        if self._transport is not None:
            await self._transport.close()

    async def look(self) -> None:
        """See whether somebody has joined or left meanwhile: then another process goes on with that.

        When nobody has, whoever asked for this wants to know what the central says now.
        """
        self.noted()
        now = await asyncio.to_thread(self._files.read)
        if not self._known().is_still(now):
            _log.info("another membership")
            self._restart()
        elif self._polling is not None and self._polling.standing().last is not None:
            self._polling.wake()

    def proven(self) -> None:
        """Ask again now: what ran on trial has proven itself, and the next one may come."""
        self._is_proven = True
        self.noted()
        if self._polling is not None:
            self._polling.wake()

    def noted(self) -> None:
        """Let the central know, as soon as it can be, that something has changed here."""
        if self._reports is not None:
            self._reports.note()

    def standing(self) -> polling.Standing | None:
        """Return what is known of the polls; None on a node without a central."""
        return self._polling.standing() if self._polling is not None else None

    def forwarded(self) -> dict[str, Any] | None:
        """Return what became of the rows that the document lets it send; None when it lets it send none."""
        return self._telemetry.standing() if self._telemetry is not None and self._tells.sources else None

    async def probe(self, urls: Sequence[str]) -> outcomes.Outcome:
        """Ask some control URLs whether they answer this node, with its credential, and take nothing.

        Args:
            urls: Of a document; one that names none leaves it with those of the join.

        Returns:
            The best of their answers.
        """
        if self._polling is None or self._credentials is None:
            return outcomes.nowhere()
        return await self._polling.probe(_usable(urls) or self._credentials.membership.urls)

    async def served(self) -> bytes:
        """Return the document that the central serves this node now; nothing is done with it.

        Raises:
            NodeError: No control URL gives one.
        """
        if self._polling is None or self._credentials is None:
            raise no_central()
        return await self._polling.fetch()

    def _open(self, trust: transport.Trust) -> tuple[connections.Connections, enrolling.Credentials]:
        # A tenth of a second and 10 MB, for cryptography above all, that only such a node pays.
        from toft.managed import connections, enrolling  # noqa: PLC0415 - cryptography, as said

        asks = connections.Connections(trust, self._clock)
        credentials = enrolling.Credentials(
            asks, self._files, self._found, facts=enrolling.facts(), clock=self._clock
        )
        # What the central itself has served may send its nodes elsewhere; a file or a hand may not.
        served = [self._document.control_urls] if _is_served(self._boot.meta.source) else []
        for slot in self._engine.read().slots.values():
            if not slot.problem and _is_served(slot.meta.source):
                with contextlib.suppress(document.DocumentError):
                    served.append(document.parse(slot.document).control_urls)
        credentials.vouch(url for urls in served for url in urls)
        return asks, credentials

    async def _mend(self) -> None:
        try:
            await threads.finished(self._files.mend)
        except (OSError, NodeError) as error:
            _log.error("not mended", error=str(error))

    def _known(self) -> identity.Found:
        credentials = self._credentials
        return credentials.found if credentials is not None else self._found

    def _good_url(self) -> str:
        return self._polling.standing().url if self._polling is not None else ""

    async def _seen(self) -> reports.Seen:
        """Return what there is to report."""
        moment = await asyncio.to_thread(moments.read)
        standing = self.standing()
        return reports.Seen(
            boot=self._boot,
            standing=await asyncio.to_thread(self._engine.read),
            since=self._began,
            desired=standing.desired if standing is not None else "",
            wall_s=moment.wall_s,
            uptime_s=moment.uptime_s,
            platform=f"{platform.system()} {platform.release()} {platform.machine()}",
            details=await self._tells.details(),
        )

    def _urls(self) -> Sequence[str]:
        """Return where to ask: what the document says, unless it says nothing, or nothing has come of it."""
        credentials = self._credentials
        if credentials is None:
            return ()
        joined = credentials.membership.urls
        own = _usable(self._document.control_urls)
        if not own or not credentials.is_enrolled:
            return joined
        is_cut_off = self._clock.monotonic() - self._answered_at > self._document.offline_grace_s
        return (*own, *joined) if is_cut_off and self._boot.trial is None else own

    async def open(self, sha256: str) -> AsyncGenerator[bytes]:
        """Yield the bytes of a wheel that the central has; see `toft.managed.wheels.Source`."""
        if self._transport is None or self._credentials is None:
            raise NotFoundError("this node has no central", code="control.no_artifact")
        pieces = served_wheels.read(self._transport, self._credentials, self._urls(), sha256)
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                yield piece

    def running_etag(self) -> str:
        """Return the name of what this process has loaded, whatever lies in the slots by now."""
        return self._boot.etag

    def running(self) -> tuple[int | None, int]:
        """Return its revision, and which attempt of the central it was."""
        return self._boot.meta.revision, self._boot.meta.attempt

    def is_on_trial(self) -> bool:
        """Say whether it has not proven itself when it was loaded, and nobody has said so since."""
        return self._boot.trial is not None and not self._is_proven

    async def confirm_poll(self) -> None:
        """Take note that the central has answered; whoever watches the trial asks for that."""
        self._answered_at = self._clock.monotonic()
        if not self.has_polled:
            self.has_polled = True
            self.noted()

    async def stage(
        self,
        data: bytes,
        etag: str,
        *,
        source: str,
        attempt: int,
        revision: int | None,
        signatures: str,
    ) -> staging.Staged:
        """Check a document and commit it; then this process ends for the next one to load it.

        Raises:
            NodeError: It is not applied; see `polling.Facade`.
        """
        try:
            return await self._stage(data, etag, source, signatures, attempt=attempt, revision=revision)
        finally:
            self.noted()

    async def _stage(
        self, data: bytes, etag: str, source: str, header: str, *, attempt: int, revision: int | None
    ) -> staging.Staged:
        if self._is_ending:
            raise ConflictError(
                "this process ends to load another generation",
                code="generation.restart_pending",
                hint="nothing to do: the next one asks again",
            )
        key_ids = await self._vouch(data, etag, source, header, attempt=attempt, revision=revision)
        try:
            offered = await asyncio.to_thread(document.parse, data)
        except document.DocumentError as error:
            await staging.remember(
                self._engine, etag, "validation_failed", str(error), attempt=attempt, revision=revision
            )
            raise
        try:
            staged = await staging.stage(
                self._engine,
                offered,
                nonce=self._boot.nonce,
                source=source,
                attempt=attempt,
                key_ids=key_ids,
                now_s=self._credentials.server_now() if self._credentials else 0.0,
                installer=self._installer,
                gated=self._gated,
            )
        except (asyncio.CancelledError, UnavailableError):
            # Broken off for another document, or by the disk, with its last step done all the same.
            found = await threads.finished(self._engine.read)
            trial = found.state.trial
            if trial is not None and (trial.by_nonce, trial.slot) == (self._boot.nonce, found.active):
                self._end()
            raise
        if staged.action == "applied":
            self._end()
        return staged

    def _end(self) -> None:
        self._is_ending = True
        self._restart()

    async def _vouch(
        self, data: bytes, etag: str, url: str, header: str, *, attempt: int, revision: int | None
    ) -> Sequence[str]:
        """Return who vouches for a document; refuse one that nobody does, once somebody must."""
        from toft.managed import vouching  # noqa: PLC0415 - cryptography, for members only

        if self._credentials is None:
            return ()
        try:
            key_ids = await vouching.signers(self._credentials, url, data, etag=etag, header=header)
        except admission.UnsignedError as error:
            await staging.remember(
                self._engine, etag, error.reason, str(error), attempt=attempt, revision=revision
            )
            raise
        if key_ids:
            await threads.finished(lambda: self._forgive(etag))
        return key_ids

    def _forgive(self, etag: str) -> None:
        """Try a document whose signatures were missing, now that they have come: its bytes were never bad."""
        bad = phases.find_bad(self._engine.read().state, etag)
        if bad is not None and bad.reason == admission.UnsignedError.reason:
            self._engine.record(lambda state: phases.forgiven(state, etag))


def no_central() -> NotFoundError:
    """Return the error for what only a node with a central can be asked."""
    return NotFoundError(
        "this node asks no central, so that nothing is served to it",
        code="generation.no_central",
        hint="toft join URL TOKEN",
    )


def _usable(urls: Sequence[str]) -> tuple[str, ...]:
    """Return those of a document's control URLs that are any, in the form in which they are asked."""
    found = []
    for url in urls:
        with contextlib.suppress(protocol.MessageError):
            found.append(protocol.check_url(url))
    return tuple(found)


def _is_served(source: str) -> bool:
    return source.startswith(("http://", "https://"))
