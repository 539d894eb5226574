"""What of the installed code is needed: by the slots, by the document before those, by who installs now.

Everything else is collected after a document has proven itself. A stop in between leaves more than is needed,
never less.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from toft.kernel.errors import UnavailableError
from toft.managed import pins, slots
from toft.managed.trees import Artifact
from toft.store import durable, locks

SCHEMA = 1
_MOST = 8


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What one document needs.

    Attributes:
        etag: Its name.
        trees: The environments of its plugins.
        wheels: What those are made of.
    """

    etag: str
    trees: frozenset[str] = frozenset()
    wheels: frozenset[str] = frozenset()

    @classmethod
    def of(cls, etag: str, artifacts: Sequence[Mapping[str, Any]], plugins: Mapping[str, Any]) -> Needs:
        """Return what a document needs, from what it pins and what was made of that.

        Raises:
            ValueError: It has not the form of a document.
        """
        try:
            wheels = frozenset(each.sha256 for pin in pins.read(plugins) for each in pin.wheels)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"its pins cannot be read: {error!r}") from error
        return cls(etag=etag, trees=frozenset(Artifact.of(each).tree for each in artifacts), wheels=wheels)


class Store(Protocol):
    """The environments that pinned wheels were made into."""

    def pinned(self) -> Sequence[str]:
        """Return their hashes."""
        ...

    def discard(self, digest: str) -> bool:
        """Take one away; False while somebody uses it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What was taken away."""

    trees: tuple[str, ...] = ()
    wheels: tuple[str, ...] = ()


class Keeping:
    """What is kept in one home, and what is not.

    Args:
        home: `TOFT_HOME`.
        operations: The steps of a durable write.
        hold: Keeps others out: who installs shares it, who collects has it alone.
    """

    def __init__(
        self,
        home: Path,
        operations: durable.Operations = durable.SYSTEM,
        *,
        hold: Callable[[bool], AbstractContextManager[None]] | None = None,
    ) -> None:
        self._store = home / "managed" / "store"
        self._recent = self._store / "recent.json"
        self._slots = slots.Slots(home / "managed", operations)
        self._operations = operations
        self._hold = hold or (lambda shared: _hold(self._store / "lock", shared))

    def installing(self) -> AbstractContextManager[None]:
        """Keep all that is there, as long as somebody installs; blocks while something is collected."""
        return self._hold(True)

    def note(self, needs: Needs) -> None:
        """Remember that this is what was installed last.

        Durability: On disk when this returns.
        """
        others = [each for each in self._read_recent() if each.etag != needs.etag]
        value = [
            {"etag": each.etag, "trees": sorted(each.trees), "wheels": sorted(each.wheels)}
            for each in (needs, *others)[:_MOST]
        ]
        durable.make_directory(self._store, 0o700, operations=self._operations)
        text = json.dumps({"schema": SCHEMA, "recent": value}, sort_keys=True)
        durable.write_file(self._recent, text.encode(), mode=0o600, operations=self._operations)

    def keeps(self, tree: str) -> bool:
        """Say whether some document needs an environment, or may."""
        try:
            return any(tree in each.trees for each in self._needed())
        except ValueError:
            # A slot that cannot be read may be mended; until then nobody knows what it needs.
            return True

    def collect(self, store: Store) -> Collected:
        """Take away what no document needs; nothing while somebody installs, or a slot cannot be read."""
        try:
            with self._hold(False):
                return self._collect(store)
        except (UnavailableError, ValueError):
            return Collected()

    def _collect(self, store: Store) -> Collected:
        needed = list(self._needed())
        trees = frozenset[str]().union(*(each.trees for each in needed))
        wheels = frozenset[str]().union(*(each.wheels for each in needed))
        gone = [each for each in store.pinned() if each not in trees and store.discard(each)]
        left = {*trees, *store.pinned()}
        # The record after what it tells of: without one an environment is not trusted, only built again.
        self._sweep("trees", lambda name: name.partition(".")[0] in left)
        self._sweep("seen", lambda name: name.partition(".")[0] in left)
        swept = self._sweep("wheels", lambda name: name.removesuffix(".whl") in wheels)
        return Collected(trees=tuple(gone), wheels=tuple(each.removesuffix(".whl") for each in swept))

    def _sweep(self, below: str, is_needed: Callable[[str], bool]) -> list[str]:
        directory = self._store / below
        try:
            names = self._operations.list(str(directory))
        except FileNotFoundError:
            return []
        swept = [name for name in names if name.startswith(".tmp-") or not is_needed(name)]
        for name in swept:
            self._operations.remove(str(directory / name))
        if swept:
            self._operations.sync_directory(str(directory))
        return [name for name in swept if not name.startswith(".tmp-")]

    def _needed(self) -> Iterator[Needs]:
        """Yield what each slot needs, and what the last document needed that is in none.

        Raises:
            ValueError: There is a slot that cannot be read.
        """
        etags = set()
        for name in slots.NAMES:
            slot = self._slots.look(name)
            if slot.is_absent:
                continue
            if slot.problem:
                raise ValueError(slot.problem)
            etags.add(slot.meta.etag)
            yield Needs.of(slot.meta.etag, slot.meta.artifacts, _plugins(slot.document))
        yield from [each for each in self._read_recent() if each.etag not in etags][:1]

    def _read_recent(self) -> list[Needs]:
        """Return what was installed last, the latest first; empty when it cannot be read."""
        try:
            value = json.loads(self._operations.read(str(self._recent)))
            return [
                Needs(
                    etag=str(each["etag"]), trees=frozenset(each["trees"]), wheels=frozenset(each["wheels"])
                )
                for each in value["recent"]
            ]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return []


def _plugins(document: bytes) -> Mapping[str, Any]:
    value = json.loads(document)
    found = value.get("plugins", {}) if isinstance(value, dict) else None
    if not isinstance(found, dict):
        raise ValueError("it is no document")
    return found


def _hold(path: Path, shared: bool) -> AbstractContextManager[None]:
    return locks.hold(path, shared=shared, timeout_s=600.0 if shared else 0.0)
