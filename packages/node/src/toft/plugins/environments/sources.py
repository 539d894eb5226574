"""What `plugin add` was given: directory, wheel, file, requirement; decided before anything runs."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from toft.plugins.environments import environment_errors, projects, single_files, uv_errors

_EXTRAS = re.compile(r"(?P<path>.+?)\[(?P<extras>[A-Za-z0-9._,\s-]+)\]")


@dataclass(frozen=True)
class Source:
    """Where a plugin comes from.

    Attributes:
        kind: `project`, `wheel`, `file`, `requirement`, `vcs` or `plugins_file`.
        text: What was typed, as it is kept in the manifest; without passwords.
        path: The directory or file, for the kinds that have one.
        requirement: The requirement string, for `requirement` and `vcs`.
        name: The distribution's name, where it can be told without running anything.
        extras: Extras of the project or wheel.
    """

    kind: str
    text: str
    path: Path | None = None
    requirement: str | None = None
    name: str | None = None
    extras: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, *, directory: Path | None = None) -> Source:
        """Decide what a text names.

        Args:
            text: A path, a requirement, `name @ file:///path`, or `git+https://…`.
            directory: Where relative paths start; the working directory by default.

        Raises:
            SourceError: It names nothing a plugin can come from; says what was looked for.
        """
        text = text.strip()
        if not text or any(ord(char) < 32 for char in text):
            raise environment_errors.SourceError("a plugin source is a path or a requirement on one line")
        base = directory or Path.cwd()
        if text.startswith("git+"):
            return cls("vcs", uv_errors.redacted(text), requirement=text)
        path, extras = _local(text, base)
        if path is not None:
            return cls._of_path(path, extras)
        return cls._of_requirement(text, base)

    @classmethod
    def _of_path(cls, path: Path, extras: tuple[str, ...]) -> Source:
        if path.is_dir():
            return cls("project", str(path), path=path, name=projects.project_name(path), extras=extras)
        if path.suffix == ".whl":
            return cls("wheel", str(path), path=path, name=projects.project_name(path), extras=extras)
        if path.suffix == ".py":
            single_files.read(path)
            return cls("file", str(path), path=path, name=canonicalize_name(path.stem), extras=extras)
        if path.suffix in (".yaml", ".yml"):
            return cls("plugins_file", str(path), path=path)
        if path.suffix in (".txt", ".lock", ".in"):
            raise environment_errors.SourceError(
                f"{path.name} lists packages, and a plugin is one of them",
                hint=f"toft plugin add NAME --lock {path.name}",
            )
        raise environment_errors.SourceError(
            f"{path} is neither a project directory, a wheel, a Python file nor a plugins.yaml",
            hint="toft plugin new NAME makes a plugin to start from",
        )

    @classmethod
    def _of_requirement(cls, text: str, base: Path) -> Source:
        if looks_like_path(text):
            raise environment_errors.SourceError(
                f"there is no {base / os.path.expanduser(text)}", code="source.not_found"
            )
        requirement = parse_requirement(text)
        name = canonicalize_name(requirement.name)
        shown = uv_errors.redacted(text)
        if requirement.url and requirement.url.startswith("git+"):
            return cls("vcs", shown, requirement=requirement.url, name=name)
        if requirement.url and requirement.url.startswith("file:"):
            path = Path(unquote(urlsplit(requirement.url).path))
            if not path.exists():
                raise environment_errors.SourceError(f"there is no {path}", code="source.not_found")
            found = cls._of_path(path, tuple(sorted(requirement.extras)))
            if found.name not in (None, name):
                raise environment_errors.SourceError(f"{path} holds {found.name}, not {name}")
            return found
        return cls("requirement", shown, requirement=text, name=name)


def _local(text: str, base: Path) -> tuple[Path | None, tuple[str, ...]]:
    candidates: list[tuple[str, tuple[str, ...]]] = [(text, ())]
    match = _EXTRAS.fullmatch(text)
    if match:
        extras = tuple(part.strip() for part in match["extras"].split(",") if part.strip())
        candidates.append((match["path"], extras))
    for name, extras in candidates:
        path = Path(os.path.normpath(base / os.path.expanduser(name)))
        # A bare word is a requirement unless a project of that name lies here.
        is_project = path.is_dir() and any((path / file).is_file() for file in projects.PROJECT_FILES)
        if is_project or (path.exists() and (looks_like_path(name) or path.is_file())):
            return path, extras
    return None, ()


def parse_requirement(text: str) -> Requirement:
    """Return the requirement that a text is.

    Raises:
        SourceError: It is none.
    """
    try:
        return Requirement(text)
    except InvalidRequirement as error:
        raise environment_errors.SourceError(
            f"{text[:200]!r} is neither a path nor a requirement: {str(error).splitlines()[0]}",
            hint="write a directory, a wheel, or a requirement such as name==1.2",
        ) from error


def looks_like_path(text: str) -> bool:
    """Say whether a text can only mean a path."""
    return (
        text.startswith((".", "/", "~"))
        or text.endswith((".whl", ".py", ".yaml", ".yml"))
        or text.endswith("/")
    )
