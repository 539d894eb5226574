"""The exact code that belongs to a document: one immutable environment for each plugin it pins.

What an environment consisted of when it was installed is recorded under the hash of that record, and a slot
names both: `managed/store/trees/<tree>.<tree_sha256>.json`. Standard library only, because the guard asks.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toft.managed import bundled
from toft.store import durable

SCHEMA = 1
RECORD = "environment.json"
OWN = "own"
"""Stands where an environment is named, for a plugin that came with this toft."""
_HASH = re.compile(r"[0-9a-f]{32,64}")
_NOT_COMPARED = ("created_at", "origin", "size_bytes")
"""What two environments of the same content say differently of themselves."""

Entry = tuple[str, int, str]
"""A name below the environment, its permissions, and what it is: a hash, `-> target`, or empty."""
Survey = Callable[[Path], Sequence[Entry]]
Digest = Callable[[str, str, os.stat_result], str]
"""Takes the path of a file, its name below the environment, and what is known of it without reading."""


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """The code of one plugin, as a slot names it.

    Attributes:
        name: The plugin.
        version: Of its wheel.
        sha256: Of its wheel.
        tree: The environment it runs in; `own` for a plugin that came with this toft.
        tree_sha256: The record of what that environment consists of.
    """

    name: str
    version: str
    sha256: str
    tree: str
    tree_sha256: str

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Artifact:
        """Read one from a slot's record; what is missing there is empty."""
        return cls(**{each.name: str(value.get(each.name, "")) for each in dataclasses.fields(cls)})

    def to_dict(self) -> dict[str, str]:
        """Return it as a slot keeps it."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """What a document's plugin comes down to on this node.

    Attributes:
        artifact: As the slot names it.
        manifest: Of the plugin, as `toft.plugins.manifests.manifest.parse` reads it; names the environment.
        problem: Why it cannot be run; empty when nothing is known against it.
    """

    artifact: Artifact
    manifest: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


class Trees:
    """The recorded environments of a home.

    Args:
        home: `TOFT_HOME`.
        operations: The steps of a durable write.
        survey: Looks at an environment.
        came: Tells which plugins came with this toft.
    """

    def __init__(
        self,
        home: Path,
        operations: durable.Operations = durable.SYSTEM,
        *,
        survey: Survey | None = None,
        came: Callable[[], Mapping[str, bundled.Bundled]] = bundled.find,
    ) -> None:
        self.directory = home / "managed" / "store" / "trees"
        self._environments = home / "environments"
        self._operations = operations
        self._survey = survey or look
        self._came = came

    def keep(self, environment: str, manifest: Mapping[str, Any]) -> str:
        """Record what an environment consists of now, and the plugin in it; return the record's name.

        Durability: On disk when this returns.
        """
        files = [] if environment == OWN else self._survey(self._environments / environment)
        value = {"schema": SCHEMA, "environment": environment, "manifest": manifest, "files": files}
        data = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
        digest = hashlib.sha256(data).hexdigest()
        durable.make_directory(self.directory, 0o700, operations=self._operations)
        durable.write_file(self._path(environment, digest), data, mode=0o600, operations=self._operations)
        return digest

    def is_as_recorded(self, environment: str) -> bool:
        """Say whether an environment is what some record says of it; one without any is not."""
        prefix = f"{environment}."
        for name in self.names():
            if name.startswith(prefix):
                artifact = {
                    "tree": environment,
                    "tree_sha256": name.removeprefix(prefix).removesuffix(".json"),
                }
                if not self.problem(artifact):
                    return True
        return False

    def names(self) -> list[str]:
        """Return what the records are called."""
        try:
            return self._operations.list(str(self.directory))
        except FileNotFoundError:
            return []

    def can_be_mended(self, document: bytes) -> bool:
        """Say whether all the wheels are here that the environments of a document are made of."""
        try:
            plugins = json.loads(document).get("plugins", {}).values()
            wheels = [each for pin in plugins for each in (pin, *pin.get("packages", ()))]
            here = set(self._operations.list(str(self.directory.with_name("wheels"))))
        except (OSError, ValueError, AttributeError, TypeError, RecursionError):
            return False
        return all(f"{each.get('sha256')}.whl" in here for each in wheels)

    def pinned(self, artifacts: Iterable[Mapping[str, Any]]) -> dict[str, Pinned]:
        """Return what a slot's artifacts are, by plugin; looks at the records alone, not at the files."""
        found = {}
        for each in map(Artifact.of, artifacts):
            try:
                record = self._read(each)
            except (OSError, ValueError) as error:
                found[each.name] = Pinned(artifact=each, problem=f"what {each.name} is was lost: {error}")
            else:
                found[each.name] = Pinned(artifact=each, manifest=record["manifest"])
        return found

    def problem(self, artifact: Mapping[str, Any]) -> str:
        """Compare an environment with its record, file by file; return what differs, empty for nothing."""
        wanted = Artifact.of(artifact)
        try:
            record = self._read(wanted)
        except (OSError, ValueError) as error:
            return f"what {wanted.name} is was lost: {error}"
        if wanted.tree == OWN:
            return self._own_problem(wanted)
        try:
            surveyed = self._survey(self._environments / wanted.tree)
        except OSError as error:
            return f"the environment of {wanted.name} cannot be read: {error}"
        expected = {path: (mode, what) for path, mode, what in record["files"]}
        found = {path: (mode, what) for path, mode, what in surveyed}
        for path in sorted({*expected, *found}):
            how = "is missing" if path not in found else "differs" if path in expected else "was added"
            if expected.get(path) != found.get(path):
                return f"the environment of {wanted.name} was changed after it was installed: {path} {how}"
        return ""

    def _own_problem(self, wanted: Artifact) -> str:
        found = self._came().get(wanted.name)
        if found is not None and found.version == wanted.version:
            return ""
        now = f"has {found.version} of it" if found is not None else "has none"
        return f"{wanted.name} {wanted.version} came with another toft; this one {now}"

    def problems(self, artifacts: Iterable[Mapping[str, Any]]) -> dict[str, str]:
        """Return what is wrong with the code of each plugin that is not what was installed."""
        found = {Artifact.of(each).name: self.problem(each) for each in artifacts}
        return {name: problem for name, problem in found.items() if problem}

    def path(self, artifact: Artifact) -> Path:
        """Return where the record of an environment is."""
        return self._path(artifact.tree, artifact.tree_sha256)

    def _path(self, environment: str, digest: str) -> Path:
        return self.directory / f"{environment}.{digest}.json"

    def _read(self, artifact: Artifact) -> dict[str, Any]:
        # Both become paths, and somebody may have edited the slot.
        is_named = artifact.tree == OWN or _HASH.fullmatch(artifact.tree)
        if not (is_named and _HASH.fullmatch(artifact.tree_sha256)):
            raise ValueError("the slot names no record")
        data = self._operations.read(str(self.path(artifact)))
        if hashlib.sha256(data).hexdigest() != artifact.tree_sha256:
            raise ValueError("its record is damaged")
        record: dict[str, Any] = json.loads(data)
        if record["schema"] != SCHEMA or record["environment"] != artifact.tree:
            raise ValueError("its record is of another environment")
        return record


def digest(path: str, name: str, found: os.stat_result) -> str:
    """Return what a file of an environment hashes to; its record without what differs each time."""
    # Neither through a link that came meanwhile, nor waiting for whoever writes to a pipe.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return "no file"
        return (
            _record_digest(file.read()) if name == RECORD else hashlib.file_digest(file, "sha256").hexdigest()
        )


def look(root: Path, digest: Digest = digest) -> list[Entry]:
    """Return everything in an environment, in order.

    Args:
        root: Its directory.
        digest: Reads a file.

    Raises:
        OSError: It is not there, or cannot be read.
    """
    found: list[Entry] = [(".", stat.S_IMODE(os.lstat(root).st_mode), "")]
    waiting = [""]
    while waiting:
        below = waiting.pop()
        with os.scandir(root / below) as entries:
            for each in entries:
                name = f"{below}{each.name}"
                state = each.stat(follow_symlinks=False)
                if each.is_symlink():
                    # The permissions of a link are nobody's.
                    found.append((name, 0, f"-> {os.readlink(each.path)}"))
                    continue
                if each.is_dir(follow_symlinks=False):
                    waiting.append(f"{name}/")
                    what = ""
                else:
                    what = digest(each.path, name, state)
                found.append((name, stat.S_IMODE(state.st_mode), what))
    return sorted(found)


def _record_digest(data: bytes) -> str:
    try:
        value = json.loads(data)
        kept = {name: each for name, each in value.items() if name not in _NOT_COMPARED}
    except (ValueError, AttributeError, RecursionError):
        return "damaged"
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
