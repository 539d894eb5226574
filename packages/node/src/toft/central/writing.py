"""Memory follows the disk: what is known here changes exactly when it is written, whoever is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from toft.kernel import threads
from toft.store import database

T = TypeVar("T")


async def commit(
    store: database.Store, work: Callable[[database.Connection], T], then: Callable[[T], None]
) -> T:
    """Run one transaction, and change what is known in memory once it is on disk.

    Args:
        store: The database.
        work: The transaction; it changes nothing but the database.
        then: Changes what is known in memory, in the order of the transactions; it cannot fail.

    Cancellation: Raised when both have happened or neither; a lock around this is held until then.
    """

    async def both() -> T:
        done = await store.write(work)
        then(done)
        return done

    return await threads.ended(asyncio.ensure_future(both()))
