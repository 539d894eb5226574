"""Workers of one instance that are forked from a process holding the plugin's imports: ready in milliseconds.

Opt-in, and only for plugins that say they may be forked after their import.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from toft.plugins.supervision import crew as crews
from toft.plugins.supervision import launch, worker
from toft.plugins.supervision.zygote import Zygote
from toft.plugins.wire.frames import LogLine


class Nursery:
    """Keeps one zygote and forks from it; starts another when it died or what it was started with changed.

    Args:
        crew: Starts workers.
        output: Takes their lines.
        stall_s: Seconds without a sign of progress that end a load.
    """

    def __init__(self, crew: crews.Crew, output: worker.Output, *, stall_s: float) -> None:
        self._crew = crew
        self._output = output
        self._stall_s = stall_s
        self._mother: worker.Worker | None = None
        self._zygote: Zygote | None = None
        self._order: launch.Launch | None = None
        self._changing = asyncio.Lock()

    async def start(
        self, order: launch.Launch, *, numbers: Iterator[int], on_line: Callable[[LogLine], None]
    ) -> worker.Worker:
        """Start a worker; its plugin is imported when this returns."""
        parent = await self._parent(order)
        return await self._crew.start(
            order, self._output, stall_s=self._stall_s, numbers=numbers, on_line=on_line, parent=parent
        )

    async def _parent(self, order: launch.Launch) -> Zygote:
        async with self._changing:
            mother, zygote = self._mother, self._zygote
            if mother is not None and zygote is not None and mother.is_alive and self._order == order:
                return zygote
            await self._end()
            mother = await self._crew.start(order, self._output, stall_s=self._stall_s, is_zygote=True)
            self._mother, self._order = mother, order
            self._zygote = Zygote(mother.root_process, mother.connection)
            return self._zygote

    async def close(self) -> None:
        """End the zygote, and what was forked from it."""
        async with self._changing:
            await self._end()

    async def _end(self) -> None:
        mother, self._mother, self._zygote = self._mother, None, None
        if mother is not None:
            await mother.end()
