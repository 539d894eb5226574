"""The two slots: a whole document with what belongs to it in each, and a pointer to the one that runs.

A slot is a directory that is put in its place as a whole, so that a document, its name and the artifacts it
was tried with can never mix. The pointer is a symbolic link; it is the last thing a commit changes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toft.store import durable

SCHEMA = 1
NAMES = ("a", "b")
_POINTER = "active"
_DOCUMENT = "document"
_META = "meta.json"


@dataclass(frozen=True, kw_only=True)
class Meta:
    """What is known of the document in a slot.

    Attributes:
        etag: Its name; empty for the base, which nobody served.
        sha256: What its bytes hash to.
        attempt: Which attempt of the sender this was.
        poll_interval_s: What it sets itself; decides how long it has to prove itself.
        source: Where it is from: a control URL, a file, or nobody.
        fetched_at: When, in seconds since 1970.
        artifacts: The exact code that belongs to it; name, version, sha256, tree, tree_sha256 of each.
        key_ids: Who signed it, as far as that was looked at.
        floor: The lowest revision that may follow it once it is confirmed.
    """

    etag: str
    sha256: str
    revision: int | None = None
    attempt: int = 0
    poll_interval_s: float = 300.0
    source: str = ""
    fetched_at: float = 0.0
    artifacts: tuple[Mapping[str, Any], ...] = ()
    key_ids: tuple[str, ...] = ()
    floor: int = 0


@dataclass(frozen=True)
class Slot:
    """A slot that was looked at.

    Attributes:
        name: `a` or `b`.
        document: The exact bytes; empty when it is damaged.
        problem: What is wrong with it; empty when nothing is.
        is_absent: Nothing was ever put there, or it was taken away as a whole.
    """

    name: str
    document: bytes = b""
    meta: Meta = field(default_factory=lambda: Meta(etag="", sha256=""))
    problem: str = ""
    is_absent: bool = False


class Slots:
    """The slots of one node.

    Args:
        directory: Where they are.
        operations: The steps of a durable write.
    """

    def __init__(self, directory: Path, operations: durable.Operations = durable.SYSTEM) -> None:
        self._directory = directory
        self._operations = operations

    def active(self) -> str | None:
        """Return which slot the pointer names; None without one, or with one that names none."""
        try:
            target = self._operations.read_link(str(self._directory / _POINTER))
        except OSError:
            return None
        name = target.removeprefix("slot-")
        return name if name in NAMES else None

    def look(self, name: str) -> Slot:
        """Return what is in a slot, checked against its own record; never raises for what the files hold."""
        directory = self._path(name)
        try:
            meta = _meta(self._operations.read(str(directory / _META)))
            document = self._operations.read(str(directory / _DOCUMENT))
        except FileNotFoundError as error:
            lacking = Path(error.filename or "").name
            return Slot(name, problem=f"slot {name} lacks {lacking}", is_absent=not self._is_there(directory))
        except (OSError, ValueError) as error:
            return Slot(name, problem=f"slot {name} cannot be read: {error}")
        found = hashlib.sha256(document).hexdigest()
        if found != meta.sha256 or meta.etag not in ("", f"sha256-{found}"):
            return Slot(name, meta=meta, problem=f"slot {name} holds other bytes than were put there")
        return Slot(name, document, meta)

    def fill(self, name: str, document: bytes, meta: Meta) -> None:
        """Put a generation into a slot that is neither active nor what one goes back to.

        Durability: It is there whole when this returns; before, the old one, none, or the whole new one.
        """
        text = json.dumps({"schema": SCHEMA, **dataclasses.asdict(meta)}, sort_keys=True)
        durable.write_directory(
            self._path(name),
            {_DOCUMENT: document, _META: text.encode()},
            mode=0o700,
            operations=self._operations,
        )

    def point(self, name: str) -> None:
        """Make a slot the active one; it is from when this returns."""
        durable.point(self._directory / _POINTER, f"slot-{name}", operations=self._operations)

    def clear(self) -> None:
        """Take the pointer away, then both slots."""
        durable.discard(self._directory / _POINTER, operations=self._operations)
        self._operations.sync_directory(str(self._directory))
        for name in NAMES:
            durable.discard(self._path(name), operations=self._operations)
        self._operations.sync_directory(str(self._directory))

    def _is_there(self, directory: Path) -> bool:
        try:
            self._operations.list(str(directory))
        except FileNotFoundError:
            return False
        except OSError:
            pass
        return True

    def _path(self, name: str) -> Path:
        return self._directory / f"slot-{name}"


def other(name: str | None) -> str:
    """Return the slot that a commit fills when this one is active."""
    return "a" if name == "b" else "b"


def _meta(data: bytes) -> Meta:
    try:
        values = json.loads(data)
        if values.pop("schema") != SCHEMA:
            raise ValueError("its record has another schema")
        values["artifacts"] = tuple(dict(each) for each in values["artifacts"])
        values["key_ids"] = tuple(str(each) for each in values["key_ids"])
        meta = Meta(**values)
        if not (isinstance(meta.etag, str) and isinstance(meta.sha256, str)):
            raise ValueError("its record names no document")
        if not isinstance(meta.poll_interval_s, (int, float)):
            raise ValueError("its record sets no interval")
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its record has not the form of one: {error!r}") from error
    return meta
