"""Secrets in one file that only its owner can read: `secrets/secrets.json`, 0600 in 0700.

Writers take a lock and replace the file whole, so a reader needs no lock and a power cut leaves the old file
or the new one. The values are not encrypted: whoever may read files as the user of the node may read them.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from toft.kernel.errors import IntegrityError, RefusedError, UnavailableError
from toft.secrets.store import DEFAULT_SCOPE, check_place, check_value, not_found
from toft.store import durable, locks

SCHEMA = 1
_LOCK_TIMEOUT_S = 10.0

Scopes = dict[str, dict[str, dict[str, str]]]


class FileSecretStore:
    """The file store.

    Args:
        directory: Made with mode 0700 by the first write.
        on_warning: Told what was found wrong and repaired, without values.
        operations: What touches the disk; tests stop the world between two of them.
    """

    def __init__(
        self,
        directory: Path,
        *,
        on_warning: Callable[[str], None] = lambda text: None,
        operations: durable.Operations = durable.SYSTEM,
    ) -> None:
        self._directory = directory
        self._path = directory / "secrets.json"
        self._on_warning = on_warning
        self._operations = operations

    def get(self, plugin: str, key: str, *, scope: str = DEFAULT_SCOPE) -> str:
        """Return the value or raise `secret.not_found`."""
        value = self.find(plugin, key, scope=scope)
        if value is None:
            raise not_found(plugin, key)
        return value

    def find(self, plugin: str, key: str, *, scope: str = DEFAULT_SCOPE) -> str | None:
        """Return the value, or None where there is none."""
        check_place(plugin, key, scope)
        return self._read().get(scope, {}).get(plugin, {}).get(key)

    def set(self, plugin: str, key: str, value: str, *, scope: str = DEFAULT_SCOPE) -> None:
        """Store a value durably."""
        check_place(plugin, key, scope)
        check_value(value)
        self._make_directory()
        with self._locked():
            scopes = self._read()
            scopes.setdefault(scope, {}).setdefault(plugin, {})[key] = value
            self._write(scopes)

    def delete(self, plugin: str, key: str, *, scope: str = DEFAULT_SCOPE) -> None:
        """Remove a value and the maps that it leaves empty."""
        check_place(plugin, key, scope)
        if self.find(plugin, key, scope=scope) is None:
            raise not_found(plugin, key)
        with self._locked():
            scopes = self._read()
            if scopes.get(scope, {}).get(plugin, {}).pop(key, None) is None:
                raise not_found(plugin, key)
            self._write(_pruned(scopes))

    def list_keys(self, plugin: str, *, scope: str = DEFAULT_SCOPE) -> list[str]:
        """Return the names that have a value, sorted."""
        check_place(plugin, None, scope)
        return sorted(self._read().get(scope, {}).get(plugin, {}))

    def list_plugins(self, *, scope: str = DEFAULT_SCOPE) -> list[str]:
        """Return the plugins that have a value, sorted."""
        return sorted(self._read().get(scope, {}))

    def list_values(self) -> list[tuple[str, str]]:
        """Return every (key, value)."""
        return [
            pair
            for plugins in self._read().values()
            for secrets in plugins.values()
            for pair in secrets.items()
        ]

    def _make_directory(self) -> None:
        try:
            durable.make_directory(self._directory.parent, operations=self._operations)
            durable.make_directory(self._directory, 0o700, operations=self._operations)
        except OSError as error:
            raise self._unwritable(error) from error

    def _locked(self) -> AbstractContextManager[None]:
        self._secure(self._directory, 0o700)
        return locks.hold(self._directory / "lock", timeout_s=_LOCK_TIMEOUT_S)

    def _write(self, scopes: Scopes) -> None:
        text = (
            json.dumps({"schema": SCHEMA, "scopes": scopes}, indent=1, sort_keys=True, ensure_ascii=False)
            + "\n"
        )
        try:
            # A writer that was killed may have left a whole copy of the secrets under a temporary name.
            durable.sweep(self._directory)
            durable.write_file(self._path, text.encode(), mode=0o600, operations=self._operations)
        except OSError as error:
            raise self._unwritable(error) from error

    def _read(self) -> Scopes:
        try:
            # Never through a link: it could name a file that somebody else may read or replace.
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise self._unsafe(self._path, "is a symbolic link") from error
            raise RefusedError(
                f"The secrets cannot be read: {self._path}: {error.strerror}",
                code="secret.unreadable",
                details={"path": str(self._path), "errno": error.errno},
                hint="Run toft as the user who owns the file, or point TOFT_HOME at a directory of your own.",
            ) from error
        with open(fd, "rb") as file:
            self._secure(self._directory, 0o700)
            self._secure(self._path, 0o600, fd)
            return self._parse(file.read())

    def _parse(self, data: bytes) -> Scopes:
        try:
            document = json.loads(data)
            if document["schema"] != SCHEMA:
                raise ValueError(f"schema {document['schema']!r} is not {SCHEMA}")
            return _checked(document["scopes"])
        except (ValueError, KeyError, TypeError) as error:
            # Never quotes the content: it may be somebody's secret.
            raise IntegrityError(
                f"{self._path} is not a secrets file that this version can read ({type(error).__name__})",
                code="secret.store_damaged",
                details={"path": str(self._path), "size_bytes": len(data)},
                hint="Restore it from a backup, or move it away and set the secrets again.",
            ) from None

    def _secure(self, path: Path, wanted: int, fd: int | None = None) -> None:
        """Refuse what belongs to somebody else; take away rights that others have on what is ours."""
        found = os.lstat(path) if fd is None else os.fstat(fd)
        if stat.S_ISLNK(found.st_mode):
            raise self._unsafe(path, "is a symbolic link")
        if found.st_uid != os.geteuid():
            raise self._unsafe(path, f"belongs to user id {found.st_uid}, not to {os.geteuid()}")
        mode = stat.S_IMODE(found.st_mode)
        if not mode & ~wanted & 0o7777:
            return
        try:
            os.chmod(path if fd is None else fd, wanted)
        except OSError as error:
            raise self._unsafe(
                path, f"has mode {mode:04o}, and it cannot be changed: {error.strerror}"
            ) from error
        self._on_warning(
            f"{path} had mode {mode:04o}, so other users could reach the secrets; it is {wanted:04o} now. "
            "Replace the secrets if anybody else uses this machine."
        )

    def _unsafe(self, path: Path, why: str) -> RefusedError:
        return RefusedError(
            f"The secrets are not used: {path} {why}",
            code="secret.store_unsafe",
            details={"path": str(path)},
            hint=f"Make it yours alone: chown -R $(id -u) {self._directory}; chmod -R go= {self._directory}",
        )

    def _unwritable(self, error: OSError) -> UnavailableError:
        return UnavailableError(
            f"The secret was not stored: {error.filename or self._path}: {error.strerror}",
            code="secret.not_stored",
            details={"path": str(self._path), "errno": error.errno},
            hint="What was stored before is unchanged. toft doctor shows the disk and the rights.",
        )


def _checked(scopes: Any) -> Scopes:
    for plugins in scopes.values():
        for secrets in plugins.values():
            for value in secrets.values():
                if not isinstance(value, str):
                    raise TypeError
    checked: Scopes = scopes
    return checked


def _pruned(scopes: Scopes) -> Scopes:
    return {
        scope: kept
        for scope, plugins in scopes.items()
        if (kept := {plugin: secrets for plugin, secrets in plugins.items() if secrets})
    }
