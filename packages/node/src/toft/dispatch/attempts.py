"""Attempts from their claim to their end. One costs no task: it begins and ends in callbacks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from toft.dispatch import backend as seam
from toft.dispatch import faults, finishing, measuring
from toft.dispatch.lanes import Lanes
from toft.dispatch.stations import Run, Station
from toft.jobs import admission, queue, records, retries

_LONG_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the dispatcher goes about it.

    Attributes:
        lanes: Attempts at once.
        rules: What admission goes by.
        ahead_s: Jobs worth so many seconds are claimed before their lane is free; 0 claims none.
        ahead_most: The most of them for one instance.
        held_s: Seconds a job that was claimed ahead waits for its lane before it is given back.
        tell_after_s: Seconds a job waits before anybody writes down why.
        sample_s: Pause between two measurements while jobs run.
        look_s: The same while an instance runs that was never measured.
        stale_s: Age at which a reading is too old to load an instance by.
        pause_s: Pause after the first failure to load, or of the store; doubles up to `pause_most_s`.
    """

    lanes: int = 2
    rules: admission.Rules = field(default_factory=admission.Rules)
    ahead_s: float = 0.01
    ahead_most: int = 32
    held_s: float = 0.25
    tell_after_s: float = 0.2
    sample_s: float = 4.0
    look_s: float = 0.25
    stale_s: float = 2.0
    pause_s: float = 0.1
    pause_most_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    """What the dispatcher does about what happens to attempts.

    Attributes:
        freed: Called when a lane is free and something else may have it.
        settle: Called with a station, a claim, the fault and the attempt that follows it.
        measure: Called with a station whose first job has ended; the lane is still held.
        look: Called with a station whose job has ended after a while.
        store_failed: Called when the queue did not take or give something.
    """

    freed: Callable[[], None]
    settle: Callable[[Station, records.Claimed, seam.Fault, retries.Again], None]
    measure: Callable[[Station], None]
    look: Callable[[Station], None]
    store_failed: Callable[[BaseException | None], None]


class Attempts:
    """What runs now.

    Args:
        jobs: The queue.
        backend: Where it runs.
        lanes: Who holds what.
        measurer: Counts what ends.
        randomness: For the pauses between attempts.
        options: How to go about it.
        follow: What to do about what happens.
    """

    def __init__(
        self,
        jobs: queue.JobQueue,
        backend: seam.Backend,
        lanes: Lanes,
        measurer: measuring.Measurer,
        *,
        randomness: retries.Randomness,
        options: Options,
        follow: Follow,
    ) -> None:
        self.runs: dict[str, Run] = {}
        self.finisher = finishing.Finisher(jobs, follow.store_failed, (options.pause_s, options.pause_most_s))
        self._queue = jobs
        self._backend = backend
        self._lanes = lanes
        self._measurer = measurer
        self._randomness = randomness
        self._options = options
        self._follow = follow
        self._asked: dict[str, None] = {}
        self._graces: dict[str, float] = {}
        self._claims: dict[asyncio.Future[list[records.Claimed]], None] = {}
        self._is_open = True
        self._loop = asyncio.get_running_loop()

    # Claiming

    def claim(self, station: Station, count: int) -> None:
        """Claim for lanes that are held, and what will soon be wanted."""
        asked = count + self._ahead(station)
        if not asked:
            return
        station.claiming += asked
        lane = {"busy": self._lanes.taken, "lanes": self._lanes.count}
        self.finisher.flush()  # in the same commit: the log never shows more at once than there are lanes
        claiming = self._queue.claim(station.instance, asked, lane_info=lane)
        self._claims[claiming] = None
        claiming.add_done_callback(partial(self._claimed, station, count, asked))

    def _ahead(self, station: Station) -> int:
        """Return how many more jobs are so short that claiming each would take longer than it."""
        if station.mean_s is None or station.doomed is not None or not self._options.ahead_s:
            return 0
        worth = int(self._options.ahead_s / max(station.mean_s, 1e-6))
        wanted = min(self._options.ahead_most, worth) - len(station.ahead) - station.claiming
        ready = station.head.ready - station.claiming if station.head is not None else 0
        return max(0, min(wanted, ready))

    def _claimed(
        self, station: Station, count: int, asked: int, claiming: asyncio.Future[list[records.Claimed]]
    ) -> None:
        station.claiming -= asked
        del self._claims[claiming]
        error = None if claiming.cancelled() else claiming.exception()
        if claiming.cancelled() or error is not None:
            self._lanes.release(station, count)
            self._follow.store_failed(error)
            return
        station.ahead.extend(claiming.result())
        left = count
        while left and station.ahead and self._is_open:
            left -= 1
            self._start(station, station.ahead.popleft())
        while station.ahead and self._is_open and self._may_widen(station):
            # The lane these were claimed for was given back before they came.
            self._lanes.take(station, 1)
            self._start(station, station.ahead.popleft())
        if station.ahead:
            self._loop.call_later(self._options.held_s, self._let_go, station, station.ahead[-1])
        if not self._claims:
            self._asked.clear()
            self._graces.clear()
        if left:
            station.doomed = None  # whose doom it was is gone
            self._lanes.release(station, left)
            self._follow.freed()

    def _may_widen(self, station: Station) -> bool:
        """Say whether a station may take back a lane it was admitted to and has released."""
        return (
            station.away is None
            and station.lanes < station.admitted
            and self._lanes.taken < self._lanes.count
        )

    def _let_go(self, station: Station, last: records.Claimed) -> None:
        """Give back what was claimed ahead and has not got its lane in time."""
        if self._is_open and last in station.ahead:
            while station.ahead:
                given = station.ahead.popleft()
                self.finisher.give_back(given)
                if given is last:
                    break

    # Running

    def _start(self, station: Station, claim: records.Claimed) -> None:
        """Begin an attempt on a lane the station holds."""
        run = Run(station, claim, self._loop.time(), self._queue.note, self._ended)
        self.runs[claim.id] = run
        if station.doomed is not None:
            fault, station.doomed = station.doomed, None
            run.ended(seam.Ending(fault=fault))
            return
        station.most_at_once = max(station.most_at_once, station.lanes)
        timeout_s = claim.timeout_s
        if claim.remaining_s is not None:
            timeout_s = claim.remaining_s if timeout_s is None else min(timeout_s, claim.remaining_s)
        run.has_begun = True
        handle = self._backend.start(claim, run, timeout_s=timeout_s)
        if not run.is_over:
            run.handle = handle
            run.grace_s = self._graces.pop(claim.id, None)
            if claim.id in self._asked:
                del self._asked[claim.id]
                run.cancel()

    def _ended(self, run: Run, ending: seam.Ending) -> None:
        station, claim, fault = run.station, run.claim, ending.fault
        seconds = self._loop.time() - run.started_at
        again = finishing.judge(run, ending, seconds, self._randomness)
        if run.was_cancelled:
            run.note("cancel", {"phase": "done"})
        if again is not None and fault is not None:
            error = {name: fault.error.get(name) for name in ("code", "category", "message", "details")}
            run.note("retry", {"because": again.because, "error": error, "delay_s": round(again.delay_s, 3)})
        run.is_over = True
        del self.runs[claim.id]
        has_run = run.has_begun and (fault is None or fault.origin is not retries.Origin.UNBEGUN)
        if has_run:
            station.note_duration(seconds)
            self._measurer.count(run, seconds, ending)
        outcome = finishing.outcome(run, ending, again, seconds)
        if station.ahead and fault is None and self._is_open:
            self.finisher.hold(claim.id, claim.attempt, outcome)
        else:
            self.finisher.finish(claim.id, claim.attempt, outcome)
        if again is not None and fault is not None:
            self._follow.settle(station, claim, fault, again)
        if has_run and station.alone_since and self._measurer.need(station) is None:
            # It keeps its lane until its memory was looked at: its worker will not hold that for ever.
            self._follow.measure(station)
            return
        if has_run and seconds >= _LONG_S and self._measurer.age_s >= _LONG_S:
            # Its worker still has the peak; whoever comes next would be taken for it.
            self._follow.look(station)
        self.go_on(station)

    def go_on(self, station: Station) -> None:
        """Use a lane that has become free: for what was claimed ahead, else for the most urgent."""
        if not (station.ahead and self._is_open and station.away is None):
            self._lanes.release(station)
            self._follow.freed()
            return
        if not station.claiming and len(station.ahead) <= self._options.ahead_most // 2:
            self._refill(station)
        self._start(station, station.ahead.popleft())

    def _refill(self, station: Station) -> None:
        """Claim more ahead, unless another instance has an older claim to the lane."""
        heads = self._queue.heads()
        head = heads.get(station.instance)
        if head is None or head.ready <= 0:
            return
        loaded = self._backend.find(station.instance)
        if loaded is None or loaded.condition is not seam.Condition.READY:
            return  # it is about to be replaced
        if len(heads) == 1 or min(heads.values(), key=lambda each: (each.rank, each.seq)) is head:
            station.see(head, self._loop.time())
            self.claim(station, 0)

    # Cancelling

    def set_grace(self, job_id: str, grace_s: float) -> None:
        """Say how long a running job may take to end once it is asked to."""
        run = self.runs.get(job_id)
        if run is not None:
            run.grace_s = grace_s
            if run.was_cancelled:
                run.cancel()
        elif self._claims:
            self._graces[job_id] = grace_s

    def cancel(self, job_id: str) -> None:
        """Ask an attempt to end; one that is still on its way here ends when it arrives."""
        run = self.runs.get(job_id)
        if run is not None:
            run.cancel()
            return
        for station in self._lanes.stations.values():
            for claim in station.ahead:
                if claim.id == job_id:
                    station.ahead.remove(claim)
                    self.finisher.cancelled(claim)
                    return
        if self._claims:
            self._asked[job_id] = None

    # The end

    async def close(self) -> None:
        """Stop; what still runs is interrupted."""
        self._is_open = False
        await self.finisher.close()
        if self._claims:
            # What is claimed by now and will not be begun must not be found running by the next boot.
            await asyncio.wait(list(self._claims))
            await asyncio.sleep(0)
        for station in self._lanes.stations.values():
            while station.ahead:
                self.finisher.give_back(station.ahead.popleft())
        for run in list(self.runs.values()):
            run.is_over = True
            await self.finisher.insist(run.claim.id, run.claim.attempt, _stopped(run.claim))
        self.runs.clear()


def _stopped(claim: records.Claimed) -> records.Outcome:
    """Return what becomes of a job that runs when the node ends: the same as when the node is killed."""
    may_run_again = claim.idempotent and claim.tries < claim.retry.max_attempts
    return records.Outcome(
        state=records.State.PENDING if may_run_again else records.State.INTERRUPTED,
        because="node_stopped",
        error=faults.stopped(claim.id),
    )
