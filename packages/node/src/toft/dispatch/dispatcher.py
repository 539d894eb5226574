"""The loop that gives out lanes: wake, decide, claim, run, finish.

Everything happens in callbacks on the event loop's thread. The claim for the next job is issued in the same
turn as the finish of the last, so that both are in one commit. Time comes from the loop, chance from an
argument, and whatever touches the machine is behind the backend: a seed replays a run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

from toft.dispatch import alarms, attempts, faults, measuring, preparing, recovering
from toft.dispatch import backend as seam
from toft.dispatch.attempts import Options
from toft.dispatch.lanes import Lanes
from toft.dispatch.stations import Station
from toft.jobs import admission, peaks, queue, records, retries, transaction
from toft.jobs.admission import Standing
from toft.kernel import errors, log

_log = log.get_logger("dispatch.dispatcher")
_FLUSH_S = 1.0

__all__ = ["Dispatcher", "Options"]


class Dispatcher:
    """Runs the jobs of one queue on one backend.

    Args:
        jobs: The open queue.
        backend: Where attempts run.
        known: What was measured of instances.
        randomness: Returns random bytes, for the pauses between attempts.
        options: How it goes about it.
    """

    def __init__(
        self,
        jobs: queue.JobQueue,
        backend: seam.Backend,
        known: peaks.Peaks,
        *,
        randomness: retries.Randomness,
        options: Options,
    ) -> None:
        pauses = (options.pause_s, options.pause_most_s)
        self.options = options
        self.measurer = measuring.Measurer(backend, known)
        self.lanes = Lanes(options.lanes, options.rules, backend, self.measurer)
        self._queue = jobs
        self._backend = backend
        self._known = known
        self._loop = asyncio.get_running_loop()
        self._preparer = preparing.Preparer(backend, self.measurer, self.wake, pauses)
        self._recovery = recovering.Recovery(self.lanes, self._preparer, jobs.note)
        follow = attempts.Follow(
            freed=self._on_freed,
            settle=self._settle,
            measure=lambda station: self._spawn(self._first_measured(station)),
            look=lambda station: self._spawn(self.measurer.look(station)),
            store_failed=self._store_failed,
        )
        self._attempts = attempts.Attempts(
            jobs, backend, self.lanes, self.measurer, randomness=randomness, options=options, follow=follow
        )
        # A policy that does not count what is still to come must at least see what has come.
        self._stale_s = options.stale_s if options.rules.policy.packs else options.pause_s
        self._is_open = False
        self._is_woken = False
        self._is_deciding = False
        self._must_tell = False
        self._alarms = alarms.Alarms(self._ring)
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._paused_s = 0.0
        self._paused_until = float("-inf")

    # Beginning and end

    def start(self) -> None:
        """Begin to give out lanes."""
        self._is_open = True
        self._queue.listeners.append(self._on_change)
        self._queue.droppers.append(self._on_dropped)
        self._backend.watch(self._on_backend)
        self.wake()

    async def drain(self, within_s: float | None = None) -> bool:
        """Start nothing more and wait for what runs; False when something still does."""
        self._is_open = False
        try:
            async with asyncio.timeout(within_s):
                await self.lanes.free.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Stop; what still runs is interrupted, and its worker left to whoever closes the backend."""
        self._is_open = False
        self._alarms.clear()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        await self._attempts.close()
        await self.measurer.close()
        await self._flush()

    # Figures

    def status(self) -> dict[str, Any]:
        """Return what the lanes do, for people."""
        now = self._loop.time()
        running = [
            {
                "job": run.claim.id,
                "instance": run.station.instance,
                "attempt": run.claim.attempt,
                "for_s": round(now - run.started_at, 3),
            }
            for run in self._attempts.runs.values()
        ]
        given = {"is_open": self._is_open, "paused_s": self._paused_s}
        return {**self.lanes.status(), **given, "running": running}

    # Waking

    def _on_change(self, effects: transaction.Effects) -> None:
        if self._paused_s:
            # Something was committed, so the store takes things again.
            self._paused_s, self._paused_until = 0.0, self._loop.time()
        for job_id in effects.cancels:
            self._attempts.cancel(job_id)
        self.wake()

    def cancel(self, job_id: str, grace_s: float) -> None:
        """Say how long a job may take to end once it is asked to; before or after it is asked."""
        self._attempts.set_grace(job_id, grace_s)

    def wake(self, *_: object) -> None:
        """Decide in the next turn of the loop; many wakes before it are one."""
        if not self._is_woken and self._is_open:
            self._is_woken = True
            self._loop.call_soon(self._step)

    def _on_freed(self) -> None:
        """Decide at once, so that the next claim is in the commit of the finish before it."""
        if self._is_deciding:
            self.wake()
        else:
            self._step()

    def _on_backend(self, instance: str) -> None:
        station = self.lanes.stations.get(instance)
        if station is not None:
            station.is_stale = True  # its configuration may be another one now
            if station.away is not None and station.away.get("code") == "disabled":
                station.away = None
        self.wake()

    def _ring(self, name: str) -> None:
        if name == "sample":
            self._spawn(self._sample())
        elif name == "flush":
            self._spawn(self._flush())
        else:
            self._must_tell |= name == "tell"
            self.wake()

    def _step(self) -> None:
        self._is_woken = False
        if not self._is_open or self._is_deciding:
            return
        self._is_deciding = True
        try:
            self._decide()
        except Exception as error:  # noqa: BLE001 - one bad turn must not end the dispatching of all jobs
            _log.error("decision_failed", error=repr(error))
            self._alarms.set("again", 1.0)
        finally:
            self._is_deciding = False

    # Deciding

    def _decide(self) -> None:
        now = self._loop.time()
        heads = self._queue.heads()
        if not heads or now < self._paused_until:
            return
        if self.lanes.taken >= self.lanes.count and not self._must_tell:
            # Nothing can be decided; what is left to do is to say so, to those who have waited a while.
            self._alarms.set("tell", self.options.tell_after_s)
            return
        self._must_tell = False
        candidates = []
        for instance, head in heads.items():
            station = self.lanes.station(instance)
            station.see(head, now)
            if station.is_stale and not (station.away or station.is_learning or station.doomed):
                station.is_learning, station.is_stale = True, False
                self._spawn(self._learn(station, head.id))
            candidate = self.lanes.candidate(station, head, now)
            if candidate is not None:
                candidates.append(candidate)
        if not candidates:
            return
        running = [(run.station, run.started_at) for run in self._attempts.runs.values()]
        lendable = self.lanes.lendable(self.lanes.overdue(running, now))
        can_admit = self.lanes.taken < self.lanes.count or lendable > 0
        if can_admit and self.lanes.must_measure(candidates, self._stale_s):
            self._spawn(self._measure_then_wake())
            return
        candidates.sort(key=lambda each: (each.rank, each.seq))
        world = self.lanes.world(candidates, now, lendable)
        for decision in admission.decide(world, candidates, self.options.rules):
            self._apply(decision, now)

    def _apply(self, decision: admission.Decision, now: float) -> None:
        station = self.lanes.stations[decision.instance]
        match decision:
            case admission.Admit(jobs=count):
                self._admit(station, count, now)
            case admission.Wait():
                self._wait(station, decision, now)
            case admission.Evict():
                self._tell(station, decision.reason)
                station.away = decision.reason
                self._spawn(self._recovery.make_room(station, decision))
            case admission.Refuse():
                self._refuse(station, decision)

    def _admit(self, station: Station, count: int, now: float) -> None:
        self.lanes.take(station, count)
        station.admitted = station.lanes
        station.blocked_since = 0.0
        if self.options.rules.policy.packs and self.measurer.need(station) is None:
            station.alone_since = now or 1e-9
            self._alarms.set("sample", self.options.look_s)
        self._alarms.set("sample", self.options.sample_s)
        if self.lanes.standing(station)[0] is Standing.READY:
            self._attempts.claim(station, count)
        else:
            station.is_loading, station.loading_since = True, now
            self._spawn(self._load(station, count))

    def _wait(self, station: Station, wait: admission.Wait, now: float) -> None:
        if (wait.is_short or wait.reason["code"] == "unmeasured") and not station.blocked_since:
            station.blocked_since = now or 1e-9
        if wait.is_short:
            self._alarms.set("sample", 1.0)
        if wait.recheck_s:
            self._alarms.set(f"recheck {station.instance}", wait.recheck_s)
        patient_s = self.options.tell_after_s - (now - station.waiting_since)
        if station.blocked_since and wait.reason["code"] == "no_lane":
            return  # a lane would not help it
        if patient_s > 0:
            self._alarms.set("tell", patient_s)
        else:
            self._tell(station, wait.reason)

    def _tell(self, station: Station, reason: Mapping[str, Any]) -> None:
        """Write down why the next job waits, when that is not what was written last."""
        told = (reason["code"], reason.get("resource"), reason.get("instance"))
        if station.head is not None and told != station.told:
            station.told = told
            self._queue.note(station.head.id, station.head.attempt, "blocked", {"reason": dict(reason)})

    def _on_dropped(self, job_id: str, kind: str) -> None:
        """Say once more why a job waits: the disk was full when it was said."""
        for station in self.lanes.stations.values():
            if kind == "blocked" and station.head is not None and station.head.id == job_id:
                station.told = None
                self._alarms.set("tell", self.options.tell_after_s)

    def _refuse(self, station: Station, refusal: admission.Refuse) -> None:
        head = station.head
        if head is None:
            return
        station.claiming += 1
        error = faults.refused(refusal.code, head.id, station.instance, refusal.details)
        failed = records.Outcome(state=records.State.FAILED, error=error, because=refusal.code)
        asked = self._queue.end(head.id, failed)

        def done(_: asyncio.Future[records.Job]) -> None:
            station.claiming -= 1
            failed = None if asked.cancelled() else asked.exception()
            if failed is not None and not isinstance(failed, errors.ConflictError):
                self._store_failed(failed)
            self.wake()

        asked.add_done_callback(done)

    def _store_failed(self, error: BaseException | None) -> None:
        """Leave the store alone for a while: a full disk does not get better by asking."""
        if error is not None and not isinstance(error, errors.NodeError):
            _log.error("queue_failed", error=repr(error))
        now = self._loop.time()
        if now >= self._paused_until:
            self._paused_s = min(self.options.pause_most_s, max(self.options.pause_s, self._paused_s * 2))
            self._paused_until = now + self._paused_s
        self._alarms.set("store", self._paused_until - now)

    def _settle(
        self, station: Station, claim: records.Claimed, fault: seam.Fault, again: retries.Again
    ) -> None:
        """See to it that the next attempt meets something better than this one did."""
        if again.makes_room:
            station.away = {"code": "recovering", "instance": station.instance, "job": claim.id}
            self._spawn(self._recovery.recover(station, claim, fault))
        elif fault.origin is retries.Origin.UNBEGUN:
            station.failures += 1
            reason = {"code": "not_started", "instance": station.instance, "error": fault.error.get("code")}
            self._preparer.keep_away(station, reason, self._preparer.pause_s(station))

    # What takes its time

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks[task] = None
        task.add_done_callback(self._on_task)

    def _on_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("dispatching_failed", error=repr(error))
            self._alarms.set("again", 1.0)

    async def _learn(self, station: Station, job_id: str) -> None:
        job = await self._queue.find(job_id)
        if job is None:
            station.is_learning, station.is_stale = False, True
        elif (fault := await self._preparer.learn(station, job.plugin)) is not None:
            self.lanes.take(station, 1)
            self._doom(station, fault)
        self.wake()

    def _doom(self, station: Station, fault: seam.Fault) -> None:
        """End the next job of an instance with what kept the instance from running it."""
        station.doomed = fault
        self._attempts.claim(station, 1)

    async def _load(self, station: Station, count: int) -> None:
        try:
            fault = await self._preparer.load(station)
        except BaseException:
            self.lanes.release(station, count)
            raise
        finally:
            station.is_loading = False
        if not self._is_open:
            self.lanes.release(station, count)
        elif fault is not None:
            self.lanes.release(station, count - 1)
            self._doom(station, fault)
        else:
            self._attempts.claim(station, count)

    async def _measure_then_wake(self) -> None:
        await self.measurer.measure()
        self.wake()

    async def _first_measured(self, station: Station) -> None:
        await self.measurer.look(station)
        station.alone_since = 0.0
        self._attempts.go_on(station)
        self.wake()

    async def _flush(self) -> None:
        self.lanes.forget_idle(self._queue.heads())
        try:
            await self._known.flush()
        except errors.NodeError as error:
            _log.warning("peaks_not_written", error=str(error))

    async def _sample(self) -> None:
        """Measure what runs, and go on as long as something does or waits for memory."""
        now, alone_s = self._loop.time(), self.options.rules.alone_s
        measured = [
            each
            for each in self.lanes.stations.values()
            if each.lanes and not (each.alone_since and now - each.alone_since < alone_s)
        ]
        await self.measurer.sample(list(self._attempts.runs.values()), measured, self.options.sample_s)
        for station in measured:
            self.lanes.reserve(station)
        if self.lanes.taken:
            is_looking = any(
                each.alone_since and self.measurer.need(each) is None for each in self.lanes.stations.values()
            )
            self._alarms.set("sample", self.options.look_s if is_looking else self.options.sample_s)
        self._alarms.set("flush", _FLUSH_S)
        self.wake()
