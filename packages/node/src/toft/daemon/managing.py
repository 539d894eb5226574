"""Ties a home's generations to the daemon: what is loaded, when it is proven, when to start again."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from toft.access import tokens
from toft.api import service as services
from toft.daemon import applying as declaring
from toft.daemon import desk, gating, installing, provisioning, pulling, telemetry
from toft.dispatch import jobs
from toft.dispatch import node as nodes
from toft.dispatch import schedules as scheduling
from toft.kernel import errors, log
from toft.kernel.settings import Settings
from toft.kernel.timetable import Timetable
from toft.managed import (
    applying,
    console,
    document,
    gates,
    generations,
    guard,
    identity,
    layering,
    phases,
    reports,
)
from toft.managed.telemetry import Source

_log = log.get_logger("daemon.managing")
_WAY_BACK_S = 60.0
_AGAIN_S = 5.0


class Managing:
    """The documents of a home, seen from the process that has loaded one.

    Args:
        engine: Of the home.
        boot: What this process has loaded.
        notes: What the guard found when it decided that.
        environ: The environment.

    Attributes:
        applied: What the document makes of the node.
    """

    def __init__(
        self,
        engine: generations.Generations,
        boot: generations.Boot,
        notes: tuple[str, ...] = (),
        *,
        environ: Mapping[str, str],
    ) -> None:
        self._engine = engine
        self._environ = environ
        self.boot = boot
        self.wants_restart = False
        self._notes = (*notes, *boot.notes)
        parsed = _parse(boot)
        self._is_readable = parsed is not None
        self._document = parsed or _nothing(boot)
        self._kept: declaring.Applying | None = None
        self._is_member = identity.Files.at(engine.directory.parent).read().membership is not None
        self.gating: gating.Gating | None = None
        self._desk: desk.Desk | None = None
        self._local: layering.Local | None = None
        self._installs: installing.Installs | None = None
        pinned = applying.pinned_by(engine.directory.parent, boot.meta.artifacts)
        self.applied = applying.of(self._document, boot.etag, boot.meta.fetched_at, pinned)
        # Before this process logs anything: its central is to hear that too.
        self._log_from = telemetry.log_end(engine.directory.parent)
        self._sources: Sequence[Source] = ()
        self._timed: scheduling.Schedules | None = None
        self._tokens: tokens.Tokens | None = None

    @classmethod
    def begin(cls, home: Path, environ: Mapping[str, str]) -> Managing:
        """Take over what the guard before this process has decided, or decide it here; blocks.

        Raises:
            OSError: The directory cannot be made.
        """
        engine = generations.Generations.at(home)
        joined = provisioning.take(engine, environ)
        adopted = engine.adopt(environ.get(guard.BOOT, ""))
        boot = adopted or engine.boot(secrets.token_hex(16))
        installing.refuse(home, boot)
        notes = (*guard.notes(environ), *((joined,) if joined else ()))
        return cls(engine, boot, notes, environ=environ)

    def tell(self) -> None:
        """Log what was found and done when it was decided what to load; there is no log before that."""
        for note in self._notes:
            _log.warning("boot", note=note)
        for event in self.boot.events:
            told = {"etag": event.etag, "revision": event.revision, "reason": event.reason}
            _log.warning(f"config.{event.event}", **told)

    def settings(self, given: Settings) -> Settings:
        """Return the settings of the node: what the document names wins."""
        self._local = layering.Local.of(self._environ, given)
        return dataclasses.replace(given, **self.applied.settings)

    def attach(
        self,
        node: nodes.Node,
        service: services.Service,
        look: Callable[[], None],
        tell: Callable[[str], object],
    ) -> str:
        """Tie what the document declares to a node that has opened, and to those who ask about it.

        Args:
            node: The node.
            service: The daemon.
            look: Sees whether another document counts by now.
            tell: Told each time the document comes to another phase, in some words.

        Returns:
            The phase that it is in now.

        Raises:
            UsageError: A setting about gates does not fit.
        """
        wanted = [_schedule(*each) for each in self.applied.schedules.items()]
        check = functools.partial(jobs.checked, node.jobs)
        self._timed = scheduling.Schedules(node.jobs.open, check, wanted)
        self._tokens = service.gate.tokens if service.gate is not None else None
        self._kept = declaring.Applying(node, self.applied, self._tokens, self._timed)
        self._installs = installing.Installs(node, self._environ, self.boot, self._document)
        service.document = self._kept.told
        chosen = node.rooms.settings
        watched = gating.Watched(
            engine=self._engine,
            boot=self.boot,
            document=self._document,
            is_readable=self._is_readable,
            # What gates may look at outside of this node stands in its own settings alone.
            allowed=gates.Allowed.of(chosen.gate_hosts, chosen.gate_commands, chosen.home),
            proven=self._installs.collect,
            tell=tell,
        )
        subject = gating.Subject(service, self._kept.standing)
        self.gating = gating.Gating(watched, subject, is_member=self._is_member)
        local = self._local or layering.Local.of(self._environ, chosen)
        self._desk = service.documents = desk.Desk(
            console.Console(chosen.home, local),
            self.boot,
            self.gating,
            service,
            installer=self._installs.installer,
            look=look,
        )
        self._sources = self._sources_of(node)
        return watched.phase

    def _sources_of(self, node: nodes.Node) -> Sequence[Source]:
        """Return what the document lets this node send its central in rows."""
        chosen = node.rooms.settings
        return telemetry.sources(
            self._document.own("telemetry"),
            chosen.home,
            node.jobs.open,
            log_files=chosen.log_files,
            begins=self._log_from,
            redact=node.rooms.redactor.text,
        )

    async def drain_s(self, given_s: float) -> float:
        """Return how long what runs may keep this process from ending.

        What is left for the one before has no say in how long its way back takes, whatever it was left for:
        nobody reaches the node meanwhile.

        Args:
            given_s: What the settings say, the document's among them.
        """
        if not self.wants_restart:
            return given_s
        standing = await asyncio.to_thread(self._engine.read)
        state, active = standing.state, standing.active
        is_back = state.trial is None and active is not None and active != self.boot.slot
        return min(given_s, _WAY_BACK_S) if is_back else given_s

    async def work(self, restart: Callable[[], None]) -> None:
        """Do what the document asks for, and prove it, until this is cancelled.

        Args:
            restart: Ends this process in order, to load another generation.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._finish(restart))
            if self.gating is not None:
                tasks.create_task(self.gating.watch(restart))
            if self._kept is not None and self._timed is not None and self._installs is not None:
                # Nothing is loaded from what is just being made again.
                await self._installs.mend(self._engine, restart)
                tasks.create_task(self._kept.keep())
                tasks.create_task(self._timed.run())

    async def _finish(self, restart: Callable[[], None]) -> None:
        """Go the way that a full disk kept the start from going; until then nothing new can be committed."""
        while True:
            is_done = await self._change(self._engine.finish)
            if is_done is not None:
                break
            await asyncio.sleep(_AGAIN_S)
        if is_done:
            restart()

    def pull(self, restart: Callable[[], None]) -> pulling.Pulling:
        """Return what asks the central for the next document.

        Args:
            restart: Ends this process in order, to load another generation.
        """
        install = self._installs.installer if self._installs is not None else None
        made = pulling.Pulling(
            self._engine,
            self.boot,
            self._document,
            restart,
            install=install,
            gated=self.gating,
            tells=pulling.Tells(details=self._details, sources=self._sources),
        )
        if self.gating is not None and self._is_member:
            self.gating.central = self.gating.subject.central = made
        if self._desk is not None and self._is_member:
            self._desk.central = made
        return made

    async def _details(self) -> reports.Details:
        if self._desk is None:
            return reports.Details()
        found = await self._desk.describe()
        return reports.Details(
            gates=found["gates"],
            overrides=found["overrides"],
            effective=await asyncio.to_thread(self._desk.console.effective),
        )

    async def look(self, restart: Callable[[], None]) -> None:
        """See whether another generation counts by now than the one this process has loaded."""
        standing = await asyncio.to_thread(self._engine.read)
        slot = standing.slots[standing.active] if standing.active else None
        # A damaged one is not what the next start would load either: that would go on for ever.
        if slot is not None and slot.problem:
            return
        counts = (slot.name, slot.meta.etag) if slot is not None else ("", "")
        if counts != (self.boot.slot, self.boot.etag):
            _log.info("another generation", slot=standing.active)
            restart()

    async def withdraw(self) -> None:
        """End at once what is open with tokens that the next start does not know: a drain takes its time."""
        if self._tokens is not None:
            following = await asyncio.to_thread(applying.read, self._engine.directory.parent)
            self._tokens.withdraw(following.tokens)

    async def end(self) -> None:
        """Keep in mind that this process ended in order."""
        await self._change(lambda: self._engine.record(phases.stopped))

    async def _change(self, verb: Callable[[], object]) -> object:
        try:
            return await asyncio.to_thread(verb)
        except (OSError, errors.NodeError) as error:
            _log.error("not kept", error=str(error))
            return None


def _parse(boot: generations.Boot) -> document.Document | None:
    try:
        return document.parse(boot.document)
    except document.DocumentError as error:
        # It was checked before it was committed; by another version of this program, perhaps.
        _log.error("unreadable document", error=str(error), etag=boot.etag)
        return None


def _schedule(name: str, said: Mapping[str, Any]) -> scheduling.Schedule:
    return scheduling.Schedule(
        name=name,
        plugin=said["plugin"],
        instance=said["instance"],
        action=said.get("action"),
        arguments=said.get("arguments", {}),
        timetable=Timetable(every_s=said.get("every_s"), cron=said.get("cron")),
        overlaps=said.get("overlap", False),
        timeout_s=said.get("timeout_s"),
    )


def _nothing(boot: generations.Boot) -> document.Document:
    return document.Document(boot.document, {"schema_version": document.SCHEMA_VERSION})
