"""Finds all that a wheel needs in directories of wheels, for one Python; runs nothing, asks nobody."""

from __future__ import annotations

import configparser
import contextlib
import email.message
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from toft.plugins.environments import environment_errors, pinned_wheels, plugin_classes, projects, wheel_files
from toft.plugins.environments.interpreters import Interpreter
from toft.plugins.environments.provisioning import PinnedWheel

_MOST_ROUNDS = 1000
_MOST_POINTS = 1 << 20


@dataclass(frozen=True)
class _Candidate:
    name: str
    version: Version
    path: Path

    @functools.cached_property
    def pinned(self) -> PinnedWheel:
        with self.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return PinnedWheel(
            name=self.name, version=str(self.version), filename=self.path.name, sha256=digest, path=self.path
        )

    @functools.cached_property
    def told(self) -> email.message.Message:
        return pinned_wheels.metadata(self.pinned)


class Wheelhouses:
    """Some directories of wheels.

    Args:
        directories: Where they are.
        interpreter: For which Python.
    """

    def __init__(self, directories: Sequence[Path], interpreter: Interpreter) -> None:
        self._interpreter = interpreter
        self._directories = tuple(directories)
        self._candidates: dict[str, list[_Candidate]] = {}
        for path in sorted(path for directory in directories for path in directory.glob("*.whl")):
            with contextlib.suppress(InvalidWheelFilename):
                name, version, _, tags = parse_wheel_filename(path.name)
                if any(projects.tag_fits(tag, interpreter) for tag in tags):
                    self._candidates.setdefault(name, []).append(_Candidate(name, version, path))

    def close(self, wheel: Path) -> tuple[PinnedWheel, ...]:
        """Return a wheel and all that it needs, the newest of each that everybody can live with; blocks.

        Raises:
            SourceError: It is no wheel.
            UnsatisfiableError: Something is not there, or nothing satisfies everybody.
        """
        try:
            name, version, *_ = parse_wheel_filename(wheel.name)
        except InvalidWheelFilename as error:
            raise environment_errors.SourceError(f"{wheel.name} is not named like a wheel") from error
        first = _Candidate(name, version, wheel)
        chosen: dict[str, _Candidate] = {name: first}
        for _ in range(_MOST_ROUNDS):
            reached = self._walk(first, chosen)
            if reached is not None:
                others = sorted(reached - {first.name})
                return (first.pinned, *(chosen[each].pinned for each in others))
        raise self._unsatisfiable(first, f"what {name} needs contradicts itself")

    def _walk(self, first: _Candidate, chosen: dict[str, _Candidate]) -> set[str] | None:
        """Follow what is needed; None when something was chosen anew, so that all is looked at again."""
        wanted: dict[str, list[tuple[str, Requirement]]] = {}
        needs = pinned_wheels.needs([first.name], lambda name: chosen[name].told, self._interpreter)
        for name, need in needs:
            needed = canonicalize_name(need.name)
            wanted.setdefault(needed, []).append((name, need))
            if needed not in chosen or not _suits(chosen[needed], wanted[needed]):
                if needed == first.name:
                    raise self._unsatisfiable(first, _told(wanted[needed]))
                chosen[needed] = self._choose(first, needed, wanted[needed])
                return None
        return {first.name, *wanted}

    def _choose(self, first: _Candidate, name: str, wanted: Sequence[tuple[str, Requirement]]) -> _Candidate:
        fitting = [each for each in self._candidates.get(name, ()) if _suits(each, wanted)]
        if not fitting:
            raise self._unsatisfiable(first, _told(wanted))
        return max(fitting, key=lambda each: each.version)

    def _unsatisfiable(self, first: _Candidate, why: str) -> environment_errors.UnsatisfiableError:
        where = ", ".join(str(each) for each in self._directories)
        return environment_errors.UnsatisfiableError(
            f"{why}, and there is none for Python {self._interpreter.version} in {where}",
            details={"wheel": first.path.name, "wheelhouses": [str(each) for each in self._directories]},
            hint=f"fetch what is missing: uv pip download, or pip download {first.path} -d DIR",
        )


class _Points(configparser.ConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr  # names keep their case


def plugin_names(wheel: Path) -> list[str]:
    """Return what the plugins of a wheel are called; its own name where it declares none."""
    with contextlib.suppress(*wheel_files.DAMAGED), wheel_files.opened(wheel) as archive:
        for name in archive.namelist():
            if name.endswith(".dist-info/entry_points.txt") and name.count("/") == 1:
                with archive.open(name) as file:
                    text = file.read(_MOST_POINTS).decode("utf-8", "replace")
                parser = _Points(interpolation=None, delimiters=("=",))
                with contextlib.suppress(configparser.Error):
                    parser.read_string(text)
                    if parser.has_section(plugin_classes.GROUP):
                        return sorted(parser.options(plugin_classes.GROUP))
    return [canonicalize_name(wheel.name.split("-", 1)[0])]


def _suits(candidate: _Candidate, wanted: Sequence[tuple[str, Requirement]]) -> bool:
    return all(need.specifier.contains(candidate.version, prereleases=True) for _, need in wanted)


def _told(wanted: Sequence[tuple[str, Requirement]]) -> str:
    return ", ".join(f"{by} needs {need.name}{need.specifier}" for by, need in wanted)
