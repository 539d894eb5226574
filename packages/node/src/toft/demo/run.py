"""Performs the demo: install, submit one graph to the daemon, tell what it does, return what it found."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from packaging.version import Version

from toft.demo import cast, graph, refusal
from toft.kernel import errors
from toft.plugins.environments import environment_errors
from toft.plugins.manifests.manifest import Manifest

_AT_ONCE = 2
_LIMIT_S = 240.0
Tell = Callable[[str, Mapping[str, Any]], None]
Refuse = Callable[[tuple[cast.Part, ...], str], Coroutine[Any, Any, str]]
Accident = Callable[[Any, str], Any]
Check = Callable[[Any, str], dict[str, Any]]


@dataclass
class Player:
    """A plugin that was installed, and what it took."""

    wanted: cast.Part
    part: cast.Part
    manifest: Manifest
    is_new: bool
    install_s: float


class Demo:
    """One performance.

    Args:
        node: A blocking node, of a daemon.
        tell: Told each step: a word, and the facts.
        scan: The PDF to read.
        refuse: Says why two plugins cannot share an environment, or nothing.
        accident: Given the node and the graph once that is on its way; returns the node to go on with.
        check: Given the node and the graph at its end; returns what is to be told of the accident.
    """

    def __init__(
        self,
        node: Any,
        tell: Tell,
        *,
        scan: Path = cast.SCAN,
        refuse: Refuse = refusal.refusal,
        accident: Accident | None = None,
        check: Check | None = None,
    ) -> None:
        self._node = node
        self._tell = tell
        self._scan = scan
        self._refuse = refuse
        self._accident = accident
        self._check = check
        self._substitutes: list[dict[str, str]] = []

    def perform(self) -> dict[str, Any]:
        """Install, submit, wait, look at what became of it."""
        start = time.perf_counter()
        self._tell("begin", {"title": "Four plugins, each in an environment of its own"})
        # Side by side: one downloads while another one compiles its bytecode.
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            players = list(pool.map(self._install, cast.CAST))
        refused = self._refused(players)
        self._tell("begin", {"title": "The scan, read without a network by a graph of jobs"})
        work_start = time.perf_counter()
        for player in players:
            self._node.set_options(player.part.plugin, {"network": False})
        submitted = self._node.jobs.submit_graph(graph.document([p.part.plugin for p in players], self._scan))
        self._tell("submitted", {"sequence": submitted.id})
        if self._accident is not None:
            self._node = self._accident(self._node, submitted.id)
        ended = self._node.jobs.wait_sequence(submitted.id, _LIMIT_S)
        outcome = graph.Outcome(self._node.jobs, ended)
        survived = None if self._check is None else self._check(self._node, submitted.id)
        found = outcome.found()
        work_s = time.perf_counter() - work_start
        for event, facts in outcome.told(found):
            self._tell(event, facts)
        steps = [self._step(player, outcome) for player in players]
        self._tell("begin", {"title": "What ran where"})
        self._tell("steps", {"steps": steps})
        return {
            **found,
            "sequence": submitted.id,
            "survived": survived,
            "steps": steps,
            "substitutes": self._substitutes,
            "refusal": refused,
            "network": False,
            "work_s": round(work_s, 3),
            "duration_s": round(time.perf_counter() - start, 3),
        }

    def _install(self, part: cast.Part) -> Player:
        start = time.perf_counter()
        versions = {plugin.name: plugin.version for plugin in self._node.installed.list()}
        is_new = versions.get(part.plugin) != part.version()
        if is_new:
            self._tell("installing", {"plugin": part.plugin, "requirements": part.requirements()})
            try:
                self._node.installed.add(str(part.project), force=True)
            except errors.NodeError as error:
                if part.substitute is None or error.code != environment_errors.NoInterpreterError.code:
                    raise
                facts = {"plugin": part.plugin, "because": error.message, "takes": part.substitute.plugin}
                self._substitutes.append(facts)
                self._tell("substitute", facts)
                return replace(self._install(part.substitute), wanted=part)
        known = self._node.installed.get(part.plugin)
        player = Player(part, part, known, is_new, time.perf_counter() - start)
        self._tell("installed", {"player": player})
        return player

    def _refused(self, players: list[Player]) -> dict[str, Any] | None:
        """Ask the resolver whether the two known to quarrel could share an environment.

        Asked with the older Python of the two, and about what was wanted even where a substitute came.
        """
        pair = tuple(player for player in players if player.wanted in cast.QUARREL)
        oldest = min(pair, key=lambda player: Version(player.manifest.runtime.python_version)).manifest
        reason = asyncio.run(
            self._refuse(tuple(player.wanted for player in pair), oldest.install.python_path)
        )
        if not reason:
            return None
        names = [player.wanted.plugin for player in pair]
        facts = {"plugins": names, "python": oldest.runtime.python_version, "reason": reason}
        self._tell("refused", facts)
        return facts

    def _step(self, player: Player, outcome: graph.Outcome) -> dict[str, Any]:
        manifest = player.manifest
        return {
            "plugin": player.part.plugin,
            "does": player.part.does,
            "python": manifest.runtime.python_version,
            "environment": manifest.runtime.environment,
            "installed": player.is_new,
            "install_s": round(player.install_s, 3),
            **self._worker(player.part.plugin),
            **outcome.work_of(player.part.plugin),
        }

    def _worker(self, plugin: str) -> dict[str, Any]:
        """Return what a plugin's worker is; nothing when it was evicted since, to make room for another."""
        try:
            stats = self._node.instance(plugin).stats()
        except errors.NotFoundError:
            return {"pid": None, "memory_bytes": None}
        return {"pid": stats["pid"], "memory_bytes": stats["peak_memory_bytes"]}
