"""Submits the jobs that come again by the clock; how far each schedule is, the queue remembers.

One look at the clock serves all of them. It is looked at every half a minute at least, because it may be set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toft.dispatch import engine as engines
from toft.jobs import records
from toft.jobs import schedules as ledger
from toft.kernel import clock as clocks
from toft.kernel import errors, log
from toft.kernel.timetable import Timetable
from toft.plugins.plugin_errors import PluginError

_log = log.get_logger("dispatch.schedules")
_LOOK_S = 30.0
_AT_ONCE = 16
_AGAIN_S = 5.0
_SHORTEST_S = 0.05
"""Whatever is due: one look and the next are never a loop that stands still."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A job that comes again.

    Attributes:
        name: Of the schedule.
        plugin: What does it.
        instance: Which instance of that.
        action: Which action; `execute` when None.
        arguments: By name.
        timetable: When.
        overlaps: Submit the next job also while the one before has not ended.
        timeout_s: Seconds one attempt may take.
    """

    name: str
    plugin: str
    instance: str
    timetable: Timetable
    action: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    overlaps: bool = False
    timeout_s: float | None = None


@dataclass
class _State:
    row: ledger.Row
    next_at: float | None = None
    not_before: float = 0.0
    error: Mapping[str, Any] | None = None


class Schedules:
    """The schedules of a node, while it serves.

    Args:
        opened: Returns what has the queue.
        check: Makes what is stored of what somebody wants to be done, and refuses what cannot be.
        schedules: All there are; others that the queue remembers are forgotten.
        clock: The time.
    """

    def __init__(
        self,
        opened: Callable[[], Awaitable[engines.Engine]],
        check: Callable[..., Awaitable[records.Request]],
        schedules: Sequence[Schedule],
        clock: clocks.Clock = clocks.SYSTEM,
    ) -> None:
        self._opened = opened
        self._check = check
        self._schedules = {each.name: each for each in schedules}
        self._clock = clock
        self._states: dict[str, _State] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def run(self) -> None:
        """Submit what is due, until this is cancelled."""
        pause_s = 0.0
        has_begun = False
        while self._schedules or not has_begun:
            if has_begun:
                pause_s = await self.step()
            else:
                has_begun = await self._begun()
                pause_s = 0.0 if has_begun else _AGAIN_S
            await asyncio.sleep(pause_s)

    async def begin(self) -> None:
        """Read how far each schedule is; new ones begin now.

        Raises:
            UnavailableError: The queue is another process's, or the disk is full.
        """
        engine = await self._opened()
        texts = {each.name: each.timetable.text for each in self._schedules.values()}
        kept = await ledger.begin(engine.queue, texts)
        self._states = {name: _State(row) for name, row in kept.items()}

    async def step(self) -> float:
        """Submit what is due now, and return in how many seconds to look again."""
        now = self._clock.now()
        await asyncio.gather(*(self._look(each, now) for each in self._schedules.values()))
        waits = [state.next_at - self._clock.now() for state in self._states.values() if state.next_at]
        return max(_SHORTEST_S, min([*waits, _LOOK_S]))

    def standing(self) -> list[dict[str, Any]]:
        """Return how each schedule stands, by name, as JSON."""
        return [self._told(self._schedules[name]) for name in sorted(self._schedules)]

    async def _begun(self) -> bool:
        try:
            await self.begin()
        except errors.NodeError as error:
            _log.warning("schedules_not_read", error=str(error))
            return False
        return True

    async def _look(self, schedule: Schedule, now: float) -> None:
        state = self._states[schedule.name]
        table, row = schedule.timetable, state.row
        async with self._turns:
            try:
                if table.is_ahead(row.done_at, now):
                    _log.warning(
                        "clock_set_back", schedule=schedule.name, done_at=clocks.rfc3339(row.done_at)
                    )
                    engine = await self._opened()
                    state.row = await ledger.set_back(engine.queue, schedule.name) or row
                due = table.latest(state.row.done_at, now)
                pause_s = state.not_before - self._clock.monotonic()
                if due is not None and pause_s > 0:
                    state.next_at = now + pause_s
                    return
                if due is not None:
                    await self._submit(schedule, state, due.due_at, due.missed)
            except (errors.NodeError, PluginError) as error:
                self._failed(schedule, state, error)
                return
        state.next_at = self._following(table, state, now)

    async def _submit(self, schedule: Schedule, state: _State, due_at: float, missed: int) -> None:
        request = await self._check(
            schedule.plugin,
            schedule.arguments,
            action=schedule.action,
            instance=schedule.instance,
            timeout_s=schedule.timeout_s,
        )
        engine = await self._opened()
        done = await ledger.turn(
            engine.queue, schedule.name, request, due_at=due_at, missed=missed, overlaps=schedule.overlaps
        )
        state.row = await ledger.find(engine.means.store, schedule.name) or state.row
        state.error = None
        told = {"schedule": schedule.name, "due_at": clocks.rfc3339(due_at), "missed": missed}
        _log.info(f"schedule_{done.what}", job_id=done.job, **told)

    def _failed(self, schedule: Schedule, state: _State, error: errors.NodeError | PluginError) -> None:
        # The due time is still to be dealt with: with the next one it is a single job.
        if state.error is None or state.error.get("code") != error.code:
            _log.warning("schedule_failed", schedule=schedule.name, error=str(error))
        state.error = error.to_dict()
        state.not_before = self._clock.monotonic() + _AGAIN_S
        state.next_at = self._clock.now() + _AGAIN_S

    def _following(self, table: Timetable, state: _State, now: float) -> float | None:
        if table.every_s is not None:
            return table.following(state.row.done_at)
        return table.following(max(state.row.done_at, now))

    def _told(self, schedule: Schedule) -> dict[str, Any]:
        state = self._states.get(schedule.name)
        row = None if state is None else state.row
        has_run = row is not None and row.submitted + row.skipped > 0
        return {
            "schedule": schedule.name,
            "instance": schedule.instance,
            "timetable": schedule.timetable.text,
            "next_at": _time(None if state is None else state.next_at),
            "last_at": _time(row.done_at if row is not None and has_run else None),
            "last_job": None if row is None else row.job,
            "submitted": 0 if row is None else row.submitted,
            "skipped": 0 if row is None else row.skipped,
            "missed": 0 if row is None else row.missed,
            "error": None if state is None or state.error is None else dict(state.error),
        }


def _time(at: float | None) -> str | None:
    return None if at is None else clocks.rfc3339(at)
