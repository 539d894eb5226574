"""What every face offers about jobs that belong together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from toft.dispatch.graphs import Graphs
from toft.jobs import graphs
from toft.jobs.sequences import JobSequence


class SequenceVerbs:
    """Sequences and graphs of the jobs of a node."""

    async def _graphs(self, *, is_looking: bool = False) -> Graphs:
        raise NotImplementedError

    async def submit_sequence(
        self, steps: Sequence[Any], *, name: str | None = None, fail_fast: bool = True, priority: int = 0
    ) -> JobSequence:
        """Store jobs that run one after another: all of them, or none.

        Args:
            steps: Each as `toft.jobs.graphs.Step`, or an object with its fields.
            name: What people call it.
            fail_fast: Stop at the first failure; else go on with the next step.
            priority: Of the steps that say none.

        Raises:
            GraphError: A step cannot be, or does not fit its plugin; it is named. Nothing was stored.
            UnavailableError: The queue is full, or another process's.

        Durability: Committed and fsynced before returning.
        """
        mode = graphs.FAIL_FAST if fail_fast else graphs.BEST_EFFORT
        verbs = await self._graphs()
        return await verbs.submit(list(steps), name=name, mode=mode, priority=priority)

    async def submit_uniform(
        self,
        plugin: str,
        arguments: Iterable[Mapping[str, Any]] | Mapping[str, Sequence[Any]],
        *,
        name: str | None = None,
        fail_fast: bool = True,
        priority: int = 0,
    ) -> JobSequence:
        """Store a sequence that runs one plugin over many sets of arguments.

        Args:
            plugin: The plugin.
            arguments: One mapping for each step; or one mapping of lists of equal length.
            name: As for `submit_sequence`.
            fail_fast: As for `submit_sequence`.
            priority: As for `submit_sequence`.
        """
        steps = graphs.uniform(plugin, arguments)
        return await self.submit_sequence(steps, name=name, fail_fast=fail_fast, priority=priority)

    async def submit_graph(
        self, steps: Any, *, name: str | None = None, mode: str | None = None, priority: int | None = None
    ) -> JobSequence:
        """Store jobs that run as soon as what each refers to is there: all of them, or none.

        Args:
            steps: As a graph stands in a file: an object with `steps`, or a list, which runs in its order.
            name: What people call it; wins over the name in `steps`, as do the others.
            mode: `fail_fast` or `best_effort`.
            priority: Of the steps that say none.

        Raises:
            GraphError: It cannot be, or a step does not fit its plugin, and is named; nothing was stored.
            UnavailableError: The queue is full, or another process's.

        Durability: Committed and fsynced before returning.
        """
        return await (await self._graphs()).submit(steps, name=name, mode=mode, priority=priority)

    async def sequence(self, id: str) -> JobSequence:
        """Return a sequence or graph as it is now.

        Raises:
            NotFoundError: There is none of that id (any more).
        """
        return await (await self._graphs(is_looking=True)).get(id)

    async def sequences(
        self, *, state: str | None = None, limit: int = 100, before: str | None = None
    ) -> Sequence[JobSequence]:
        """Return sequences and graphs, the newest first, at most 1000."""
        return await (await self._graphs(is_looking=True)).recent(state=state, limit=limit, before=before)

    async def cancel_sequence(self, id: str) -> JobSequence:
        """End what has not ended: what waits at once, what runs as `cancel` ends a job."""
        return await (await self._graphs()).cancel(id)

    async def retry_sequence(self, id: str) -> JobSequence:
        """Run again what failed or was interrupted, and what was skipped because of it."""
        return await (await self._graphs()).retry(id)

    async def wait_sequence(self, id: str, timeout_s: float | None = None) -> JobSequence:
        """Return a sequence once nothing of it will happen unasked any more.

        Raises:
            WaitTimeoutError: Something still will; it goes on.
        """
        return await (await self._graphs()).wait(id, timeout_s)
