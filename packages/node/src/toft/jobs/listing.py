"""Jobs that fit what somebody looks for, the newest first, at the cost of a page whatever fits how rarely.

An index holds what jobs differ in (plugin, instance, state, code of the error) in front of their number, so
that each combination there is lies in one stretch in the right order. The combinations are few and are read
off the index; the stretches of those that fit are merged, and read no further than the page goes.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from toft.jobs import errors, rows
from toft.jobs.records import Job, State
from toft.jobs.transaction import QUERIES
from toft.store import database

MOST = 1000
_FIRST = {"plugin": "", "instance": "", "state": "", "error_code": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What jobs must be like; what is None or empty does not matter.

    Attributes:
        states: One of these.
        plugin: Of this plugin.
        plugins: Of one of these; none at all when it is empty.
        instance: Of this instance.
        sequence: Of this sequence.
        since: Submitted then or later, in seconds since 1970.
        until: Submitted before.
        error: Part of the code of their error.
        before_seq: Older than this one.
        limit: How many.
    """

    states: frozenset[State] = frozenset()
    plugin: str | None = None
    plugins: frozenset[str] | None = None
    instance: str | None = None
    sequence: str | None = None
    since: float | None = None
    until: float | None = None
    error: str | None = None
    before_seq: int | None = None
    limit: int = 100

    @property
    def is_anything(self) -> bool:
        """Say whether nothing but the time matters."""
        return not (self.states or self.plugin or self.instance or self.sequence or self.error) and (
            self.plugins is None
        )

    def fits(self, plugin: str, instance: str, state: str, error_code: str) -> bool:
        """Say whether jobs that have these in common are among what is looked for."""
        return (
            (not self.states or state in self.states)
            and (self.plugin is None or plugin == self.plugin)
            and (self.plugins is None or plugin in self.plugins)
            and (self.instance is None or instance == self.instance)
            and (not self.error or self.error in error_code)
        )

    def in_time(self, submitted_at: float) -> bool:
        """Say whether a time of submission fits."""
        return (self.since is None or submitted_at >= self.since) and (
            self.until is None or submitted_at < self.until
        )


def wanted(*, state: str | Iterable[str] | None = None, **fields: Any) -> Wanted:
    """Return what is looked for.

    Args:
        state: One state, or several.
        fields: The other fields of `Wanted`.

    Raises:
        UsageError: There is no such state.
    """
    names = [] if state is None else [state] if isinstance(state, str) else list(state)
    unknown = [str(name)[:80] for name in names if name not in list(State)]
    if unknown:
        raise errors.bad_request("state", f"is one of {', '.join(State)}, not {', '.join(unknown)}")
    return Wanted(states=frozenset(map(State, names)), **fields)


def read(connection: database.Connection, wanted: Wanted, kind: type[Job] = Job) -> list[Job]:
    """Return the newest jobs that fit; blocks."""
    limit = max(0, min(wanted.limit, MOST))
    if not limit or (wanted.plugins is not None and not wanted.plugins):
        return []
    after, before = _bounds(connection, wanted)
    seqs = _seqs(connection, wanted, {"after": after, "before": before})
    found: list[Job] = []
    while len(found) < limit:
        page = list(itertools.islice(seqs, limit - len(found)))
        if not page:
            break
        answer = connection.execute(QUERIES["find_by_seqs"], (rows.encode(page),))
        jobs = (rows.job(row, kind) for row in answer)
        # The bounds are as good as the clock was; what is told is exact.
        found += [job for job in jobs if wanted.in_time(job.submitted_at)]
    return found


def _seqs(connection: database.Connection, wanted: Wanted, span: Mapping[str, int]) -> Iterator[int]:
    """Yield the numbers of jobs that fit, the highest first."""
    if wanted.is_anything:
        return _numbers(connection, "newest_seqs", span)
    if wanted.sequence is not None:
        members = connection.execute(QUERIES["sequence_facets"], {**span, "sequence": wanted.sequence})
        return (row[0] for row in members if wanted.fits(*row[1:5]))
    running = connection.execute(QUERIES["running_facets"], span)
    streams = [iter([row[0] for row in running if wanted.fits(*row[1:5])])]
    if wanted.states != {State.RUNNING}:
        streams += [
            _numbers(connection, "facet_seqs", {**span, **facet}) for facet in _facets(connection, wanted)
        ]
    return heapq.merge(*streams, reverse=True)


def _numbers(connection: database.Connection, query: str, values: Mapping[str, Any]) -> Iterator[int]:
    return (row[0] for row in connection.execute(QUERIES[query], values))


def _facets(connection: database.Connection, wanted: Wanted) -> Iterator[Mapping[str, str]]:
    """Yield what jobs have in common that fit, from the index, without reading what lies between."""
    facet = _FIRST if wanted.plugin is None else {**_FIRST, "plugin": wanted.plugin}
    while True:
        row = connection.execute(QUERIES["next_facet"], facet).fetchone()
        if row is None or (wanted.plugin is not None and row[0] != wanted.plugin):
            return
        facet = dict(zip(_FIRST, row, strict=True))
        if wanted.fits(*row):
            yield facet


def _bounds(connection: database.Connection, wanted: Wanted) -> tuple[int, int]:
    """Return the numbers between which jobs can fit; both are outside."""
    lowest, highest = connection.execute(QUERIES["seq_bounds"]).fetchone()
    before = highest + 1 if wanted.before_seq is None else min(wanted.before_seq, highest + 1)
    after = lowest - 1
    if wanted.since is not None:
        after = _first_from(connection, wanted.since, lowest, highest) - 1
    if wanted.until is not None:
        before = min(before, _first_from(connection, wanted.until, lowest, highest))
    return after, before


def _first_from(connection: database.Connection, moment: float, lowest: int, highest: int) -> int:
    """Return the number of the first job submitted then or later: numbers grow as time does."""
    low, high = lowest, highest + 1
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(QUERIES["first_from"], (middle,)).fetchone()
        if row is None or row[1] >= moment:
            high = middle
        else:
            low = row[0] + 1
    return low
