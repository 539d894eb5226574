"""Jobs that belong together, for programs that do not use asyncio."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toft.plugins.loop_thread import LoopThread

if TYPE_CHECKING:
    from toft.jobs.sequences import JobSequence


class SequenceVerbs:
    """Sequences and graphs; see `toft.dispatch.sequences.SequenceVerbs` for what each method promises."""

    def __init__(self, thread: LoopThread, jobs: Any) -> None:
        self._thread = thread
        self._jobs = jobs

    def submit_sequence(
        self, steps: Sequence[Any], *, name: str | None = None, fail_fast: bool = True, priority: int = 0
    ) -> JobSequence:
        """Store jobs that run one after another: all of them, or none."""
        storing = self._jobs.submit_sequence(steps, name=name, fail_fast=fail_fast, priority=priority)
        return self._record(storing)

    def submit_uniform(
        self,
        plugin: str,
        arguments: Iterable[Mapping[str, Any]] | Mapping[str, Sequence[Any]],
        *,
        name: str | None = None,
        fail_fast: bool = True,
        priority: int = 0,
    ) -> JobSequence:
        """Store a sequence that runs one plugin over many sets of arguments."""
        storing = self._jobs.submit_uniform(
            plugin, arguments, name=name, fail_fast=fail_fast, priority=priority
        )
        return self._record(storing)

    def submit_graph(
        self, steps: Any, *, name: str | None = None, mode: str | None = None, priority: int | None = None
    ) -> JobSequence:
        """Store jobs that run as soon as what each refers to is there: all of them, or none."""
        return self._record(self._jobs.submit_graph(steps, name=name, mode=mode, priority=priority))

    def sequence(self, id: str) -> JobSequence:
        """Return a sequence or graph as it is now."""
        return self._record(self._jobs.sequence(id))

    def sequences(
        self, *, state: str | None = None, limit: int = 100, before: str | None = None
    ) -> Sequence[JobSequence]:
        """Return sequences and graphs, the newest first, at most 1000."""
        found: Sequence[JobSequence] = self._thread.run(
            self._jobs.sequences(state=state, limit=limit, before=before)
        )
        return found

    def cancel_sequence(self, id: str) -> JobSequence:
        """End what has not ended: what waits at once, what runs as `cancel` ends a job."""
        return self._record(self._jobs.cancel_sequence(id))

    def retry_sequence(self, id: str) -> JobSequence:
        """Run again what failed or was interrupted, and what was skipped because of it."""
        return self._record(self._jobs.retry_sequence(id))

    def wait_sequence(self, id: str, timeout_s: float | None = None) -> JobSequence:
        """Return a sequence once nothing of it will happen unasked any more; Ctrl-C ends the waiting only."""
        return self._record(self._jobs.wait_sequence(id, timeout_s))

    def _record(self, asking: Any) -> JobSequence:
        found: JobSequence = self._thread.run(asking)
        return found
