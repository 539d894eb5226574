"""Reads project directories, wheels and environments; runs none of their code and changes nothing."""

from __future__ import annotations

import email.parser
import os
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from toft.plugins.environments import environment_errors, single_files, wheel_files
from toft.plugins.environments.interpreters import Interpreter

_NOT_COPIED = frozenset(
    {
        ".venv",
        "venv",
        "node_modules",
        "__pycache__",
        ".tox",
        ".nox",
        ".mypy_cache",
        ".ruff_cache",
        ".pytest_cache",
    }
)
PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg")
_MOST_PYPROJECT = 4 << 20


@dataclass(frozen=True)
class Distribution:
    """One installed distribution, as its metadata directory says."""

    name: str
    version: str
    metadata: Path

    def entry_points(self, group: str) -> dict[str, str]:
        """Return the entry points of a group: name to `module:attribute`."""
        found: dict[str, str] = {}
        section = ""
        for line in _text(self.metadata / "entry_points.txt").splitlines():
            line = line.strip()
            if line.startswith("["):
                section = line.strip("[]").strip()
            elif section == group and "=" in line and not line.startswith(("#", ";")):
                name, _, value = line.partition("=")
                found[name.strip()] = value.split("[")[0].strip()
        return found

    def modules(self) -> list[Path]:
        """Return its Python source files, as paths relative to the directory it is installed in."""
        names = []
        for line in _text(self.metadata / "RECORD").splitlines():
            name = line.rsplit(",", 2)[0].strip('"')
            if name.endswith(".py") and not name.startswith(("..", "/")):
                names.append(Path(name))
        return sorted(names)

    @property
    def root(self) -> Path:
        """Return the directory it is installed in."""
        return self.metadata.parent


def requires_python(source: Path) -> str | None:
    """Return the range of Python versions a project directory, a wheel or a file declares.

    Raises:
        SourceError: It is none of these.
    """
    if source.suffix == ".py":
        return single_files.requires_python(source)
    if source.suffix == ".whl" and source.is_file():
        return _wheel_metadata(source).get("Requires-Python")
    declared = _project_table(source).get("requires-python")
    return declared if isinstance(declared, str) else None


def project_name(source: Path) -> str | None:
    """Return the distribution name of a wheel or a project directory, when it says so itself."""
    if source.suffix == ".whl":
        try:
            return str(parse_wheel_filename(source.name)[0])
        except InvalidWheelFilename as error:
            raise environment_errors.SourceError(
                f"{source.name} is not named like a wheel: {error}"
            ) from error
    name = _project_table(source).get("name")
    return canonicalize_name(name) if isinstance(name, str) else None


def read_pyproject(directory: Path) -> dict[str, Any]:
    """Return the `pyproject.toml` of a project; empty when it has only a `setup.py`.

    Raises:
        SourceError: It is no project directory, or the file cannot be read.
    """
    if not any((directory / name).is_file() for name in PROJECT_FILES):
        raise environment_errors.SourceError(
            f"{directory} is not a Python project: there is no pyproject.toml",
            code="source.not_a_project",
            hint="toft plugin new NAME makes one to start from",
        )
    path = directory / "pyproject.toml"
    try:
        if not path.is_file():
            return {}
        with path.open("rb") as file:
            data = file.read(_MOST_PYPROJECT + 1)
        if len(data) > _MOST_PYPROJECT:
            raise ValueError(f"it is larger than {_MOST_PYPROJECT} bytes")
        return tomllib.loads(data.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise environment_errors.SourceError(f"{path} cannot be read: {error}") from error


def _project_table(directory: Path) -> dict[str, Any]:
    table = read_pyproject(directory).get("project")
    return table if isinstance(table, dict) else {}


def left_out(directory: str, names: list[str]) -> list[str]:
    """Return what builds never need of the names in a directory of a project."""
    return [
        name
        for name in names
        if name in _NOT_COPIED
        or name.endswith(".egg-info")
        or os.path.isfile(os.path.join(directory, name, "pyvenv.cfg"))
    ]


def copy_project(source: Path, target: Path) -> None:
    """Copy a project to where its build may write; what builds never need is left out."""
    refused: list[OSError] = []

    def copied(path: str, copy: str) -> str:
        try:
            return shutil.copy2(path, copy)
        except OSError as error:
            refused.append(error)
            raise

    try:
        shutil.copytree(source, target, symlinks=True, ignore=left_out, copy_function=copied)
    except shutil.Error:
        # It gathers texts; a full disk has to stay the error number that it is.
        if refused:
            raise refused[0] from None
        raise


def distributions(prefix: Path) -> Iterator[Distribution]:
    """Yield every distribution installed below a prefix."""
    for metadata in sorted(prefix.glob("lib/python*/site-packages/*.dist-info")):
        name, _, version = metadata.name.removesuffix(".dist-info").rpartition("-")
        if name:
            yield Distribution(canonicalize_name(name), version, metadata)


def installed_packages(prefix: Path) -> dict[str, str]:
    """Return every installed distribution's name and version."""
    return {found.name: found.version for found in distributions(prefix)}


def locked_sizes(pylock: Path, interpreter: Interpreter) -> dict[str, int | None]:
    """Return the download size of each package of a `pylock.toml`; None where it does not say."""
    lock = tomllib.loads(pylock.read_text(encoding="utf-8"))
    sizes: dict[str, int | None] = {}
    for package in lock.get("packages", ()):
        wheels = [wheel for wheel in package.get("wheels", ()) if _fits(wheel, interpreter)]
        chosen = wheels or [
            package[key] for key in ("sdist", "archive") if isinstance(package.get(key), dict)
        ]
        known = [size for one in chosen if (size := _size(one, pylock.parent)) is not None]
        sizes[package["name"]] = max(known) if known else None
    return sizes


def _size(file: dict[str, Any], base: Path) -> int | None:
    told = file.get("size")
    if isinstance(told, int):
        return told
    url = urlsplit(str(file.get("url") or ""))
    local = unquote(url.path) if url.scheme == "file" else file.get("path")
    try:
        return (base / str(local)).stat().st_size if local else None
    except OSError:
        return None


def _fits(wheel: dict[str, Any], interpreter: Interpreter) -> bool:
    name = wheel.get("name") or str(wheel.get("url") or wheel.get("path") or "").rsplit("/", 1)[-1]
    try:
        tags = parse_wheel_filename(name.replace("%2B", "+"))[3]
    except InvalidWheelFilename:
        return False
    return any(tag_fits(tag, interpreter) for tag in tags)


def tag_fits(tag: Tag, interpreter: Interpreter) -> bool:
    """Say whether what has this tag may be for an interpreter; its installer knows for sure."""
    major, minor, *_ = interpreter.version.split(".")
    system, _, machine = interpreter.platform.partition("-")
    python = tag.interpreter in (f"cp{major}{minor}", f"py{major}", f"py{major}{minor}") or (
        tag.abi == "abi3" and tag.interpreter.startswith("cp3") and int(tag.interpreter[3:]) <= int(minor)
    )
    return python and (tag.platform == "any" or (system in tag.platform and tag.platform.endswith(machine)))


def _wheel_metadata(wheel: Path) -> email.message.Message:
    try:
        return email.parser.Parser().parsestr(wheel_files.metadata(wheel), headersonly=True)
    except wheel_files.DAMAGED as error:
        raise environment_errors.SourceError(f"{wheel} is not a wheel: {error}") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
