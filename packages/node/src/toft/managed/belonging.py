"""Where a node belongs and whom it trusts: files beside the slots, untouched by a commit or a way back."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from toft.kernel.errors import IntegrityError
from toft.store import durable, locks

SEED = "seed.json"
ENROLLMENT = "enrollment.json"
IDENTITY = "identity.json"
REPORTS = "reports.json"
TELEMETRY = "telemetry.json"
TRUST = "trust.json"
_LOCK_S = 10.0
"""A verb takes some fsyncs; the guard and the daemon after it wait one after the other."""


def hold(directory: Path) -> AbstractContextManager[None]:
    """Keep other processes from changing anything in `managed/` of a home."""
    return locks.hold(directory / "lock", timeout_s=_LOCK_S)


def node_id(directory: Path, operations: durable.Operations) -> str:
    """Return as whom this node is enrolled; empty for one that is not, or when it cannot be read."""
    try:
        found = json.loads(operations.read(str(directory / ENROLLMENT)))
        return str(found["node_id"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


class Belonging:
    """What a join leaves on a node, and what comes of it.

    Args:
        directory: `managed/` of the home.
        operations: The steps of a durable write.
    """

    def __init__(self, directory: Path, operations: durable.Operations) -> None:
        self._directory = directory
        self._operations = operations

    def mode(self) -> str:
        """Return as what a node without a document boots: `seed`, `enrollment` or `bare`."""
        return "seed" if self.seed() else "enrollment" if self.enrollment() else "bare"

    def seed(self) -> Mapping[str, Any] | None:
        """Return what a join has left here; None when there is none, or no whole one."""
        return self._find(SEED)

    def enrollment(self) -> Mapping[str, Any] | None:
        """Return where the node is enrolled; None for one that is not, or when it cannot be read."""
        return self._find(ENROLLMENT)

    def membership(self) -> Mapping[str, Any] | None:
        """Return where this node belongs and whom it trusts: as it is enrolled, else as it wants to be.

        A node of nobody may still have been told whom to trust.

        Raises:
            IntegrityError: A file that says so is there and damaged: whom to trust is not guessed.
        """
        for name in (ENROLLMENT, SEED, TRUST):
            path = self._directory / name
            try:
                value = json.loads(self._operations.read(str(path)))
            except FileNotFoundError:
                continue
            except (OSError, ValueError, RecursionError) as error:
                raise _damaged(path, error) from error
            if not isinstance(value, dict):
                raise _damaged(path, "no object")
            return value
        return None

    def base(self) -> bytes:
        """Return the document of a node without one: whom it asks, if anybody; never the token."""
        known = self.seed() or self.enrollment() or {}
        urls = known.get("control_urls") or known.get("urls") or ()
        urls = [each for each in urls if isinstance(each, str)]
        value: dict[str, Any] = {"schema_version": 1}
        if urls:
            value["control"] = {"urls": urls}
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()

    def keep_seed(self, data: bytes) -> None:
        """Keep what a join says: where to ask, and the token for it."""
        durable.write_file(self._directory / SEED, data, mode=0o600, operations=self._operations)

    def seed_digest(self) -> str:
        """Return the SHA-256 of the seed, in hex; empty without one."""
        try:
            return hashlib.sha256(self._operations.read(str(self._directory / SEED))).hexdigest()
        except OSError:
            return ""

    def forget_seed(self) -> None:
        """Take the token of the join away for good; again at every boot, in case that was cut off."""
        with contextlib.suppress(FileNotFoundError):
            self._operations.remove(str(self._directory / SEED))
            self._operations.sync_directory(str(self._directory))

    def clear(self, *, is_joining: bool) -> None:
        """Forget all but the trust of whoever is at the machine, and the seed of a join that is under way."""
        for name in (IDENTITY, ENROLLMENT, REPORTS, TELEMETRY, *(() if is_joining else (SEED,))):
            durable.discard(self._directory / name, operations=self._operations)

    def keep_trust(self, root: Mapping[str, Any] | None) -> None:
        """Keep whom a node of nobody trusts to sign its documents; None for whoever is at the machine."""
        path = self._directory / TRUST
        if root is None:
            durable.discard(path, operations=self._operations)
            self._operations.sync_directory(str(self._directory))
        else:
            durable.write_json(path, {"schema": 1, "root": root}, mode=0o600, operations=self._operations)

    def _find(self, name: str) -> Mapping[str, Any] | None:
        try:
            value = json.loads(self._operations.read(str(self._directory / name)))
        except (OSError, ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None


def _damaged(path: Path, why: object) -> IntegrityError:
    return IntegrityError(
        f"{path} does not say any more where this node belongs: {why}",
        code="membership.damaged",
        details={"path": str(path)},
        hint="join again: toft join URL TOKEN; toft leave gives the node back to nobody",
    )
