"""Whether a node can keep its promises: asked of the disk and of the threads themselves, never remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toft.dispatch import engine as engines
from toft.host import disks
from toft.kernel import errors
from toft.kernel.quantities import size
from toft.store import database

LEAST_BYTES = 16 << 20
"""With less the next results and the journal of the database do not fit."""

_LEAST_FILES = 64
_FRESH_S = 1.0
_PATIENCE_S = 2.0


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at.

    Attributes:
        check: Its name: `disk`, `writer`, `reader`, `dispatcher`.
        ok: Whether it is as it must be.
        evidence: What was seen.
        hint: What to do about it.
    """

    check: str
    ok: bool
    evidence: str
    hint: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-like values."""
        return asdict(self)


class Health:
    """The checks of a node.

    However many ask, it is looked at once a second, so that asking costs nobody anything.

    Args:
        home: Whose file system must have room.
        open_engine: Gives the queue and what runs its jobs.
        read_space: Asks the file system; blocks.
    """

    def __init__(
        self,
        home: Path,
        open_engine: Callable[[], Awaitable[engines.Engine]],
        read_space: Callable[[Path], disks.Space] = disks.read_space,
    ) -> None:
        self._home = home
        self._open_engine = open_engine
        self._read_space = read_space
        self._looking: asyncio.Task[Sequence[Check]] | None = None
        self._looked_at = float("-inf")

    async def checks(self) -> Sequence[Check]:
        """Return what was seen, at most a second ago."""
        now = asyncio.get_running_loop().time()
        looking = self._looking
        if looking is None or (looking.done() and now - self._looked_at > _FRESH_S):
            self._looked_at = now
            looking = self._looking = asyncio.ensure_future(self._look())
        return await asyncio.shield(looking)

    async def _look(self) -> Sequence[Check]:
        engine = await self._open_engine()
        store = engine.means.store
        asked = await asyncio.gather(
            self._disk(),
            _thread(store, "writer", store.probe),
            _thread(store, "reader", lambda: store.read(lambda connection: None)),
        )
        return (*asked, _dispatcher(engine))

    async def _disk(self) -> Check:
        try:
            space = await asyncio.to_thread(self._read_space, self._home)
        except OSError as error:
            return Check(
                "disk", False, f"cannot be asked: {error.strerror}", "mount it, or look at its cables"
            )
        told = f"{size(space.free_bytes)} of {size(space.total_bytes)} free, {size(LEAST_BYTES)} needed"
        hint = (
            "toft env gc removes environments that nothing uses; setting jobs_keep_count keeps fewer results"
        )
        if space.free_bytes < LEAST_BYTES:
            return Check("disk", False, told, hint)
        if space.free_files is not None and space.free_files < _LEAST_FILES:
            return Check("disk", False, f"room for {space.free_files} more files", hint)
        return Check("disk", True, told)


async def _thread(store: database.Database, name: str, work: Callable[[], Awaitable[object]]) -> Check:
    """Let a thread of the database do something, and see that it does."""
    hint = "toft down, then toft up; toft logs shows why it ended"
    if not store.threads[name]:
        return Check(name, False, "its thread has ended", hint)
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await work()
    except TimeoutError:
        return Check(name, False, f"did nothing for {_PATIENCE_S:g} s", "toft logs shows what holds it up")
    except errors.NodeError as error:
        return Check(name, False, str(error.code), error.hint or hint)
    return Check(name, True, f"answered in {(loop.time() - began) * 1000:.1f} ms")


def _dispatcher(engine: engines.Engine) -> Check:
    dispatching = engine.dispatcher
    if dispatching is None:
        return Check("dispatcher", True, "jobs are only stored here")
    now = dispatching.status()
    if now["paused_s"]:
        told = f"gives out nothing for {now['paused_s']:g} s, because the store refused"
        return Check("dispatcher", False, told, "toft logs shows what the store said")
    given = f"{now['busy']} of {now['lanes']} lanes given out"
    return Check("dispatcher", True, given if now["is_open"] else f"{given}, and no more will be")
