"""Looks at the gates of the document that runs: proves it or sends it back while it is on trial."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from toft.api.service import Service
from toft.daemon.applying import Kept
from toft.kernel import clock as clocks
from toft.kernel import errors, lasting, log
from toft.managed import course, document, gates, generations, looks, moments, outcomes, phases, polling
from toft.managed.gates import Light, Reading
from toft.plugins import activity as activities
from toft.plugins import plugin_errors
from toft.plugins.supervision.states import State

_log = log.get_logger("daemon.gating")
_AGAIN_S = 5.0
_SHORTEST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_CALM_S = 60.0
"""Between two looks at the gates of a document that is proven: they are for whoever looks then."""


class Central(Protocol):
    """Who tells this node what to be, as far as a trial is about that."""

    has_polled: bool
    """It has answered this process."""

    async def probe(self, urls: Sequence[str]) -> outcomes.Outcome:
        """Ask some control URLs whether they answer this node, and take nothing."""
        ...

    def noted(self) -> None:
        """Let it know that something has changed."""
        ...

    def standing(self) -> polling.Standing | None:
        """Return what is known of the polls."""
        ...

    def proven(self) -> None:
        """Ask again now: what ran on trial has proven itself."""
        ...


class Subject:
    """What gates look at in this daemon.

    Args:
        service: The daemon.
        kept: Tells how the instances stand that the document declares.
    """

    def __init__(self, service: Service, kept: Callable[[], Sequence[Kept]] = tuple) -> None:
        self._service = service
        self._kept = kept
        self.central: Central | None = None

    def lived_s(self) -> float:
        """Return for how long the process has lived."""
        return self._service.uptime_s

    def polled(self) -> Reading:
        """Return whether who tells this node what to be has answered this process."""
        if self.central is None:
            return Reading(Light.IDLE, "nobody is asked")
        if self.central.has_polled:
            return Reading(Light.GREEN, "has answered")
        standing = self.central.standing()
        said = standing.last.problem if standing is not None and standing.last is not None else ""
        return Reading(Light.PENDING, said or "has not answered this process yet")

    def instances(self) -> Mapping[str, Reading]:
        """Return the loaded instances by name, and what is to be said of each."""
        loaded = self._service.node.instances()
        found = {
            each.id: Reading(_LIGHTS.get(each.state, Light.PENDING), f"is {each.state}") for each in loaded
        }
        for kept in self._kept():
            if kept.error is not None:
                found[kept.instance] = Reading(
                    Light.RED, f"cannot be loaded: {kept.error.get('message', '')}"
                )
        return found

    async def ended(self, instance: str | None, window_s: float) -> tuple[int, int]:
        """Return how many jobs ended well, and how many not, since the process began."""
        engine = await self._service.jobs.open()
        return engine.tally.ends.within(instance, window_s, self._service.clock.monotonic())

    async def health(self, instance: str) -> Reading:
        """Ask a plugin itself."""
        found = next((each for each in self._service.node.instances() if each.id == instance), None)
        if found is None:
            return Reading(Light.PENDING, "is not loaded")
        try:
            is_well, message = await activities.health(found)
        except plugin_errors.PluginError as error:
            return Reading(Light.RED, f"says: {error}")
        except errors.NodeError as error:
            return Reading(Light.RED, error.message)
        if is_well is None:
            return Reading(Light.IDLE, message)
        return Reading(Light.GREEN if is_well else Light.RED, message or "is well")


_UNSEEN = Reading(Light.PENDING, "nobody has looked yet"), 0.0
_LIGHTS = {State.READY: Light.GREEN, State.CRASH_LOOP: Light.RED, State.STOPPED: Light.RED}


@dataclass(kw_only=True)
class Watched:
    """What is watched over: one boot of a home's generations.

    Attributes:
        engine: Of the home.
        boot: What this process has loaded.
        document: What that says.
        is_readable: This program understands it; what it does not, does not run, and proves nothing.
        allowed: What its gates may look at outside of this node.
        proven: Awaited once what was on trial has proven itself.
        tell: Told each time the trial comes to another phase, in some words.
    """

    engine: generations.Generations
    boot: generations.Boot
    document: document.Document
    is_readable: bool
    allowed: gates.Allowed
    proven: Callable[[], Awaitable[None]]
    tell: Callable[[str], object] = log.get_logger("daemon.phase").debug

    @property
    def phase(self) -> str:
        """Return what this process begins with, as the first of what is told."""
        return f"{'on trial' if self.boot.trial is not None else 'idle'}: {self.name}"

    @property
    def name(self) -> str:
        """Return how a person calls the document."""
        revision = self.boot.meta.revision
        return f"revision {revision}" if revision is not None else self.boot.etag[:19] or "no document"


class Gating:
    """The gates of a daemon.

    Args:
        watched: What this process has loaded.
        subject: What its gates look at.
        is_member: The node has joined a central, which must answer.
        clock: Times the looks.
        now: Tells the moment that trials are timed by; blocks for one small file.

    Attributes:
        central: Who is asked, on a node that has joined.
    """

    def __init__(
        self,
        watched: Watched,
        subject: Subject,
        *,
        is_member: bool = False,
        clock: clocks.Clock = clocks.SYSTEM,
        now: Callable[[], moments.Moment] = moments.read,
    ) -> None:
        self._now = now
        self._watched = watched
        self.subject = subject
        self.central: Central | None = None
        self._clock = clock
        self._gates = gates.declared(watched.document, is_enrolled=is_member)
        self._readings: dict[str, tuple[Reading, float]] = {}

    async def baseline(self, offered: document.Document) -> dict[str, str]:
        """Return what the gates of an offered document show now, before anything of it runs."""
        found = await looks.look(gates.declared(offered), offered, self.subject, self._watched.allowed)
        return looks.shown(found)

    @property
    def allowed(self) -> gates.Allowed:
        """Return what gates may look at outside of this node."""
        return self._watched.allowed

    def told(self) -> list[dict[str, Any]]:
        """Return the gates, and what was found the last time somebody looked."""
        trial = self._watched.boot.trial
        baseline = trial.baseline if trial else {}
        told = []
        for gate in self._gates:
            reading, since = self._readings.get(gate.name, _UNSEEN)
            told.append(gates.told(gate, reading, baseline, since=clocks.rfc3339(since) if since else None))
        return told

    async def watch(self, restart: Callable[[], None]) -> None:
        """Decide over what is on trial, then go on looking for whoever asks; begun again when it fails.

        Args:
            restart: Ends this process in order, to load another generation.
        """
        trial, is_again = self._watched.boot.trial, False

        async def watch() -> None:
            nonlocal trial, is_again
            if is_again:
                trial = await self._still(trial)
            is_again = True
            await self._watch(trial, restart)

        # A trial that nobody watches would never end.
        await lasting.keep_on(watch)

    async def _watch(self, trial: phases.Trial | None, restart: Callable[[], None]) -> None:
        if trial is not None and not await self._decide(trial):
            restart()
            return
        pause_s = _AGAIN_S
        while self._gates:
            await self._look()
            await asyncio.sleep(pause_s)
            # What waits for the first answer of a central is not told as waiting for a minute.
            pause_s = min(2 * pause_s, _CALM_S)

    async def _still(self, trial: phases.Trial | None) -> phases.Trial | None:
        """Return a trial as it is kept by now; None when it has been decided meanwhile."""
        try:
            kept = (await asyncio.to_thread(self._watched.engine.read)).state.trial
        except (OSError, errors.NodeError) as error:
            _log.error("not read", error=str(error))
            return trial
        return kept if trial is not None and kept is not None and kept.etag == trial.etag else None

    async def _look(self) -> dict[str, Reading]:
        watched = self._watched
        found = await looks.look(self._gates, watched.document, self.subject, watched.allowed)
        now = self._clock.now()
        for name, reading in found.items():
            before = self._readings.get(name)
            is_new = before is None or before[0].light is not reading.light
            if is_new:
                _log.info("gate", gate=name, state=str(reading.light), message=reading.message)
            self._readings[name] = reading, now if before is None or is_new else before[1]
            if is_new and self.central is not None:
                self.central.noted()
        return found

    async def _decide(self, trial: phases.Trial) -> bool:
        """Watch a trial to its end; False when the generation before it counts now."""
        watched = self._watched
        settle_s = watched.document.settle_s
        trying = course.Course(self._gates, trial, settle_s)
        pause_s = min(max(settle_s / 5, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S)
        left_s = trial.remaining_s(await asyncio.to_thread(self._now))
        etag = watched.boot.etag
        _log.info("on trial", etag=etag, boots=trial.boots, settle_s=settle_s, remaining_s=left_s)
        while True:
            readings = await self._look()
            at = self._clock.monotonic()
            outcome = trying.learn(readings, at)
            if outcome is course.Outcome.PROVEN and watched.is_readable:
                await self._confirm()
                return True
            if outcome is course.Outcome.FAILED:
                detail = f"{trying.red_gate}: {readings[trying.red_gate].message}"
                return not await self._revert("health_failed", phases.Severity.PERMANENT, detail)
            left_s = trial.remaining_s(await asyncio.to_thread(self._now))
            if left_s <= 0 and not (trying.is_settling and watched.is_readable):
                verdict = phases.at_deadline(trial, await self._findings(trying.lasting_red(at)))
                if not verdict.hold_s:
                    return not await self._revert(verdict.reason, verdict.severity, "")
                trial = await self._hold(trial, verdict.hold_s)
            await asyncio.sleep(min(pause_s, max(left_s, _SHORTEST_PAUSE_S)))

    async def _findings(self, red_gate: str) -> phases.Findings:
        """Ask the control URLs of both documents, to tell a bad document from a bad network."""
        grace_s = float(self._watched.document.offline_grace_s)
        found = phases.Findings(new=None, old=None, red_gate=red_gate, offline_grace_s=grace_s)
        if self.central is None:
            return found
        own, former = self._watched.document.control_urls, await asyncio.to_thread(self._former_urls)
        if set(own) == set(former):
            # Of two questions to the same one, one may get lost: that would be no difference of documents.
            new = old = await self.central.probe(own)
        else:
            new, old = await asyncio.gather(self.central.probe(own), self.central.probe(former))
        _log.info("probed", new=str(new.answer), old=str(old.answer))
        return dataclasses.replace(found, new=new.answer, old=old.answer, retry_after_s=new.retry_after_s)

    def _former_urls(self) -> Sequence[str]:
        trial = self._watched.boot.trial
        slot = self._watched.engine.read().slots.get(trial.prev) if trial else None
        try:
            return document.parse(slot.document).control_urls if slot and not slot.problem else ()
        except document.DocumentError:
            return ()

    async def _hold(self, trial: phases.Trial, seconds: float) -> phases.Trial:
        now = await asyncio.to_thread(self._now)
        state = await self._change(
            lambda: self._watched.engine.record(lambda state: phases.extended(state, seconds, now))
        )
        self._watched.tell(f"held: {self._watched.name}")
        _log.info("config.held", etag=trial.etag, revision=trial.revision, seconds=seconds)
        kept = state.trial if isinstance(state, phases.State) else None
        return kept or phases.lengthened(trial, seconds, now)

    async def _confirm(self) -> None:
        # A disk that is full for a moment condemns no document.
        while True:
            done = await self._change(lambda: self._watched.engine.confirm(self._watched.boot))
            if done is not None:
                break
            await asyncio.sleep(_AGAIN_S)
        if done:
            boot = self._watched.boot
            _log.info("config.confirmed", etag=boot.etag, revision=boot.meta.revision)
            self._watched.tell(f"idle: {self._watched.name}")
        if self.central is not None:
            self.central.proven()
        if done:
            await self._watched.proven()

    async def _revert(self, reason: str, severity: phases.Severity, detail: str) -> bool:
        """Go back; False when there is nothing to go back to, or somebody else has decided meanwhile."""
        standing = await asyncio.to_thread(self._watched.engine.read)
        on_trial = standing.state.trial
        if on_trial is None or on_trial.etag != self._watched.boot.etag:
            return False
        while True:
            done = await self._change(lambda: self._watched.engine.revert(reason, severity, detail))
            if done is not None:
                break
            await asyncio.sleep(_AGAIN_S)
        level = _log.warning if done else _log.error
        told = {"etag": on_trial.etag, "revision": on_trial.revision, "reason": reason, "detail": detail}
        level("config.rolled_back" if done else "config.stranded", **told)
        self._watched.tell(f"{'reverting' if done else 'stranded'}: {self._watched.name}, {reason}")
        return bool(done)

    async def _change(self, verb: Callable[[], object]) -> object:
        try:
            return await asyncio.to_thread(verb)
        except (OSError, errors.NodeError) as error:
            _log.error("not kept", error=str(error))
            return None
