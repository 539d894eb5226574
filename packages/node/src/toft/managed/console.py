"""Everything a person does with the documents of a home: the one door for commands, routes and pages.

All of it blocks for some file operations. What changes something takes the lock of the documents itself, so
that it is the same whether a daemon runs or not; the daemon is told by whoever calls.
"""

from __future__ import annotations

import asyncio
import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toft.kernel import schemas
from toft.kernel.errors import ConflictError, NotFoundError, UsageError
from toft.managed import (
    document,
    gates,
    generations,
    hiding,
    layering,
    moments,
    phases,
    slots,
    staging,
    standing,
    trees,
)
from toft.managed.document import Document
from toft.managed.layering import Local

AGAINST = ("lkg", "served")
"""What the running document can be compared with, beside a file: the last one that was proven before it, and
what the central serves."""


class Console:
    """The documents of one home.

    Args:
        home: Of the node.
        local: What this machine says beside the document.
    """

    def __init__(self, home: Path, local: Local) -> None:
        self.home = home
        self.local = local

    # Looking; works without a daemon and makes nothing.

    def read(self) -> generations.Standing:
        """Return what lies on disk."""
        return generations.Generations(self.home / "managed", moments.read).read()

    def describe(self) -> dict[str, Any]:
        """Return how the node stands, as far as its files say."""
        running = layering.running_document(self.read())
        return {**standing.describe(self.home), "overrides": layering.overrides(running, self.local)}

    def document(self, which: str = "running") -> bytes:
        """Return the exact bytes of a document: `running`, or `lkg` for what one would go back to.

        Raises:
            NotFoundError: There is none.
        """
        found = self.read()
        name = found.active if which == "running" else slots.other(found.active) if found.active else None
        slot = found.slots.get(name or "")
        if slot is None or slot.problem or not slot.document:
            raise NotFoundError(
                "there is no document" if which == "running" else "there is no other whole document",
                code="generation.no_document",
                details={"which": which},
                hint="toft config apply FILE gives one",
            )
        return slot.document

    def explain(self, key: str) -> dict[str, Any]:
        """Return which layer says what of a key, and which one wins.

        Raises:
            NotFoundError: There is no such key.
        """
        return layering.explain(key, layering.running_document(self.read()), self.local, self._schemas())

    def effective(self) -> dict[str, Any]:
        """Return what the node is, all layers together; what is secret is `<set>`."""
        return layering.effective(layering.running_document(self.read()), self.local, self._schemas())

    def redacted(self, data: bytes) -> bytes:
        """Return a document as it may be shown: `<set>` for what is secret."""
        return json.dumps(layering.redacted(json.loads(data), self._schemas())).encode()

    def _schemas(self) -> hiding.Schemas:
        """Return what knows the plugins that are here now, the pinned ones of the running document first."""
        from toft.managed import applying  # noqa: PLC0415 - manifests, which most commands do not pay for
        from toft.plugins.manifests.registry import Registry  # noqa: PLC0415 - manifests, too

        found = self.read()
        active = found.slots.get(found.active or "")
        pinned = applying.pinned_by(self.home, active.meta.artifacts) if active is not None else []
        registry = Registry(self.home, pinned=pinned)

        def schema_of(plugin: str) -> Mapping[str, Any] | None:
            try:
                known = registry.find_name(plugin)
            except UsageError:
                return None
            return known.manifest.code.config_schema if known is not None else None

        return schema_of

    def drift(self, more: Sequence[dict[str, str]] = ()) -> list[dict[str, str]]:
        """Return how this machine differs from what its document says; looks at every file of its code.

        Args:
            more: What others have found.
        """
        found = self.read()
        active = found.slots.get(found.active or "")
        looked = trees.Trees(self.home).problems(active.meta.artifacts) if active is not None else {}
        changed = [looked[name] for name in sorted(looked)]
        dropped = layering.overrides(layering.running_document(found), self.local)
        return [*layering.drift(found, dropped, changed), *more]

    # Changing

    def roll_back(self, reason: str) -> dict[str, Any]:
        """Go back to the document before, and take nothing new until somebody unpins.

        Raises:
            ConflictError: There is nothing whole to go back to.
        """
        if not self._engine().revert(phases.OPERATOR, phases.Severity.PERMANENT, reason):
            raise ConflictError(
                "there is no other whole document to go back to",
                code="generation.nowhere_to_go",
                hint="toft config show tells what there is; toft config apply FILE gives another one",
            )
        return self.describe()

    def pin(self, reason: str) -> None:
        """Take nothing new from anybody but a person here; an empty reason lets it in again."""
        self._engine().record(lambda state: phases.pinned(state, reason))

    def acknowledge(self) -> None:
        """Take note of the last way back; it stays in the history."""
        self._engine().record(phases.acknowledged)

    async def apply(
        self,
        data: bytes,
        *,
        nonce: str,
        source: str,
        signatures: str = "",
        installer: staging.Installer | None = None,
        gated: gates.Gated | None = None,
    ) -> staging.Staged:
        """Commit a document that a person asks for.

        Args:
            data: Its exact bytes.
            nonce: Of the boot, or the command; it can never confirm it.
            source: Where it is from.
            signatures: Of exactly these bytes, as a list in JSON; empty for none.
            installer: Gets the plugins.
            gated: Looks at its gates before.

        Raises:
            NodeError: As `staging.stage` says.
        """
        offered = await asyncio.to_thread(document.parse, data)
        engine = await asyncio.to_thread(self._engine)
        key_ids: Sequence[str] = ()
        if signatures:
            from toft.managed import joining  # noqa: PLC0415 - what speaks with a central, for few documents

            key_ids = await asyncio.to_thread(joining.vouched, engine, data, signatures)
        return await staging.stage(
            engine,
            offered,
            nonce=nonce,
            source=source,
            key_ids=key_ids,
            is_asked=True,
            installer=installer,
            gated=gated,
        )

    def _engine(self) -> generations.Generations:
        return generations.Generations.at(self.home)


def check(value: Any) -> dict[str, Any]:
    """Return everything that is wrong with a document to be, and what of it nobody serves here."""
    found = document.problems(value)
    listed = [
        {"path": schemas.path_text(each.path), "message": each.message, "keyword": each.keyword}
        for each in found
    ]
    made = None if found else Document(document.encode(value), value)
    missing = made.not_served() if made is not None else []
    return {
        "ok": not found,
        "etag": None if made is None else made.etag,
        "problems": listed,
        "not_served": [f"{schemas.path_text(each.path)} {each.message}" for each in missing],
    }


def difference(older: bytes, newer: bytes, names: tuple[str, str]) -> list[str]:
    """Return how two documents differ, as lines of a unified diff."""
    return list(
        difflib.unified_diff(pretty(older).splitlines(), pretty(newer).splitlines(), *names, lineterm="")
    )


def pretty(document: bytes) -> str:
    """Return a document as a person reads it."""
    return json.dumps(json.loads(document or b"{}"), indent=2, sort_keys=True, ensure_ascii=False)
