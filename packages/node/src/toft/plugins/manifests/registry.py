"""The installed plugins: `TOFT_HOME/plugins/<name>/manifest.json`, and manifests found on search paths.

A file that cannot be read is a problem to show, never an exception that hides the other plugins. Of two
plugins of one name the first found wins: what the node's document pins, then project, home, and what an
installation of the reference system left.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from toft.kernel import ids, suggestions
from toft.kernel.errors import ConflictError, NotFoundError, UnavailableError
from toft.plugins.manifests import manifest as manifests
from toft.plugins.manifests import manifest_checks, taxonomy
from toft.plugins.manifests.manifest import Manifest
from toft.store import durable, locks

_MOST_FILES = 10_000
_Problems = list["BadFile"]


@dataclass(frozen=True)
class Found:
    """One plugin and the file it was read from.

    Attributes:
        manifest: What the file says.
        path: The file.
        is_managed: It lies in the node's own registry, so the node may change or remove it.
        warnings: What is odd but usable.
    """

    manifest: Manifest
    path: pathlib.Path
    is_managed: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class BadFile:
    """A manifest that was passed over, and why."""

    path: pathlib.Path
    reason: str


@dataclass(frozen=True)
class Discovery:
    """Everything one look over the search paths found."""

    found: tuple[Found, ...]
    problems: tuple[BadFile, ...]


class Registry:
    """Reads and writes the plugins of one home.

    Args:
        home: `TOFT_HOME`.
        search_paths: Directories of `*.json` manifests that win over the home's own, in order.
        fallback_paths: The same, but the home's own win over them.
        pinned: Plugins that the node's document pins, and where that is recorded; nobody else changes them.
        operations: What writes; a test may stop it between any two steps.
    """

    def __init__(
        self,
        home: pathlib.Path,
        *,
        search_paths: Iterable[pathlib.Path] = (),
        fallback_paths: Iterable[pathlib.Path] = (),
        pinned: Iterable[tuple[Manifest, pathlib.Path]] = (),
        operations: durable.Operations = durable.SYSTEM,
    ) -> None:
        self._root = home / "plugins"
        self._lock = home / "run" / "plugins.lock"
        self._search = tuple(search_paths)
        self._fallback = tuple(fallback_paths)
        self._pinned = {each.name: Found(each, path, False) for each, path in pinned}
        self._operations = operations

    def discover(self) -> Discovery:
        """Look everywhere once."""
        found = dict(self._pinned)
        problems: list[BadFile] = []
        for path, is_managed in self._files(problems):
            try:
                each = _read(path, is_managed)
            except manifests.ManifestError as error:
                problems.append(BadFile(path, error.message))
                continue
            if is_managed and each.manifest.name != path.parent.name:
                problems.append(
                    BadFile(path, f"it names the plugin {each.manifest.name}, its directory does not")
                )
                continue
            found.setdefault(each.manifest.name, each)
        ordered = sorted(found.values(), key=lambda each: each.manifest.name)
        return Discovery(tuple(ordered), tuple(problems))

    def list(self) -> Sequence[Manifest]:
        """Return every plugin that can be read, by name."""
        return [each.manifest for each in self.discover().found]

    def find_name(self, name: str) -> Found | None:
        """Return the plugin of a name; None when there is none that can be read."""
        ids.check_name(name, "plugin name")
        if name in self._pinned:
            return self._pinned[name]
        # The usual case reads one file: few projects bring manifests, and a worker's start waits for this.
        path = self._path(name)
        if not any(_listed(each, "*.json", []) for each in self._search) and path.is_file():
            with contextlib.suppress(manifests.ManifestError):
                return _read(path, True)
        return next((each for each in self.discover().found if each.manifest.name == name), None)

    def get(self, name: str) -> Manifest:
        """Return the manifest of a plugin.

        Raises:
            UsageError: The name is none.
            ManifestError: Its manifest cannot be read.
            NotFoundError: No plugin has that name.
        """
        found = self.find_name(name)
        if found is not None:
            return found.manifest
        if self._path(name).is_file():
            _read(self._path(name), True)  # raises what is wrong with it
        known = [each.manifest.name for each in self.discover().found]
        near = suggestions.nearest(name, known)
        raise NotFoundError(
            f"no plugin is called {name}" + (f"; did you mean {near}?" if near else ""),
            code="plugin.not_found",
            details={"name": name, "known": known[:50]},
            hint=f"toft plugin show {near}" if near else "toft plugin list",
        )

    def find(
        self,
        task: str = "",
        *,
        category: str | None = None,
        role: str | None = None,
        domain: str | None = None,
        platform: str | None = None,
        takes: Iterable[str] = (),
        gives: str | None = None,
    ) -> Sequence[Manifest]:
        """Return the plugins that fit, the best first; see `taxonomy.find`."""
        return taxonomy.find(
            self.list(),
            task,
            category=category,
            role=role,
            domain=domain,
            platform=platform,
            takes=takes,
            gives=gives,
        )

    def write(self, manifest: Manifest, *, replace: bool = True) -> pathlib.Path:
        """Put a plugin into the registry.

        Args:
            manifest: What to write.
            replace: False refuses to overwrite a plugin of that name.

        Raises:
            ConflictError: There is one already, or the node's document pins one of that name.
            UnavailableError: The disk said no; what was there is still there.

        Durability: On disk before this returns.
        """
        path = self._path(manifest.name)
        self.check_free(manifest.name)
        with locks.hold(self._lock):
            if not replace and path.exists():
                raise ConflictError(
                    f"a plugin called {manifest.name} is already installed",
                    code="plugin.exists",
                    details={"name": manifest.name},
                    hint=f"toft plugin refresh {manifest.name}, or give the new one another --name",
                )
            try:
                durable.make_directory(path.parent, operations=self._operations)
                durable.write_file(path, manifest.to_json(), operations=self._operations)
            except OSError as error:
                raise UnavailableError(
                    f"the manifest of {manifest.name} could not be written: {error.strerror}",
                    code="plugin.not_written",
                    details={"path": str(path)},
                ) from error
        return path

    def remove(self, name: str) -> bool:
        """Take a plugin out of the registry; False when it was not there.

        Raises:
            ConflictError: It comes from a search path, which the node does not own, or from its document.
        """
        self.check_free(name)
        found = self._path(ids.check_name(name, "plugin name"))
        with locks.hold(self._lock):
            if found.parent.exists():
                return durable.remove_directory(found.parent, operations=self._operations)
        elsewhere = self.find_name(name)
        if elsewhere is not None:
            raise ConflictError(
                f"{name} was found in {elsewhere.path}, which toft does not manage",
                code="plugin.not_managed",
                hint=f"delete {elsewhere.path} yourself",
            )
        return False

    def check_free(self, name: str) -> None:
        """Refuse to change a plugin that the node's document pins.

        Raises:
            ConflictError: It does.
        """
        if name in self._pinned:
            raise ConflictError(
                f"the document of this node pins {name}; nothing else changes it",
                code="plugin.pinned",
                details={"name": name},
                hint="toft config apply FILE, with another pin or without it",
            )

    def overridden(self) -> Sequence[str]:
        """Return the plugins of this home that do not count, because the document pins one of their name."""
        return [name for name in sorted(self._pinned) if self._path(name).exists()]

    def sweep(self) -> None:
        """Remove what an interrupted write or removal left; a plugin that counts is never touched."""
        with locks.hold(self._lock):
            durable.sweep(self._root)
            for directory in _directories(self._root):
                durable.sweep(directory)
                with contextlib.suppress(OSError):
                    # Only an empty one goes: its manifest was never written.
                    directory.rmdir()

    def _path(self, name: str) -> pathlib.Path:
        return self._root / ids.check_name(name, "plugin name") / "manifest.json"

    def _files(self, problems: _Problems) -> Iterator[tuple[pathlib.Path, bool]]:
        yield from ((path, False) for path in _trusted(self._search, problems))
        for path in _listed(self._root, "*/manifest.json", problems):
            # A temporary directory of an interrupted removal is not a plugin.
            if not path.parent.name.startswith("."):
                yield path, True
        yield from ((path, False) for path in _trusted(self._fallback, problems))


def reference_paths(directory: pathlib.Path, user_home: str | None) -> tuple[pathlib.Path, ...]:
    """Return where the reference system keeps manifests: the project's directory, then the user's."""
    found = (directory / ".cjm" / "manifests",)
    return (*found, pathlib.Path(user_home) / ".cjm" / "manifests") if user_home else found


def project_paths(directory: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """Return where a project keeps its own manifests."""
    return (directory / ".toft" / "manifests",)


def validate_file(path: pathlib.Path, check: Callable[[Any], list[str]]) -> list[str]:
    """Return everything wrong with a JSON file, as sentences; see `manifest_checks.problems`."""
    try:
        return check(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        return [f"{path} cannot be read: {error.strerror}"]
    except (ValueError, RecursionError) as error:
        return [f"{path} is not JSON: {error}"]


def _read(path: pathlib.Path, is_managed: bool) -> Found:
    manifest = manifests.read(path)
    return Found(manifest, path, is_managed, tuple(manifest_checks.warnings(manifest.to_dict())))


def _trusted(directories: tuple[pathlib.Path, ...], problems: _Problems) -> Iterator[pathlib.Path]:
    """Yield the manifests that are ours: a manifest says what is run, and anybody can write to `/tmp`."""
    for directory in directories:
        for path in _listed(directory, "*.json", problems):
            try:
                owners = {directory.stat().st_uid, path.stat().st_uid}
            except OSError as error:
                problems.append(BadFile(path, f"it cannot be looked at: {error.strerror}"))
                continue
            if owners <= {0, os.geteuid()} and not _is_shared(directory.parent.parent):
                yield path
            elif owners <= {0, os.geteuid()}:
                problems.append(BadFile(path, "it is below a directory that everybody may write to"))
            else:
                problems.append(BadFile(path, "it belongs to another user"))


def _is_shared(directory: pathlib.Path) -> bool:
    try:
        return bool(directory.stat().st_mode & stat.S_IWOTH)
    except OSError:
        return True


def _directories(root: pathlib.Path) -> list[pathlib.Path]:
    try:
        return [path for path in sorted(root.iterdir()) if path.is_dir() and not path.is_symlink()]
    except FileNotFoundError:
        return []


def _listed(directory: pathlib.Path, pattern: str, problems: list[BadFile]) -> list[pathlib.Path]:
    try:
        files = sorted(path for path in directory.glob(pattern) if not path.is_fifo())
    except OSError as error:
        problems.append(BadFile(directory, f"it cannot be listed: {error.strerror}"))
        return []
    if len(files) > _MOST_FILES:
        problems.append(BadFile(directory, f"it has {len(files)} manifests; only {_MOST_FILES} were read"))
    return files[:_MOST_FILES]
