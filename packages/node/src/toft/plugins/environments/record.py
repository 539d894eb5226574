"""What is written down of an environment, last and in one step; where it is, there is an environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toft.kernel import errors
from toft.plugins.environments.provisioning import SCHEMA, Installed, Resolution

RECORD = "environment.json"


@dataclass(frozen=True, kw_only=True)
class Environment:
    """One environment on disk.

    Attributes:
        size_bytes: What it takes on disk.
        is_new: It was built by the call that returned it.
        local_name: Name of the distribution that the request's project or wheel turned out to be.
    """

    hash: str
    path: Path
    python: str
    python_version: str
    cache_tag: str
    kind: str
    lock: str
    packages: Mapping[str, str]
    size_bytes: int
    created_at: str
    origin: str = ""
    is_new: bool = field(default=False, compare=False)
    local_name: str | None = field(default=None, compare=False)

    @property
    def prefix(self) -> Path:
        """Return the directory its interpreter calls its prefix; some tools put it below `path`."""
        return Path(self.python).parent.parent

    def to_dict(self) -> dict[str, Any]:
        """Return what the record holds, without the lock, plus where it is."""
        return {
            "hash": self.hash,
            "path": str(self.path),
            "kind": self.kind,
            "python": self.python,
            "python_version": self.python_version,
            "packages": dict(self.packages),
            "size_bytes": self.size_bytes,
            "created_at": self.created_at,
            "origin": self.origin,
        }


def of(
    resolution: Resolution, installed: Installed, *, origin: str, size_bytes: int, created_at: str
) -> dict[str, Any]:
    """Return the record of what was just installed."""
    return {
        "schema": SCHEMA,
        "hash": resolution.hash,
        "kind": resolution.kind,
        "identity": dict(resolution.identity),
        "python": installed.python,
        "python_version": installed.python_version,
        "cache_tag": installed.cache_tag,
        "lock": resolution.lock,
        "packages": dict(sorted(installed.packages.items())),
        "size_bytes": size_bytes,
        "created_at": created_at,
        "origin": origin,
    }


def read(path: Path, record: Mapping[str, Any], *, is_new: bool = False) -> Environment:
    """Return the environment that a record in this directory tells of.

    Raises:
        IntegrityError: It is not a record that this toft reads.
    """
    schema = record.get("schema") if isinstance(record, Mapping) else None
    if schema != SCHEMA:
        raise errors.IntegrityError(
            f"{path / RECORD} has schema {schema!r}; this toft reads {SCHEMA}",
            code="environment.unreadable",
            hint="toft plugin refresh builds the environment again",
        )
    names = ("python", "python_version", "cache_tag", "kind", "lock", "size_bytes", "created_at", "origin")
    missing = [name for name in (*names, "packages") if name not in record]
    if missing:
        raise errors.IntegrityError(
            f"{path / RECORD} lacks {', '.join(missing)}",
            code="environment.unreadable",
            hint="toft plugin refresh builds the environment again",
        )
    return Environment(
        hash=path.name,
        path=path,
        packages=dict(record["packages"]),
        is_new=is_new,
        **{name: record[name] for name in names},
    )
