"""Tells the story of a job or a sequence from few rows, whole or from its end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from toft.dispatch import engine as engines
from toft.jobs import digests, story
from toft.jobs.records import Attempt, Job
from toft.jobs.sequences import JobSequence

_MOST_EVENTS = 10_000
_AROUND = 5
"""Events that are looked at for each entry that is wanted: what went before it says how long it took."""


async def of_job(
    engine: engines.Engine, job: Job, attempts: Sequence[Attempt], newest: int | None = None
) -> Sequence[story.Entry]:
    """Return the story of a job, the oldest entry first.

    Args:
        engine: Where it is.
        job: Which.
        attempts: Its attempts.
        newest: How many entries from the end; all there are for None.
    """
    most = _MOST_EVENTS if newest is None else newest * _AROUND
    events = await digests.of_jobs(engine.means.store, [job.id], most)
    told = story.tell(
        job.to_dict(), [each.to_dict() for each in events], [each.to_dict() for each in attempts]
    )
    return told if newest is None else told[-newest:]


async def of_sequence(
    engine: engines.Engine, sequence: JobSequence, members: Sequence[Job]
) -> Sequence[story.Entry]:
    """Return the story of a sequence and these of its jobs, the oldest entry first."""
    return await _told(engine, sequence, members, _MOST_EVENTS)


async def end_of_sequence(
    engine: engines.Engine, sequence: JobSequence, newest: int
) -> tuple[Sequence[story.Entry], Mapping[str, str]]:
    """Return the last entries of the story of a sequence, and the steps of the jobs in it by job."""
    tail = await digests.tail(engine.means.store, sequence.id, newest)
    members = list((await digests.jobs(engine.means.store, tail.jobs)).values())
    told = await _told(engine, sequence, members, newest * _AROUND, after=tail.after)
    return told[-newest:], {each.id: each.step for each in members if each.step}


async def _told(
    engine: engines.Engine, sequence: JobSequence, members: Sequence[Job], most: int, after: int = 0
) -> Sequence[story.Entry]:
    store = engine.means.store
    own, theirs = await asyncio.gather(
        digests.of_sequence(store, sequence.id, most),
        digests.of_jobs(store, [each.id for each in members], most),
    )
    events: list[dict[str, Any]] = [
        each.to_dict() for each in sorted([*own, *theirs], key=lambda event: event.cursor)
    ]
    return story.tell_sequence(sequence.to_dict(), [each.to_dict() for each in members], events, after=after)
