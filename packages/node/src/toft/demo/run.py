"""Performs the demo: install, load, read the scan, answer; tells each step, returns what it found."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from packaging.version import Version

from toft import blocking
from toft.demo import cast, refusal
from toft.kernel import errors
from toft.plugins.environments import environment_errors
from toft.plugins.manifests.manifest import Manifest

_AT_ONCE = 2
Tell = Callable[[str, Mapping[str, Any]], None]
Refuse = Callable[[tuple[cast.Part, ...], str], Coroutine[Any, Any, str]]


@dataclass
class Player:
    """A plugin that was installed, and what it took."""

    wanted: cast.Part
    part: cast.Part
    manifest: Manifest
    is_new: bool
    install_s: float
    instance: blocking.Instance = field(init=False)
    load_s: float = 0.0
    call_s: list[float] = field(default_factory=list)

    def call(self, action: str | None = None, /, **arguments: Any) -> Any:
        """Call it and take the time."""
        start = time.perf_counter()
        try:
            return self.instance.call(action, **arguments)
        finally:
            self.call_s.append(time.perf_counter() - start)


class Demo:
    """One performance.

    Args:
        node: A blocking node.
        tell: Told each step: a word, and the facts.
        scan: The PDF to read.
        refuse: Says why two plugins cannot share an environment, or nothing.
    """

    def __init__(
        self, node: blocking.Node, tell: Tell, *, scan: Path = cast.SCAN, refuse: Refuse = refusal.refusal
    ) -> None:
        self._node = node
        self._tell = tell
        self._scan = scan
        self._refuse = refuse
        self._substitutes: list[dict[str, str]] = []

    def perform(self) -> dict[str, Any]:
        """Install, load, work, unload."""
        start = time.perf_counter()
        self._tell("begin", {"title": "Four plugins, each in an environment of its own"})
        # Side by side: one downloads while another one compiles its bytecode.
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            players = list(pool.map(self._install, cast.CAST))
        refused = self._refused(players)
        with ExitStack() as stage:
            for player in players:
                stage.enter_context(self._loaded(player))
            self._tell("begin", {"title": "The scan, read without a network"})
            work_start = time.perf_counter()
            found = self._work(*players)
            work_s = time.perf_counter() - work_start
            steps = [self._step(player) for player in players]
        self._tell("begin", {"title": "What ran where"})
        self._tell("steps", {"steps": steps})
        return {
            **found,
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

    @contextmanager
    def _loaded(self, player: Player) -> Iterator[None]:
        start = time.perf_counter()
        player.instance = self._node.load(player.part.plugin, network=False)
        player.load_s = time.perf_counter() - start
        try:
            yield
        finally:
            player.instance.unload()

    def _work(self, pages: Player, ocr: Player, entities: Player, search: Player) -> dict[str, Any]:
        document = pages.call(pdf=self._scan)
        self._tell("pages", {"count": len(document["pages"]), "text": document["text"]})
        lines = []
        for number, image in enumerate(document["pages"], 1):
            lines.append([line["text"] for line in ocr.call(image=image)])
            self._tell("lines", {"page": number, "lines": lines[-1]})
        found = [entities.call(lines=page) for page in lines]
        named = [
            {"page": number, **entity} for number, page in enumerate(found, 1) for entity in page["entities"]
        ]
        self._tell("entities", {"entities": named})
        self._tell("begin", {"title": "Asked about it"})
        sentences = {
            sentence: number for number, page in enumerate(found, 1) for sentence in page["sentences"]
        }
        search.call("remember", passages=list(sentences))
        answers = []
        for question in cast.QUESTIONS:
            answer = search.call("find", question=question)
            answers.append({"question": question, **answer, "page": sentences[answer["passage"]]})
            self._tell("answer", answers[-1])
        return {
            "pages": len(document["pages"]),
            "text_layer": document["text"],
            "lines": lines,
            "sentences": len(sentences),
            "entities": named,
            "answers": answers,
        }

    def _step(self, player: Player) -> dict[str, Any]:
        stats = player.instance.stats()
        manifest = player.manifest
        return {
            "plugin": player.part.plugin,
            "does": player.part.does,
            "python": manifest.runtime.python_version,
            "environment": manifest.runtime.environment,
            "pid": stats["pid"],
            "memory_bytes": stats["memory_bytes"],
            "installed": player.is_new,
            "install_s": round(player.install_s, 3),
            "load_s": round(player.load_s, 3),
            "calls": len(player.call_s),
            "call_s": round(sum(player.call_s), 3),
        }
