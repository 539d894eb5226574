"""The seam between the store of environments and what makes them: requests, resolutions, the provisioner."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

SCHEMA = 1

Progress = Callable[[str], None]


def silent(_: str) -> None:
    """Report progress to nobody."""


@dataclass(frozen=True, kw_only=True)
class PinnedWheel:
    """One wheel that was chosen, and is here.

    Attributes:
        name: The distribution.
        version: Its version.
        filename: What the wheel is called; says for which Pythons and machines it is.
        sha256: What it hashes to.
        path: Where it lies, under whatever name.
    """

    name: str
    version: str
    filename: str
    sha256: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class EnvironmentRequest:
    """What an environment is wanted for.

    Attributes:
        requirements: Requirement strings, such as `pysbd==0.3.4`.
        lock: The text of a requirements file with hashes; nothing is resolved then.
        local_project: A project directory or a wheel to put in.
        vcs: A `git+…` address of a project to put in.
        extras: Extras of the local project.
        python: A version, a range or a path; None for what the project needs, else the node's own.
        env_file: Path or URL of an `environment.yml`.
        upgrade: Look for newer versions instead of what the cache knows.
        offline: Never use the network; None for what the settings say.
        origin: Where this came from, for the record; never an index.
        directory: Where relative paths in `requirements` start; the working directory by default.
        wheels: All that is to be in it, that of the plugin first; nothing else of the request counts then,
            but `python` and `origin`.
    """

    requirements: tuple[str, ...] = ()
    lock: str | None = None
    local_project: Path | None = None
    vcs: str | None = None
    extras: tuple[str, ...] = ()
    python: str | None = None
    env_file: str | None = None
    upgrade: bool = False
    offline: bool | None = None
    origin: str = ""
    directory: Path | None = None
    wheels: tuple[PinnedWheel, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """What a request came down to; two equal ones are one environment.

    Attributes:
        kind: The provisioner's.
        identity: The interpreter and the platform.
        lock: Every package with its hash, as text that does not depend on where files lay.
        installable: What the provisioner itself installs from; not part of the identity.
        local_name: The distribution name of the local project, when there is one.
    """

    kind: str
    identity: Mapping[str, str]
    lock: str
    installable: Any = None
    local_name: str | None = None

    @property
    def hash(self) -> str:
        """Return the name of the environment."""
        parts = {
            "schema": SCHEMA,
            "kind": self.kind,
            "identity": dict(self.identity),
            "lock": self.lock,
        }
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class Installed:
    """What a provisioner made.

    Attributes:
        python: Absolute path of the interpreter inside the environment.
        python_version: Its version.
        cache_tag: Its tag in the names of compiled files.
        packages: Distribution name to version.
    """

    python: str
    python_version: str
    cache_tag: str
    packages: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class SizeEstimate:
    """What an environment would take, as far as it can be known before.

    Attributes:
        download_bytes: Bytes to fetch, when nothing is cached.
        installed_bytes: Bytes on disk afterwards, where the source of packages says so; else None.
        packages: Name to download size; None where nobody says it.
        is_complete: Every package's download size is known.
        exists: The environment is there already; nothing has to be fetched.
    """

    download_bytes: int
    installed_bytes: int | None
    packages: Mapping[str, int | None]
    exists: bool = False

    @property
    def is_complete(self) -> bool:
        """Say whether every download size is known."""
        return all(size is not None for size in self.packages.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as JSON-like values; `unknown` names what nobody could say."""
        return {
            "download_bytes": self.download_bytes,
            "installed_bytes": self.installed_bytes,
            "packages": dict(self.packages),
            "unknown": sorted(name for name, size in self.packages.items() if size is None),
            "is_complete": self.is_complete,
            "exists": self.exists,
        }


class Provisioner(Protocol):
    """Makes environments of one kind."""

    kind: str

    def accepts(self, request: EnvironmentRequest) -> bool:
        """Say whether this request is for this provisioner."""
        ...

    async def resolve(self, request: EnvironmentRequest, work: Path, progress: Progress) -> Resolution:
        """Find the exact packages.

        Args:
            request: What is wanted.
            work: An empty directory that goes away afterwards.
            progress: Told each step.

        Raises:
            NodeError: One of `environment_errors`.
        """
        ...

    async def install(
        self, resolution: Resolution, prefix: Path, *, work: Path, keep_fds: Sequence[int], progress: Progress
    ) -> Installed:
        """Fill an empty directory; it stays under this name.

        Cancellation: Ends every process first; what is in the directory is thrown away by the caller.
        """
        ...

    async def estimate(self, resolution: Resolution, work: Path) -> SizeEstimate:
        """Say what it would take."""
        ...
