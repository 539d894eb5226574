"""Forgetting: ended jobs beyond the limits go, with events and attempts, and then the blobs nobody uses.

Bounded work in each transaction; the oldest go first. What others still wait for stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from toft.jobs import rows, sequences
from toft.jobs.operations import Operation
from toft.jobs.records import Limits, State
from toft.jobs.transaction import QUERIES, Transaction
from toft.kernel import errors, log
from toft.store import blobs as blob_store
from toft.store import database

MOST = 200
SLACK = 0.02
_log = log.get_logger("jobs.retention")


class Forget(Operation):
    """Remove ended jobs: those beyond the count, and those that are too old."""

    __slots__ = ("ended", "limits")
    order = 6

    def __init__(self, limits: Limits, ended: int) -> None:
        super().__init__(None)
        self.limits = limits
        # How many there are: counting them in the table would cost more than removing some.
        self.ended = ended

    def apply(self, tx: Transaction) -> None:
        tx.flush()
        beyond = self.ended - self.limits.keep_count
        taken = tx.all("oldest_ended", min(MOST, beyond)) if beyond > 0 else []
        if not taken:
            # Old on both clocks: one that was set to another year must not empty the history.
            taken = tx.all("too_old", tx.q - self.limits.keep_s, tx.at - self.limits.keep_s, MOST)
        if not taken:
            return
        seqs = rows.encode([row[0] for row in taken])
        numbers = tx.effects.numbers
        tx.put("put_number", "seq", numbers.seq)
        tx.put("put_number", "cursor", numbers.cursor)
        digests = [row[0] for row in tx.all("blobs_of_jobs", seqs)]
        names = [row["id"] for row in sequences.ask(tx.connection, "sequences_of_jobs", (seqs,))]
        tx.put("forget_events", seqs)
        tx.put("forget_jobs", seqs)
        tx.flush()
        self._forget_sequences(tx, names)
        for _, state in taken:
            tx.effects.forgotten[State(state)] = tx.effects.forgotten.get(State(state), 0) + 1
        if digests:
            used = {row[0] for row in tx.all("used_blobs", rows.encode(digests))}
            tx.effects.garbage += [digest for digest in digests if digest not in used]

    def _forget_sequences(self, tx: Transaction, names: list[str]) -> None:
        """Those of which no job is left; one that never had any goes when it is old."""
        wanted = {"ids": rows.encode(names), "before": tx.at - self.limits.keep_s}
        gone = [row["id"] for row in sequences.ask(tx.connection, "forget_sequences", wanted)]
        if gone:
            tx.connection.execute(sequences.QUERIES["forget_sequence_events"], (rows.encode(gone),))


class Keeping:
    """Removes blobs that no row names any more.

    Args:
        blobs: Where they are; what was stored a moment ago it keeps, as a row may be about to name it.
        store: Knows which are used.
    """

    def __init__(self, blobs: blob_store.BlobStore, store: database.Store) -> None:
        self._blobs = blobs
        self._store = store
        self._garbage: set[str] = set()
        self._removing: asyncio.Task[None] | None = None

    def drop(self, digests: Iterable[str]) -> None:
        """Remove blobs unless a row names them again."""
        self._garbage.update(digests)
        if self._garbage and self._removing is None:
            self._removing = asyncio.get_running_loop().create_task(self._remove())

    async def sweep(self) -> None:
        """Remove what no row names; before anything is stored."""
        used = await self._store.read(lambda connection: connection.execute(QUERIES["all_blobs"]).fetchall())
        await self._blobs.retain(frozenset(row[0] for row in used))

    async def close(self) -> None:
        """Let a removal end."""
        while self._removing is not None:
            await asyncio.wait([self._removing])

    async def _remove(self) -> None:
        garbage, self._garbage = self._garbage, set()
        text = rows.encode(sorted(garbage))
        try:
            used = await self._store.read(
                lambda connection: connection.execute(QUERIES["used_blobs"], (text,)).fetchall()
            )
            # What is kept for now is tried again with the next ones, or found when the queue opens next.
            self._garbage.update(await self._blobs.discard(garbage - {row[0] for row in used}))
        except (OSError, errors.NodeError) as error:
            _log.debug("blobs_kept", count=len(garbage), error=str(error))
        finally:
            self._removing = None
