"""The daemon that the demo plays on, and the accident that can happen to it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from toft import blocking
from toft.client import place as places
from toft.daemon import control
from toft.demo.run import Tell
from toft.host import process_tree
from toft.kernel import errors, settings

_STOP_S = 60.0
_GONE_S = 2.0
_MIDDLE_S = 120.0
_LOOK_S = 0.02
# By then something has been finished, and something else runs.
_STEP = "read[1]"


class Stage:
    """A daemon for the length of the demo: the one that runs, or one of its own.

    Args:
        chosen: The settings.
        environ: The environment of a daemon that is started.
        tell: Told what happens to it.
    """

    def __init__(self, chosen: settings.Settings, environ: Mapping[str, str], tell: Tell) -> None:
        self._settings = chosen
        self._environ = environ
        self._tell = tell
        self._place = places.Place(chosen.home)
        self._opened: list[Any] = []
        self._finished: dict[str, Any] = {}

    @contextlib.contextmanager
    def open(self, *, own: bool) -> Iterator[Any]:
        """Have a daemon, and a node that is connected to it, for the length of a block.

        Args:
            own: Refuse a daemon that somebody else started.

        Raises:
            ConflictError: There is one, and it is not to be harmed.
        """
        present = self._place.find()
        if present is not None and own:
            raise errors.ConflictError(
                f"the daemon of {self._settings.home}, process {present.pid}, is not the demo's to kill",
                code="demo.not_its_own",
                hint="toft down ends it; or use another home: toft --home DIR demo --pull-the-plug",
            )
        if present is None:
            control.start(self._settings, self._environ)
        try:
            yield self._connect()
        finally:
            while self._opened:
                self._opened.pop().close()
            if present is None:
                control.stop(self._place, timeout_s=_STOP_S, is_urgent=True)

    def _connect(self) -> Any:
        node = blocking.connect(settings=self._settings)
        self._opened.append(node)
        return node

    # The accident

    def pull_the_plug(self, node: Any, sequence: str) -> Any:
        """Kill a worker and the daemon in the middle of a graph, start another one, and check what is left.

        Returns:
            A node that is connected to the new daemon.
        """
        self._wait_for(node, sequence)
        self._finished = {
            step: job for step, job in _members(node, sequence).items() if job.record.state == "completed"
        }
        daemon = self._place.find()
        if daemon is None:
            raise errors.NodeError("the daemon is gone before it was killed", code="demo.failed")
        worker = node.instance(_members(node, sequence)[_STEP].record.instance).stats()["pid"]
        below = [(each.pid, each.started_ticks) for each in process_tree.descendants(daemon.pid)]
        os.kill(worker, signal.SIGKILL)
        os.kill(daemon.pid, signal.SIGKILL)
        self._tell("plug", {"step": _STEP, "killed": [f"worker {worker}", f"daemon {daemon.pid}"]})
        _wait_until(
            lambda: not any(process_tree.alive(*each) for each in below), _GONE_S, "processes are left"
        )
        with contextlib.suppress(errors.NodeError):
            self._opened.pop().close()
        self._tell("back", {"pid": control.start(self._settings, self._environ).pid})
        return self._connect()

    def check(self, node: Any, sequence: str) -> dict[str, Any]:
        """Return what the accident cost, or raise when something was lost or done twice.

        Raises:
            NodeError: The promise was broken.
        """
        members = _members(node, sequence)
        lost = sorted(step for step, job in members.items() if job.record.state != "completed")
        repeated = sorted(
            step
            for step, before in self._finished.items()
            if members[step].record.attempt != before.record.attempt
            or members[step].record.finished_at != before.record.finished_at
        )
        if lost or repeated:
            raise errors.NodeError(
                f"after the accident: lost {lost}, done twice {repeated}",
                code="demo.failed",
                details={"lost": lost, "repeated": repeated},
                hint=f"toft why {sequence}",
            )
        again = sorted(step for step, job in members.items() if job.record.attempt > 1)
        facts = {"steps": len(members), "finished": sorted(self._finished), "again": again}
        self._tell("survived", facts)
        return {**facts, "lost": lost, "repeated": repeated}

    def _wait_for(self, node: Any, sequence: str) -> None:
        def is_running() -> bool:
            job = _members(node, sequence).get(_STEP)
            return job is not None and job.record.state == "running"

        _wait_until(is_running, _MIDDLE_S, f"{_STEP} did not begin")


def _members(node: Any, sequence: str) -> dict[str, Any]:
    return {job.record.step: job for job in node.jobs.list(sequence=sequence, limit=1000)}


def _wait_until(reached: Callable[[], bool], within_s: float, otherwise: str) -> None:
    until = time.monotonic() + within_s
    while not reached():
        if time.monotonic() > until:
            raise errors.NodeError(f"{otherwise} within {within_s:g} s", code="demo.failed")
        time.sleep(_LOOK_S)
