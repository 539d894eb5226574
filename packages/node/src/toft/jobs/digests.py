"""What was written down about jobs, in few rows: what repeats is added up by the database.

A job may report ten thousand times. Whoever tells its story needs how often and the last of it, and reading
all of that would hold up everybody else on the event loop.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from toft.jobs import rows
from toft.jobs.records import Event, Job
from toft.jobs.sequences import SKIPPED
from toft.jobs.transaction import QUERIES
from toft.store import database

_QUERIES = database.read_queries("toft.jobs", "digests.sql")
_LOOKED_AT = 2000


@dataclass(frozen=True, slots=True)
class Tail:
    """What happened last in a sequence.

    Attributes:
        jobs: Those that something happened to, the last one first.
        after: Of these jobs everything behind this cursor is the newest there is in the whole sequence.
    """

    jobs: Sequence[str]
    after: int


@dataclass(frozen=True, slots=True)
class Part:
    """The jobs of one step that are in one state.

    Attributes:
        step: Its name.
        is_part: They are what the step was spread to, not the step itself.
        state: As jobs have them; `skipped` for those that never ran because of another one.
        jobs: How many.
        newest: Grows with each job; of a step that ran again only the newest one counts.
        id: Of the newest.
    """

    step: str
    is_part: bool
    state: str
    jobs: int
    newest: int
    id: str


async def of_jobs(store: database.Store, jobs: Sequence[str], most: int) -> Sequence[Event]:
    """Return the events of jobs, the oldest first; of very many the last ones.

    The reports of an attempt are one event, the last, which says in `reports` how many there were; its
    measurements are one event with the most of each.
    """
    values = {"jobs": rows.encode(list(jobs)), "most": most}
    return await _read(store, "digest", values)


async def of_sequence(store: database.Store, sequence: str, most: int) -> Sequence[Event]:
    """Return the turns of a sequence itself, the oldest first; of very many the last ones."""
    return await _read(store, "own_turns", {"sequence": sequence, "most": most})


async def tail(store: database.Store, sequence: str, most: int) -> Tail:
    """Return the jobs of a sequence that something happened to last.

    Args:
        store: The database.
        sequence: Which.
        most: How many jobs.
    """
    values = {"sequence": sequence, "most": _LOOKED_AT}
    found = await store.read(lambda connection: connection.execute(_QUERIES["busy_last"], values).fetchall())
    after = found[most][1] if len(found) > most else min((row[2] for row in found), default=1) - 1
    return Tail([row[0] for row in found[:most]], after)


async def parts(store: database.Store, sequence: str) -> Sequence[Part]:
    """Return how the jobs of a sequence stand, by step; however many there are, few of these are."""
    values = {"sequence": sequence, "skipped": SKIPPED}
    found = await store.read(lambda connection: connection.execute(_QUERIES["parts"], values).fetchall())
    return [Part(row[0], bool(row[1]), *row[2:]) for row in found]


async def jobs(store: database.Store, ids: Sequence[str]) -> dict[str, Job]:
    """Return jobs by their names, in one look; what is not there is not in it."""
    wanted = rows.encode(list(ids))
    found = await store.read(
        lambda connection: connection.execute(QUERIES["find_jobs"], (wanted,)).fetchall()
    )
    return {row[1]: rows.job(row) for row in found}


async def _read(store: database.Store, query: str, values: dict[str, Any]) -> Sequence[Event]:
    found = await store.read(lambda connection: connection.execute(_QUERIES[query], values).fetchall())
    return [_event(row) for row in reversed(found)]


def _event(row: Sequence[Any]) -> Event:
    found = rows.event(row)
    return dataclasses.replace(found, data={**found.data, "reports": row[7]}) if row[7] else found
